"""The log of a worker tells how it ended, and one that tells nothing does not stay."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from apogee_batch.run.clusters.worker_logs import describe_end, find_log, host_of_log, remove_if_empty

ID = "Worker-c85ae408-1111-2222-3333-444455556666"
PROGRAM = """
import logging, os, sys
from pathlib import Path
from apogee_batch.run.clusters.worker_logs import WorkerLog

log = WorkerLog(Path(sys.argv[1]), sys.argv[2], takes_stderr=sys.argv[3] == "yes")
exec(sys.argv[4])
log.close()
"""


def run_worker(folder: Path, body: str, *, takes_stderr: bool = True) -> subprocess.CompletedProcess[str]:
    """Stand for a worker process: open its log, do something, end."""
    arguments = [str(folder), ID, "yes" if takes_stderr else "no", body]
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False
    )


def test_a_crash_in_native_code_is_told_with_its_traceback(tmp_path: Path) -> None:
    ended = run_worker(tmp_path / "logs", "os.abort()")
    assert ended.returncode == -6
    assert ended.stderr == ""
    log = find_log(tmp_path / "logs", ID)
    assert log is not None
    assert describe_end(log) == f"crash in native code (Aborted), traceback in {log}"
    assert 'File "<string>"' in log.read_text()


def test_a_log_has_host_and_process_in_its_name(tmp_path: Path) -> None:
    run_worker(tmp_path, "print(os.getpid()); os.abort()")
    (log,) = tmp_path.iterdir()
    assert log == find_log(tmp_path, ID)
    assert host_of_log(log) == socket.gethostname()
    assert find_log(tmp_path, "Worker-d85ae408-1111") is None


def test_a_host_with_dashes_is_read_from_the_name_of_its_log() -> None:
    assert host_of_log(Path("worker-gpu-node-07-1234-c85ae408.log")) == "gpu-node-07"


def test_a_worker_killed_from_outside_leaves_a_log_that_says_so(tmp_path: Path) -> None:
    run_worker(tmp_path, "os.kill(os.getpid(), 9)")
    (log,) = tmp_path.iterdir()
    assert log.stat().st_size == 0
    told = f"most likely killed for want of memory or with its job ({log} tells of no crash)"
    assert describe_end(log) == describe_end(log) == told
    assert log.read_text() == "this worker was lost, and had told of no crash\n"


@pytest.mark.parametrize(
    "warn",
    [
        "logging.getLogger('distributed').setLevel('CRITICAL'); "
        "logging.getLogger('distributed.worker.memory').warning('too much')",
        "logging.getLogger('astropy').warning('too much')",
        "os.write(2, b'terminate called: too much')",
    ],
)
def test_warnings_and_what_native_code_prints_are_kept(tmp_path: Path, warn: str) -> None:
    ended = run_worker(tmp_path, warn)
    assert (ended.returncode, ended.stderr) == (0, "")
    (log,) = tmp_path.iterdir()
    assert "too much" in log.read_text()
    assert "tells of no crash" in describe_end(log)


def test_the_stderr_of_a_borrowed_worker_stays_where_it_was(tmp_path: Path) -> None:
    assert run_worker(tmp_path, "os.write(2, b'mine')", takes_stderr=False).stderr == "mine"


def test_a_log_that_says_nothing_is_removed_at_the_end(tmp_path: Path) -> None:
    assert run_worker(tmp_path, "pass").returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_an_empty_log_may_be_removed_twice(tmp_path: Path) -> None:
    empty, full = tmp_path / "worker-a-1-b.log", tmp_path / "worker-a-2-c.log"
    empty.touch()
    full.write_text("x")
    for log in (empty, empty, full):
        remove_if_empty(log)
    assert list(tmp_path.iterdir()) == [full]
