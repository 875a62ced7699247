"""The job scripts for users: what they start, and when a driver begins again; commands are stand-ins."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

JOBS = Path(__file__).resolve().parents[1] / "jobs"
ODD = ["a b", "$(touch pwned)", "*", "'", '"', "--map=x;y", ""]
PROGRAM = """#!{python}
import os, pathlib, signal, sys, time
base = pathlib.Path({base!r})
(base / "arguments").write_text("\\0".join(sys.argv[1:]))
(base / "pid").write_text(str(os.getpid()))
if (base / "waits").exists():
    signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), sys.exit(75)))
    (base / "ready").touch()
    time.sleep(60)
if (base / "progresses").exists():
    ledger = base / "run 1" / "ledger"
    ledger.mkdir(parents=True, exist_ok=True)
    (ledger / str(time.time())).touch()
sys.exit(int((base / "code").read_text()))
"""
SCONTROL = """#!/bin/sh
case "$1" in
show) echo "JobId=7 JobName=x JobState=$(cat '{base}/state') Reason=None" ;;
*) echo "$*" >> '{base}/told'; exit "$(cat '{base}/refuses' 2>/dev/null || echo 0)" ;;
esac
"""


class Desk:
    """A folder with stand-ins for the program and for scontrol, and what they were told."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.run = base / "run 1"
        (base / "bin").mkdir()
        for name, text in (("apogee-batch", PROGRAM), ("scontrol", SCONTROL)):
            path = base / "bin" / name
            path.write_text(text.format(base=str(base), python=sys.executable))
            path.chmod(0o755)
        (base / "state").write_text("RUNNING")

    def start(self, script: str, *arguments: str) -> subprocess.Popen[str]:
        path = f"{self.base / 'bin'}:{os.environ['PATH']}"
        return subprocess.Popen(
            ["bash", str(JOBS / script), *arguments],
            env={"PATH": path, "SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"},
            cwd=self.base,
            stderr=subprocess.PIPE,
            text=True,
        )

    def drive(self, code: int) -> tuple[int, str]:
        """Let the driver end with a code; return that of the job, and what it said."""
        (self.base / "code").write_text(str(code))
        job = self.start("run.sbatch", "s.zarr", str(self.run))
        said = job.communicate(timeout=30)[1]
        return job.returncode, said

    def told(self) -> list[str]:
        path = self.base / "told"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_arguments_reach_the_driver_as_they_are(desk: Desk) -> None:
    (desk.base / "code").write_text("0")
    job = desk.start("run.sbatch", "s t.zarr", "run 1", *ODD)
    assert (job.communicate(timeout=30)[1], job.returncode) == ("", 0)
    given = (desk.base / "arguments").read_text().split("\0")
    assert given == ["run-catalog", "s t.zarr", "--out", "run 1", "--cluster", "slurm", *ODD]
    assert not (desk.base / "pwned").exists()


def test_arguments_reach_a_task_as_they_are(desk: Desk) -> None:
    (desk.base / "code").write_text("6")
    job = desk.start("array.sbatch", "run 1", *ODD)
    assert (job.communicate(timeout=30)[1], job.returncode) == ("", 6)
    given = (desk.base / "arguments").read_text().split("\0")
    assert given == ["run-shard", "run 1", "--index", "3", *ODD]


def test_without_store_and_run_the_usage_is_told(desk: Desk) -> None:
    job = desk.start("run.sbatch", "s.zarr")
    assert "usage: sbatch jobs/run.sbatch STORE RUN" in job.communicate(timeout=30)[1]
    assert job.returncode == 2


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 6, 130])
def test_a_run_that_has_ended_is_not_begun_again(desk: Desk, code: int) -> None:
    assert desk.drive(code)[0] == code
    assert desk.told() == []


def test_an_incomplete_run_is_begun_again_as_long_as_it_gets_on(desk: Desk) -> None:
    (desk.base / "progresses").touch()
    for _ in range(4):
        assert desk.drive(75) == (0, "")
    assert desk.told() == ["requeue 7"] * 4


def test_a_run_that_does_not_get_on_twice_in_a_row_is_given_up(desk: Desk) -> None:
    assert desk.drive(75) == (0, "")
    (desk.base / "progresses").touch()
    assert desk.drive(75) == (0, "")
    (desk.base / "progresses").unlink()
    assert desk.drive(75) == (0, "")
    code, said = desk.drive(75)
    assert (code, len(desk.told())) == (75, 3)
    assert "job 7: begun 2 times without a new shard or epoch, gives up" in said
    assert desk.drive(75) == (0, ""), "when a user submits it anew, it counts anew"


def test_an_epoch_is_progress(desk: Desk) -> None:
    metrics = desk.run / "model" / "metrics.jsonl"
    metrics.parent.mkdir(parents=True)
    (desk.base / "bin" / "apogee-batch").write_text(f"#!/bin/sh\necho x >> '{metrics}'\nexit 75\n")
    for _ in range(3):
        assert desk.drive(75) == (0, "")


@pytest.mark.parametrize("state", ["CANCELLED", "PREEMPTED", "COMPLETING", ""])
def test_a_job_that_is_ended_by_others_does_not_begin_itself_again(desk: Desk, state: str) -> None:
    (desk.base / "state").write_text(state)
    assert desk.drive(75)[0] == 75
    assert desk.told() == []


def test_a_site_that_refuses_to_requeue_leaves_the_code_of_an_incomplete_run(desk: Desk) -> None:
    (desk.base / "refuses").write_text("1")
    assert desk.drive(75)[0] == 75


def test_sigterm_is_forwarded_and_the_driver_waited_for(desk: Desk) -> None:
    (desk.base / "waits").touch()
    job = desk.start("run.sbatch", "s.zarr", str(desk.run))
    until = time.monotonic() + 20
    while not (desk.base / "ready").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    for _ in range(2):  # Slurm may say it twice
        job.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    job.communicate(timeout=20)
    assert job.returncode == 0
    assert desk.told() == ["requeue 7"]
    with pytest.raises(ProcessLookupError):
        os.kill(int((desk.base / "pid").read_text()), 0)
