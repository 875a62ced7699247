"""Settings of a run: flags win over the TOML file, the TOML file over the defaults."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from apogee_batch.errors import UsageError

ClusterKind = Literal["local", "serial", "address"]
Device = Literal["auto", "cpu", "cuda"]
MAX_BAD_FRACTION = 0.01


class Section(BaseModel):
    """A table of the TOML file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class IngestSettings(Section):
    """How spectra enter the store."""

    row: Literal["combined", "visits"] = "combined"
    shard_stars: int | None = Field(None, ge=16, le=65536, multiple_of=16)
    max_bad_fraction: float = Field(MAX_BAD_FRACTION, ge=0, le=1)


class TrainingSettings(Section):
    """How the network is trained."""

    recipe: str = "robust"
    seed: int = Field(0, ge=0, lt=2**63)
    threads: int | None = Field(None, ge=1)


class InferenceSettings(Section):
    """How labels are estimated."""

    realizations: int = Field(100, ge=2, le=100_000)
    seed: int = Field(0, ge=0, lt=2**63)
    err_cap: Literal["median", "mean"] = "median"
    max_bad_fraction: float = Field(MAX_BAD_FRACTION, ge=0, le=1)


class ClusterSettings(Section):
    """Where the work runs."""

    kind: ClusterKind = "local"
    workers: int | None = Field(None, ge=1, le=4096)
    address: str | None = None
    device: Device = "auto"


class RunConfig(Section):
    """All settings; one TOML file in `jobs/` describes them."""

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
    """Put settings together.

    Parameters
    ----------
    path : Path or None
        TOML file, or None for the defaults.
    flags : mapping of section to mapping of key to value
        What the command line said; a None is "not said".

    Raises
    ------
    UsageError
        If the file cannot be read, or a key is unknown or a value out of range; names it.
    """
    values: dict[str, Any] = {} if path is None else _read_toml(path)
    for section, said in (flags or {}).items():
        table = values.setdefault(section, {})
        if isinstance(table, dict):
            table.update({key: value for key, value in said.items() if value is not None})
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise UsageError(_explain(error, path)) from error


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as TOML ({error})") from error


def _explain(error: ValidationError, path: Path | None) -> str:
    """Put pydantic's report into one line: where, what, and which keys there are."""
    problems = []
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        problems.append(
            f"{name}: unknown setting" if item["type"] == "extra_forbidden" else f"{name}: {item['msg']}"
        )
    known = ", ".join(
        f"{section}.{key}"
        for section, field in RunConfig.model_fields.items()
        for key in (field.annotation.model_fields if isinstance(field.annotation, type) else {})
    )
    return f"{path or 'command line'}: {'; '.join(problems)} (settings: {known})"
