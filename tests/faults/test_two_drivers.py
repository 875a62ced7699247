"""Two drivers in one folder, as real processes: one works, the other leaves with code 6 and says why."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from apogee_batch.run.config import RunConfig
from apogee_batch.run.lock import hold_lock

pytestmark = pytest.mark.fault

N_RACERS = 20
N_TURNS = 15

HOLDER = """
import sys
from pathlib import Path
from apogee_batch.errors import LockedError
from apogee_batch.run.lock import hold_lock
path = Path(sys.argv[1])
try:
    with hold_lock(path, path.parent):
        print("held", flush=True)
        sys.stdin.readline()
except LockedError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""

RACER = """
import os, sys, time
from pathlib import Path
from apogee_batch.errors import LockedError
from apogee_batch.run.lock import hold_lock
path, n_turns = Path(sys.argv[1]), int(sys.argv[2])
inside, count = path.parent.parent / "inside", path.parent.parent / "count"
print("ready", flush=True)
sys.stdin.readline()
turns = 0
while turns < n_turns:
    try:
        with hold_lock(path, path.parent) as lock:
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails if another is inside
            count.write_text(str(int(count.read_text()) + 1))  # loses turns if another is inside
            assert lock.still_held()
            inside.unlink()
            turns += 1
    except LockedError:
        time.sleep(0.001)
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a lock until the block ends."""
    process = start(HOLDER, path)
    try:
        assert read_line(process) == "held\n"
        yield process
    finally:
        process.communicate("\n", timeout=30)


def test_the_second_is_told_who_the_first_is_and_gets_the_lock_after_it(tmp_path: Path) -> None:
    path = tmp_path / "run" / "lock"
    with holder(path) as first:
        since = json.loads(path.read_text())["start"]
        second = start(HOLDER, path)
        told, _ = second.communicate(timeout=30)
        assert second.returncode == 6
        assert f"pid {first.pid} on {os.uname().nodename}, since {since}" in told
    assert first.returncode == 0
    with holder(path) as third:
        assert json.loads(path.read_text())["pid"] == third.pid


def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path: Path) -> None:
    path = tmp_path / "run" / "lock"
    first = start(HOLDER, path)
    assert read_line(first) == "held\n"
    first.kill()  # and nobody waits for it yet: it is a zombie, with its pid
    os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
    assert json.loads(path.read_text())["pid"] == first.pid
    started = time.monotonic()
    with hold_lock(path, path.parent) as lock:
        assert time.monotonic() - started < 1
        assert lock.still_held()
    assert not path.exists()
    first.communicate()


def test_a_stopped_process_keeps_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "run" / "lock"
    with holder(path) as first:
        first.send_signal(signal.SIGSTOP)
        try:
            second = start(HOLDER, path)
            second.communicate(timeout=30)
            assert second.returncode == 6
        finally:
            first.send_signal(signal.SIGCONT)


def test_of_many_that_race_for_a_lock_never_two_have_it(tmp_path: Path) -> None:
    path = tmp_path / "run" / "lock"  # each makes the folder, and removes it when it is the last
    (tmp_path / "count").write_text("0")
    racers = [start(RACER, path, N_TURNS) for _ in range(N_RACERS)]
    for racer in racers:
        assert read_line(racer) == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    told = [racer.communicate(timeout=50)[1] for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * N_RACERS, told
    assert (tmp_path / "count").read_text() == str(N_RACERS * N_TURNS)
    assert not path.exists()
    assert not list(tmp_path.rglob(".*"))


def test_killed_racers_leave_a_lock_that_the_next_one_gets(tmp_path: Path) -> None:
    path = tmp_path / "run" / "lock"
    for delay_ms in range(0, 40, 4):  # while it waits, holds, writes its name, leaves
        (tmp_path / "count").write_text("0")
        (tmp_path / "inside").unlink(missing_ok=True)
        racer = start(RACER, path, 10**9)
        assert read_line(racer) == "ready\n"
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
        time.sleep(delay_ms / 1000)
        racer.kill()
        racer.communicate()
        with hold_lock(path, path.parent) as lock:
            assert lock.still_held()
    assert not path.exists()


@pytest.fixture
def config_file(serial_config: RunConfig, tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(
        f"[training]\nrecipe = '{serial_config.training.recipe}'\nthreads = 1\n"
        "[inference]\nrealizations = 1000\n[cluster]\nkind = 'serial'\ndevice = 'cpu'\n"
    )
    return path


def test_of_two_catalogue_runs_in_one_folder_the_second_leaves_and_harms_nothing(
    labelled_store: Path, finished_run: Path, config_file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "apogee_batch", "run-catalog", str(labelled_store), "--out", str(run)]
    command += ["--model", str(finished_run / "model"), "--config", str(config_file)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for line in iter(lambda: read_line(first), ""):
            if line.startswith("infer:"):
                break
        before = (run / "plan.json").read_bytes()
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert first.poll() is None, "the first has ended too early to be in the way"
    finally:
        first.kill()
        first.communicate()
    assert second.returncode == 6, second.stderr
    assert second.stderr.count("\n") == 1
    for word in (str(run), f"pid {first.pid} ", os.uname().nodename, "wait"):
        assert word in second.stderr
    assert (run / "plan.json").read_bytes() == before
    assert json.loads((run / "lock").read_text())["pid"] == first.pid
