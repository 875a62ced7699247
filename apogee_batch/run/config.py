"""Settings of a run: flags win over the TOML file, the TOML file over the defaults."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator

from apogee_batch.errors import UsageError
from apogee_batch.inference.engines import EngineChoice, Precision
from apogee_batch.run.job_settings import Interface, JobSettings, QueueKind, Role, Section

ClusterKind = Literal["local", "serial", "address", "slurm", "pbs", "sge", "lsf", "htcondor"]
QUEUE_KINDS: tuple[QueueKind, ...] = get_args(QueueKind)
Device = Literal["auto", "cpu", "cuda"]
MAX_BAD_FRACTION = 0.01


class IngestSettings(Section):
    """How spectra enter the store.

    Attributes
    ----------
    row : str
        `combined`: a row for each star, its visits combined; `visits`: a row for each visit.
    shard_stars : int, optional
        Rows of a shard of a new store; by default chosen by the number of stars.
    max_bad_fraction : float
        An ingest stops when more of its files are of no use; a single one stops nothing, unless this is 0.
    """

    row: Literal["combined", "visits"] = "combined"
    shard_stars: int | None = Field(None, ge=16, le=65536, multiple_of=16)
    max_bad_fraction: float = Field(MAX_BAD_FRACTION, ge=0, le=1)


class TrainingSettings(Section):
    """How the network is trained.

    Attributes
    ----------
    recipe : str
        `robust`, `paper`, or the path of a TOML file of one's own.
    seed : int
        Seed of the first weights and of the order of the stars.
    threads : int, optional
        Threads of a training; by default all cores, on a cluster with a queue the cores of a worker.
    workers : int
        Workers that train together; part of the plan.
    """

    recipe: str = "robust"
    seed: int = Field(0, ge=0, lt=2**63)
    threads: int | None = Field(None, ge=1)
    workers: int = Field(1, ge=1, le=256)


class InferenceSettings(Section):
    """How labels are estimated.

    Attributes
    ----------
    realizations : int
        Noisy copies of each spectrum.
    seed : int
        Seed of their noise; each star's own seed follows from it and from the star's name.
    err_cap : str
        Errors are capped at five times the median, or the mean, error of their spectrum.
    precision : str
        `exact`: float32 throughout; `fast`: 16 bits for the differences that noise makes.
    engine : str
        What computes the network; `auto`: the fastest that can be used here. No part of the plan.
    max_bad_fraction : float
        A run stops when more of the stars end every worker that takes them.
    """

    realizations: int = Field(100, ge=2, le=100_000)
    seed: int = Field(0, ge=0, lt=2**63)
    err_cap: Literal["median", "mean"] = "median"
    precision: Precision = "exact"
    engine: EngineChoice = "auto"
    max_bad_fraction: float = Field(MAX_BAD_FRACTION, ge=0, le=1)


class ClusterSettings(Section):
    """Where the work runs.

    Attributes
    ----------
    kind : str
        What starts the workers: `local` processes, `serial` (this process), a running Dask scheduler
        (`address`), or a queue system.
    workers : int, optional
        Worker processes of the whole run, by default one for each core; a job of a queue holds `processes`
        of them, which is the default there.
    address : str, optional
        Of the running scheduler, as `tcp://127.0.0.1:8786`.
    device : str
        `auto`: a CUDA device where a worker sees one, else the CPU.
    cpu, gpu : JobSettings
        A job for ingest, and one for training and inference.
    interface : str, optional
        Network interface by which the nodes and the driver reach one another.
    tls : bool
        Encryption with keys of the run.
    without_tls_i_know : bool
        Has to be true where `tls` is false: anyone on the network may then run code as you.
    site : str, optional
        Settings of the site: `jobqueue.SITE` in the YAML files of Dask.
    command_timeout_s : float
        How long a command of the queue system may take.
    say_after_s : float
        Seconds without workers after which the queue's reasons are told.
    frozen_after_s : float
        Seconds without a word of a worker after which it is replaced.
    max_lost_jobs : int
        Jobs in a row that end without having done anything, after which the run gives up.
    """

    kind: ClusterKind = "local"
    workers: int | None = Field(None, ge=1, le=4096)
    address: str | None = None
    device: Device = "auto"
    cpu: JobSettings = JobSettings()
    gpu: JobSettings = JobSettings()
    interface: Interface | None = None
    tls: bool = True
    without_tls_i_know: bool = False
    site: str | None = None
    command_timeout_s: float = Field(60, gt=0, le=3600)
    say_after_s: float = Field(60, gt=0, le=86400)
    frozen_after_s: float = Field(300, ge=1, le=86400)
    max_lost_jobs: int = Field(5, ge=1, le=1000)

    @model_validator(mode="after")
    def _is_open_only_on_purpose(self) -> Self:
        if not self.tls and not self.without_tls_i_know:
            raise ValueError(
                "without TLS anyone who reaches the network of the cluster could run code as you; keep it, "
                "or say twice that you know: --no-tls --i-know (in TOML: without_tls_i_know = true)"
            )
        return self

    def job(self, role: Role) -> JobSettings:
        """Return the job of a role.

        Raises
        ------
        UsageError
            If the queue system would not be told for how long, or for how much memory.
        """
        job = self.cpu if role == "cpu" else self.gpu
        missing = [key for key in ("walltime", "memory") if getattr(job, key) is None]
        if self.kind in QUEUE_KINDS and missing:
            site = self.site or self.kind
            told = "; ".join(
                f"{key}: --{key}, or cluster.{role}.{key} in the TOML file, or jobqueue.{site}.{key} in the "
                f"site's YAML with --cluster-config {site}"
                for key in missing
            )
            raise UsageError(f"jobs of --cluster {self.kind} need {' and '.join(missing)} ({told})")
        return job


class RunConfig(Section):
    """All settings; one TOML file in `jobs/` describes them.

    Attributes
    ----------
    ingest, training, inference, cluster : Section
        How spectra enter the store, the network is trained, labels are estimated, and where the work runs.
    """

    ingest: IngestSettings = IngestSettings()
    training: TrainingSettings = TrainingSettings()
    inference: InferenceSettings = InferenceSettings()
    cluster: ClusterSettings = ClusterSettings()


@dataclass(frozen=True)
class Going:
    """How a command treats what it finds.

    Attributes
    ----------
    force_new_plan : bool
        Begin anew where another plan was begun; what is there is kept beside it.
    break_lock : bool
        Take the lock away from a process on another host.
    trust_mtime : bool
        Take size and time of modification of an input for its content.
    """

    force_new_plan: bool = False
    break_lock: bool = False
    trust_mtime: bool = False


ORDINARY = Going()


def load_config(path: Path | None, flags: Mapping[str, Mapping[str, Any]] | None = None) -> RunConfig:
    """Put settings together: flags win over the settings of the site, those over the TOML file.

    Parameters
    ----------
    path : Path or None
        TOML file, or None for the defaults.
    flags : mapping of section to mapping of key to value
        What the command line said; a None is "not said", a mapping is a section in the section.

    Raises
    ------
    UsageError
        If a file cannot be read, or a key is unknown or a value out of range; names it.
    """
    values: dict[str, Any] = {} if path is None else _read_toml(path)
    said = {section: dict(table) for section, table in (flags or {}).items()}
    site = _said_of_cluster("site", said, values)
    if isinstance(site, str):
        from apogee_batch.run.clusters.site import read_site  # Dask, which most commands do without

        settings = read_site(site, kind=_said_of_cluster("kind", said, values))
        jobs = dict.fromkeys(get_args(Role), settings.job)
        values = _over(values, {"cluster": {**jobs, "interface": settings.interface}})
    try:
        return RunConfig.model_validate(_over(values, said))
    except ValidationError as error:
        is_by_flags = any(value not in (None, {}) for table in said.values() for value in table.values())
        where = str(path or "command line") + (" with the flags" if path and is_by_flags else "")
        where += f" and the settings of {site}" if site else ""
        raise UsageError(f"{where}: {_explain(error)}") from error


def _said_of_cluster(key: str, flags: Mapping[str, Any], values: Mapping[str, Any]) -> object:
    tables = (source.get("cluster") for source in (flags, values))
    found = [table[key] for table in tables if isinstance(table, dict) and table.get(key) is not None]
    return found[0] if found else None


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay settings over others, table by table; a None leaves what is there."""
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, Mapping):
            table = merged.get(key, {})
            if isinstance(table, Mapping):  # anything else is told as an error
                merged[key] = _over(table, value)
        elif value is not None:
            merged[key] = value
    return merged


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as TOML ({error})") from error


def _explain(error: ValidationError) -> str:
    """Put pydantic's report into one line: where, what, and which keys there are instead of unknown ones."""
    problems, known = [], {}
    for item in error.errors():
        path = [str(part) for part in item["loc"]]
        if item["type"] == "extra_forbidden":
            problems.append(f"{'.'.join(path)}: unknown setting")
            of = f"settings of {'.'.join(path[:-1])}" if path[:-1] else "sections"
            known[of] = _section_at(path[:-1]).model_fields
        else:
            problems.append(f"{'.'.join(path)}: {item['msg'].removeprefix('Value error, ')}")
    return "; ".join(problems) + "".join(f" ({of}: {', '.join(keys)})" for of, keys in known.items())


def _section_at(path: Sequence[str]) -> type[BaseModel]:
    """Return the section of a name like `cluster.gpu`."""
    section: type[BaseModel] = RunConfig
    for key in path:
        kind = section.model_fields[key].annotation
        assert isinstance(kind, type), "only a section can hold a key"
        assert issubclass(kind, BaseModel)
        section = kind
    return section
