"""The options of jobs reach the settings of the role that a command uses."""

import inspect
import sys
from pathlib import Path
from typing import Any

import pytest

from apogee_batch import cli
from apogee_batch.cli_cluster import JOB_OPTIONS
from apogee_batch.run import cluster_show
from apogee_batch.run.config import RunConfig

JOB = ["--partition", "p", "--account", "a", "--walltime", "01:00:00", "--memory", "2GB", "--gres", "gpu:1"]
MORE = [
    "--job",
    "cores=4",
    "--job",
    "directives=--x=1",
    "--job",
    "directives=--y",
    "--job",
    "local-directory=/l",
]
CLUSTER = ["--cluster", "slurm", "--interface", "ib0", "--no-tls", "--i-know"]


def call(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["apogee-batch", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


def check(config: RunConfig, role: str) -> None:
    cluster = config.cluster
    assert (cluster.kind, cluster.interface, cluster.tls) == ("slurm", "ib0", False)
    job, other = (cluster.cpu, cluster.gpu) if role == "cpu" else (cluster.gpu, cluster.cpu)
    assert job.model_dump(exclude_defaults=True) == {
        "partition": "p",
        "account": "a",
        "walltime": "01:00:00",
        "memory": "2GB",
        "gres": "gpu:1",
        "cores": 4,
        "directives": ("--x=1", "--y"),
        "local_directory": "/l",
    }
    assert other == type(other)()


@pytest.mark.parametrize(
    ("command", "function", "role"),
    [
        (["ingest", "x", "--store", "s"], "ingest", "cpu"),
        (["train", "s", "--out", "m", "--train-workers", "3"], "train", "gpu"),
        (["run-catalog", "s", "--out", "r", "--train-workers", "3", "--plan-only"], "make_catalog", "gpu"),
        (["run-catalog", "s", "--out", "r", "--train-workers", "3", "--finalise"], "make_catalog", "gpu"),
    ],
)
def test_a_command_gives_its_role_the_settings(
    command: list[str], function: str, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: dict[str, Any] = {}
    monkeypatch.setattr(f"apogee_batch.run.commands.{function}", lambda *_, **said: got.update(said) or [])
    assert call([*command, *JOB, *MORE, *CLUSTER], monkeypatch) == 0
    check(got["config"], role)
    assert got["config"].training.workers == (1 if function == "ingest" else 3)
    if function == "make_catalog":
        assert (got["is_plan_only"], got["is_finalise"]) == (
            "--plan-only" in command,
            "--finalise" in command,
        )


def test_a_shard_is_run_on_the_device_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    got: list[Any] = []

    def run_shard(*arguments: Any, **said: Any) -> list[str]:
        got.append((arguments, said["device"]))
        return ["done"]

    monkeypatch.setattr("apogee_batch.run.array.run_shard", run_shard)
    assert call(["run-shard", "r/plan.json", "--index", "7", "--device", "cpu"], monkeypatch) == 0
    assert got == [((Path("r/plan.json"), 7), "cpu")]
    assert capsys.readouterr().out == "done\n"
    assert call(["run-shard", "r/plan.json", "--index", "-1"], monkeypatch) == 2


@pytest.mark.parametrize("role", ["cpu", "gpu"])
def test_the_job_of_a_role_is_shown(
    role: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--role", role] if role == "cpu" else []
    assert call(["cluster", "show", *flags, *JOB, *MORE, "--cluster", "slurm"], monkeypatch) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "#!/bin/bash"
    for line in ("#SBATCH -p p", "#SBATCH -t 01:00:00", "#SBATCH --gres=gpu:1", "#SBATCH --x=1"):
        assert line in told
    assert f"#SBATCH -J apogee-{role}-" in "\n".join(told)
    assert "exec" in told[-1]
    assert "tls://driver:8786" in told[-1]
    assert f"--tls-key {cluster_show.RUN}/keys/" in told[-1]
    assert call(["cluster", "show", *flags, *JOB, *CLUSTER], monkeypatch) == 0
    assert "tls" not in capsys.readouterr().out


def test_what_a_site_says_in_vain_is_told_behind_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dask.config.paths", [str(tmp_path)])
    (tmp_path / "x.yaml").write_text("jobqueue:\n  here:\n    queue: q\n    log-directory: /logs\n")
    command = ["cluster", "show", "--cluster-config", "here", "--cluster", "slurm", *JOB[4:]]
    assert call(command, monkeypatch) == 0
    told = capsys.readouterr().out.splitlines()
    assert "#SBATCH -p q" in told
    assert told[-1].startswith("# jobqueue.here.log-directory is not used: ")


@pytest.mark.parametrize("name", ["ingest", "train", "run_catalog", "cluster_show", "cluster_test"])
def test_every_command_with_jobs_has_all_their_options(name: str) -> None:
    shown = inspect.signature(getattr(cli, name)).parameters
    assert set(JOB_OPTIONS) <= set(shown)
    assert "cluster_flags" not in shown


@pytest.mark.parametrize(
    "command", [["ingest"], ["train"], ["run-catalog"], ["cluster", "test"]], ids=" ".join
)
def test_the_help_fits_into_80_columns(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert call([*command, "--help"], monkeypatch) == 0
    told = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in told[: told.index("  Example:")])
    assert any("--job KEY=VALUE" in line for line in told)
