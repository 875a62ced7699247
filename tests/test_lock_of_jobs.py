"""A driver that is a Slurm job, and begun again on another node, takes over the lock that it left there."""

import errno
import fcntl
import json
import logging
import os
import socket
from pathlib import Path

import pytest

from apogee_batch.errors import LockedError
from apogee_batch.run.lock import hold_lock

HERE = socket.gethostname()
THERE = "node17"


@pytest.fixture(params=["flock", "flock across hosts", "no flock"])
def any_file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    if request.param == "no flock":
        monkeypatch.setattr(fcntl, "flock", refuse)
    return str(request.param)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_CLUSTER_NAME"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "run1"
    folder.mkdir()
    return folder


def be_job(patch: pytest.MonkeyPatch, number: str, restart: str | None = None, cluster: str = "c1") -> None:
    patch.setenv("SLURM_JOB_ID", number)
    patch.setenv("SLURM_CLUSTER_NAME", cluster)
    if restart is not None:
        patch.setenv("SLURM_RESTART_COUNT", restart)


def leave_lock(run: Path, *, host: str = THERE, job: str = "12 of c1", restart: object = 0) -> None:
    said = {"host": host, "pid": 7, "start": "2026-01-02T03:04:05Z", "program": "apogee-batch 0"}
    (run / "lock").write_text(json.dumps(said | {"job": job, "restart": restart}))


def test_a_driver_that_is_begun_again_elsewhere_takes_over_its_own_lock(
    run: Path,
    any_file_system: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: THERE)
        be_job(patch, "12")
        first = hold_lock(run / "lock", run)
        held = first.__enter__()
        if any_file_system == "flock":  # that of a node which the kernel here knows nothing of
            leave_lock(run)
            first.__exit__(None, None, None)
    be_job(monkeypatch, "12", "1")
    with caplog.at_level(logging.WARNING), hold_lock(run / "lock", run) as lock:
        assert lock.still_held()
        assert not held.still_held(), "on a node that was only cut off, it stops"
        said = json.loads((run / "lock").read_text())
        assert (said["host"], said["job"], said["restart"]) == (HERE, "12 of c1", 1)
    assert f"{THERE} in Slurm job 12 of c1" in caplog.text
    assert "took over" in caplog.text


@pytest.mark.parametrize(
    ("number", "restart", "cluster"),
    [
        ("13", "1", "c1"),  # another job
        ("12", "1", "c2"),  # of another cluster
        ("12", "0", "c1"),  # the same copy, as in another step of the job
        ("12", None, "c1"),
        ("12", "2", "c1"),  # an earlier copy than the owner
        ("12", "1e9", "c1"),
        ("", "5", "c1"),
    ],
)
def test_another_job_or_copy_is_refused(
    run: Path,
    any_file_system: str,
    monkeypatch: pytest.MonkeyPatch,
    number: str,
    restart: str | None,
    cluster: str,
) -> None:
    leave_lock(run, restart=2 if restart == "2" else 0)
    be_job(monkeypatch, number, restart, cluster)
    with pytest.raises(LockedError, match=f"{THERE} in Slurm job 12 of c1"), hold_lock(run / "lock", run):
        pytest.fail("two at once")


def test_a_live_former_copy_on_this_host_keeps_its_lock(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    be_job(monkeypatch, "12")
    with hold_lock(run / "lock", run):
        be_job(monkeypatch, "12", "1")
        with pytest.raises(LockedError, match=f"pid {os.getpid()}"), hold_lock(run / "lock", run):
            pytest.fail("two at once")


def test_outside_of_jobs_nothing_is_said_of_them(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_lock(run, job="", restart=-1)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    with pytest.raises(LockedError), hold_lock(run / "lock", run):
        pytest.fail("an empty job is nobody's")
    (run / "lock").unlink()
    with hold_lock(run / "lock", run):
        assert set(json.loads((run / "lock").read_text())) == {"host", "pid", "start", "program"}


@pytest.mark.parametrize("restart", ["many", None, [], 1e999])
def test_a_lock_with_a_damaged_count_has_no_owner(
    run: Path, monkeypatch: pytest.MonkeyPatch, restart: object
) -> None:
    leave_lock(run, restart=restart)
    with hold_lock(run / "lock", run) as lock:
        assert lock.still_held()
