"""Flags win over the TOML file, the file over the defaults; unknown settings are errors."""

from pathlib import Path

import pytest

from apogee_batch.errors import UsageError
from apogee_batch.run.config import QUEUE_KINDS, RunConfig, load_config
from apogee_batch.run.job_settings import QueueKind

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
        (
            "[cluster.gpu]\nwaltime = '1'\n",
            "waltime: unknown setting (settings of cluster.gpu: walltime, memory,",
        ),
        ("[gpu]\nx = 1\n", "gpu: unknown setting (sections: ingest, training, inference, cluster)"),
        ("[cluster.gpu]\nwalltime = '30'\n", "cluster.gpu.walltime: '30' is not a walltime"),
        ("[cluster]\ngpu = 3\n", "cluster.gpu"),
        ("cluster = 3\n", "cluster"),
        ("[cluster]\ntls = false\n", "run code as you"),
        ("[cluster.cpu]\nprologue = ['a', \"b\\nc\"]\n", "cluster.cpu.prologue.1: 'b\\nc' holds a control"),
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


def test_flags_reach_the_settings_of_one_job(tmp_path: Path) -> None:
    path = write(tmp_path, "[cluster.gpu]\nwalltime = 04:00:00\ncores = 2\n[cluster.cpu]\ncores = 3\n")
    cluster = load_config(path, {"cluster": {"gpu": {"cores": "8", "memory": None}}}).cluster
    assert (cluster.gpu.cores, cluster.gpu.walltime_s, cluster.cpu.cores) == (8, 14400, 3)


def test_encryption_is_given_up_by_saying_it_twice(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"anyone .* run code as you; .*--no-tls --i-know"):
        load_config(None, {"cluster": {"tls": False}})
    assert not load_config(None, {"cluster": {"tls": False, "without_tls_i_know": True}}).cluster.tls
    assert load_config(None, {"cluster": {"without_tls_i_know": True}}).cluster.tls


@pytest.mark.parametrize("kind", QUEUE_KINDS)
def test_a_queue_needs_walltime_and_memory(kind: QueueKind) -> None:
    cluster = load_config(None, {"cluster": {"kind": kind, "gpu": {"memory": "2GB"}}}).cluster
    with pytest.raises(UsageError, match="need walltime and memory ") as caught:
        cluster.job("cpu")
    for said in ("--walltime", "cluster.cpu.walltime", f"jobqueue.{kind}.walltime", "cluster.cpu.memory"):
        assert said in str(caught.value)
    with pytest.raises(UsageError, match=r"need walltime .walltime: "):
        cluster.job("gpu")
    assert RunConfig().cluster.job("gpu") == RunConfig().cluster.gpu


def test_the_example_of_a_cluster_has_both_kinds_of_jobs() -> None:
    cluster = load_config(JOBS / "slurm.toml").cluster
    assert (cluster.kind, cluster.job("gpu").gres, cluster.job("cpu").processes) == ("slurm", "gpu:1", 8)
