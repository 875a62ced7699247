"""Flags win over the TOML file, the file over the defaults; unknown settings are errors."""

from pathlib import Path

import pytest

from apogee_batch.errors import UsageError
from apogee_batch.run.config import RunConfig, load_config

JOBS = Path(__file__).resolve().parents[1] / "jobs"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


def test_defaults() -> None:
    config = load_config(None)
    assert config == RunConfig()
    assert (config.inference.realizations, config.inference.err_cap, config.cluster.kind) == (
        100,
        "median",
        "local",
    )


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, "[inference]\nrealizations = 7\nseed = 3\n[cluster]\nkind = 'serial'\n")
    config = load_config(path, {"inference": {"seed": 9, "realizations": None}, "cluster": {"workers": None}})
    assert (config.inference.realizations, config.inference.seed) == (7, 9)
    assert (config.cluster.kind, config.training.recipe) == ("serial", "robust")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[inference]\nrealisations = 7\n", "inference.realisations: unknown setting"),
        ("[infer]\nseed = 7\n", "infer: unknown setting"),
        ("[inference]\nrealizations = 1\n", "inference.realizations"),
        ("[cluster]\nkind = 'slurm?'\n", "cluster.kind"),
        ("inference = 3\n", "inference"),
        ("[inference\n", "cannot be read as TOML"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=r"run\.toml") as caught:
        load_config(write(tmp_path, text))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value).replace("cannot be read as TOML", "")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.toml"):
        load_config(tmp_path / "nothing.toml")


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.toml")), ids=lambda path: path.name)
def test_the_job_files_are_valid(path: Path) -> None:
    load_config(path)


def test_there_are_job_files() -> None:
    assert list(JOBS.glob("*.toml"))
