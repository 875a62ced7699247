"""A survey that a test can turn into a catalogue in seconds, and what comes out if nobody disturbs."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from apogee_batch.run import commands
from apogee_batch.run.config import load_config
from apogee_batch.run.progress import SilentView
from apogee_batch.survey.simulate import SimulatedSurvey

N_STARS = 96
SHARD_STARS = 16  # six shards: three for each of two workers
REALIZATIONS = 5
CATALOG = ("catalog/catalog.parquet", "catalog/catalog.fits", "rejects.parquet")
CHANGING = ("ledger", "ledger.tar", "logs", "stages.jsonl", "report.html", "figures")  # times, names of hosts
JOB = {"walltime": "00:10:00", "memory": "1GB", "cores": 1, "partition": "debug"}
GPU_JOB = JOB | {"gres": "gpu:1"}

Settings = dict[str, dict[str, Any]]


@dataclass
class SmallSurvey:
    """96 stars in six shards.

    Attributes
    ----------
    survey : SimulatedSurvey
        apStar files, allStar, label tables.
    folder : Path
        Where store, settings and undisturbed runs are.
    recipe : str
        A training of three epochs, which take a second or two.
    store : Path
        Store with labels, made in this process. Tests that change it take a copy.
    model : Path
        Model of the undisturbed run, for runs that need not train.
    """

    survey: SimulatedSurvey
    folder: Path
    recipe: str
    _references: set[Path] = field(default_factory=set)

    @property
    def store(self) -> Path:
        """Store with labels, made when it is first asked for."""
        store = self.folder / "s.zarr"
        if not store.exists():
            config = load_config(None, self.settings("serial"))
            source = [str(self.survey.spectra)]
            allstar = self.survey.allstar
            commands.ingest(
                source, store, allstar=allstar, config=config, is_dry_run=False, progress=SilentView()
            )
            labels = {name: [path] for name, path in self.survey.labels.items()}
            commands.attach(store, labels, column_map=[])
        return store

    @property
    def model(self) -> Path:
        """Model of the undisturbed run."""
        return self.reference() / "model"

    def reference(self, realizations: int = REALIZATIONS, *, is_model_given: bool = False) -> Path:
        """Return the undisturbed serial run, made when it is first asked for.

        Parameters
        ----------
        realizations : int
            Noisy copies of each spectrum.
        is_model_given : bool
            Whether it had `model` by --model, as its catalogue tells, or trained the same one itself.
        """
        run = self.folder / f"reference-{realizations}{'-model' if is_model_given else ''}"
        if run not in self._references:
            commands.make_catalog(
                self.store,
                run,
                model=self.model if is_model_given else None,
                config=load_config(None, self.settings("serial", realizations=realizations)),
                is_dry_run=False,
                progress=SilentView(),
            )
            self._references.add(run)
        return run

    def assert_same_catalog(
        self, run: Path, realizations: int = REALIZATIONS, *, is_model_given: bool = False
    ) -> None:
        """See that a run published the bytes of the undisturbed one; arguments as of `reference`."""
        reference = self.reference(realizations, is_model_given=is_model_given)
        assert catalog_hashes(run) == catalog_hashes(reference), f"{run} and {reference} differ"

    def settings(
        self,
        kind: str = "slurm",
        *,
        realizations: int = REALIZATIONS,
        cluster: Mapping[str, Any] | None = None,
        job: Mapping[str, Any] | None = None,
    ) -> Settings:
        """Return the settings of a run.

        Parameters
        ----------
        kind : str
            `slurm` with two workers, one a job of a core, a GPU and ten minutes; or `serial`.
        realizations : int
            5 make a shard of 0.1 s; 1000 one of some seconds, long enough for a misfortune in the middle.
        cluster : mapping, optional
            Other settings of the section `cluster`.
        job : mapping, optional
            Other settings of both kinds of jobs, as `walltime` and `prologue`.
        """
        queue = {"workers": 2, "cpu": JOB | dict(job or {}), "gpu": GPU_JOB | dict(job or {})}
        return {
            "ingest": {"shard_stars": SHARD_STARS},
            "training": {"recipe": self.recipe, "threads": 1},
            "inference": {"realizations": realizations},
            "cluster": {"kind": kind, "device": "cpu"}
            | (queue if kind == "slurm" else {})
            | dict(cluster or {}),
        }

    def write_config(self, path: Path, kind: str = "slurm", **different: Any) -> Path:
        """Write `settings` as TOML, for `--config`; return the path."""
        path.write_text("\n".join(_toml(self.settings(kind, **different))) + "\n")
        return path

    def ingest_words(self, store: Path) -> list[object]:
        """Return the command that makes a store of this survey, without --config."""
        return ["ingest", self.survey.spectra, "--allstar", self.survey.allstar, "--store", store]

    def run_words(self, run: Path, *, model: Path | None = None) -> list[object]:
        """Return the command that makes a catalogue of `store`, without --config."""
        return ["run-catalog", self.store, "--out", run, *(["--model", model] if model else [])]


def catalog_hashes(run: Path) -> dict[str, str]:
    """Return the SHA-256 of what a run publishes: catalogue as Parquet and FITS, rejects."""
    return {name: sha256((run / name).read_bytes()).hexdigest() for name in CATALOG}


def content_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a run or store that is the same each time, by its path in it."""
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(name in path.relative_to(folder).parts for name in CHANGING)
    }


def _toml(table: Mapping[str, Any], name: str = "") -> Iterator[str]:
    """Write tables of tables; of a plain value, TOML's form is that of JSON."""
    if name:
        yield f"[{name}]"
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    yield from (f"{key} = {json.dumps(value)}" for key, value in table.items() if key not in inner)
    for key, value in inner.items():
        yield from _toml(value, f"{name}.{key}" if name else key)
