"""One driver at a time: who gets a lock, who is refused, and what is said to those who are."""

import errno
import fcntl
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from apogee_batch.errors import LockedError, UsageError
from apogee_batch.run import lock_owner
from apogee_batch.run.lock import hold_lock

HERE = socket.gethostname()
THERE = "node17"
BEFORE = "2026-01-02T03:04:05Z"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run1"
    folder.mkdir()
    return folder


@pytest.fixture
def ended_pid() -> int:
    """The pid of a process that is no more."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


@pytest.fixture
def live_pid() -> Iterator[int]:
    """The pid of another process of this host that lives."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield child.pid
    child.communicate(b"\n")


@pytest.fixture(params=["flock", "no flock"])
def any_file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "no flock":
        refuse_flock(monkeypatch, errno.ENOLCK)
    return str(request.param)


def refuse_flock(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)


def write_claim(path: Path, *, host: str = HERE, pid: int = 1, start: str = BEFORE) -> str:
    text = json.dumps({"host": host, "pid": pid, "start": start, "program": "apogee-batch 0"})
    path.write_text(text)
    return text


def now(minus_s: float = 0) -> str:
    return (datetime.now(UTC) - timedelta(seconds=minus_s)).isoformat(timespec="seconds")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_lock_names_its_owner_to_people_and_is_gone_afterwards(run: Path, any_file_system: str) -> None:
    with hold_lock(run / "lock", run) as lock:
        text = (run / "lock").read_text()
        assert lock.still_held()
    said = json.loads(text)
    assert (said["host"], said["pid"]) == (HERE, os.getpid())
    assert set(said) == {"host", "pid", "start", "program"}
    assert abs(datetime.fromisoformat(said["start"]) - datetime.now(UTC)) < timedelta(seconds=30)
    assert text.count("\n") == len(said) + 2
    assert names(run) == []


def test_a_lock_is_gone_also_after_an_error(run: Path) -> None:
    with pytest.raises(ZeroDivisionError), hold_lock(run / "lock", run):
        _ = 1 / 0
    assert names(run) == []


@pytest.mark.parametrize("break_lock", [False, True])
def test_a_live_owner_on_this_host_keeps_its_lock(run: Path, any_file_system: str, break_lock: bool) -> None:
    with hold_lock(run / "lock", run) as first:
        start = json.loads((run / "lock").read_text())["start"]
        with (
            pytest.raises(LockedError) as caught,
            hold_lock(run / "lock", run, break_lock=break_lock),
        ):
            pytest.fail("two at once")
        assert first.still_held()
    told = str(caught.value)
    assert caught.value.exit_code == 6
    for word in (str(run), f"pid {os.getpid()}", HERE, start, "wait", "kill"):
        assert word in told
    assert names(run) == []
    assert ("--break-lock cannot" in str(caught.value)) == break_lock


def test_the_lock_of_an_ended_process_of_this_host_is_taken_over_and_logged(
    run: Path, any_file_system: str, ended_pid: int, caplog: pytest.LogCaptureFixture
) -> None:
    write_claim(run / "lock", pid=ended_pid, start=now())
    with caplog.at_level(logging.WARNING, "apogee_batch"), hold_lock(run / "lock", run) as lock:
        assert lock.still_held()
        assert names(run) == ["lock"]
    assert f"pid {ended_pid}" in caplog.text
    assert "took over" in caplog.text
    assert names(run) == []


def test_with_flock_a_later_process_of_the_same_pid_does_not_keep_the_lock(run: Path, live_pid: int) -> None:
    write_claim(run / "lock", pid=live_pid, start=now())  # it has not locked the file
    with hold_lock(run / "lock", run) as lock:
        assert lock.still_held()


def test_without_flock_a_later_process_of_the_same_pid_does_not_keep_the_lock(
    run: Path, live_pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_flock(monkeypatch, errno.ENOSYS)
    write_claim(run / "lock", pid=live_pid, start=now())
    with pytest.raises(LockedError, match=f"pid {live_pid}"), hold_lock(run / "lock", run):
        pytest.fail("two at once")
    write_claim(run / "lock", pid=live_pid, start=now(minus_s=120))
    with hold_lock(run / "lock", run) as lock:
        assert lock.still_held()


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_flock_what_the_file_says_decides(
    run: Path, monkeypatch: pytest.MonkeyPatch, live_pid: int, code: int
) -> None:
    refuse_flock(monkeypatch, code)
    write_claim(run / "lock", pid=live_pid, start=now())
    with pytest.raises(LockedError, match=f"pid {live_pid}"), hold_lock(run / "lock", run):
        pytest.fail("two at once")


def test_without_flock_a_process_that_waits_for_its_parent_has_ended(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_flock(monkeypatch, errno.ENOSYS)
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read()  # its end; nobody has waited for the process yet
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    write_claim(run / "lock", pid=child.pid, start=now())
    with hold_lock(run / "lock", run) as lock:
        assert lock.still_held()
    child.communicate()


def test_without_proc_a_live_pid_is_believed(
    run: Path, monkeypatch: pytest.MonkeyPatch, live_pid: int
) -> None:
    refuse_flock(monkeypatch, errno.ENOSYS)

    def fail(*_: object, **__: object) -> str:
        raise FileNotFoundError(errno.ENOENT, "no /proc")

    write_claim(run / "lock", pid=live_pid, start=BEFORE)
    with monkeypatch.context() as patch:
        patch.setattr(lock_owner.Path, "read_text", fail)
        with pytest.raises(LockedError, match=f"pid {live_pid}"), hold_lock(run / "lock", run):
            pytest.fail("two at once")


def test_the_process_of_another_user_lives(run: Path, monkeypatch: pytest.MonkeyPatch, live_pid: int) -> None:
    def forbid(*_: object) -> None:
        raise PermissionError(errno.EPERM, "not yours")

    refuse_flock(monkeypatch, errno.ENOSYS)
    monkeypatch.setattr(os, "kill", forbid)
    write_claim(run / "lock", pid=live_pid, start=now())
    with pytest.raises(LockedError, match=f"pid {live_pid}"), hold_lock(run / "lock", run):
        pytest.fail("two at once")


def test_a_process_on_another_host_cannot_be_seen_and_keeps_its_lock(run: Path, any_file_system: str) -> None:
    text = write_claim(run / "lock", host=THERE, pid=77)
    with pytest.raises(LockedError) as caught, hold_lock(run / "lock", run):
        pytest.fail("two at once")
    for word in (str(run), THERE, "pid 77", BEFORE, "cannot be seen from", HERE, "wait", "--break-lock"):
        assert word in str(caught.value)
    assert (run / "lock").read_text() == text


def test_break_lock_takes_the_lock_of_another_host_and_logs_it(
    run: Path, any_file_system: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_claim(run / "lock", host=THERE, pid=77)
    with caplog.at_level(logging.WARNING), hold_lock(run / "lock", run, break_lock=True) as lock:
        assert lock.still_held()
        assert json.loads((run / "lock").read_text())["host"] == HERE
    assert THERE in caplog.text
    assert names(run) == []


def test_where_flock_reaches_other_hosts_their_live_lock_is_only_broken_on_request(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: THERE)
        first = hold_lock(run / "lock", run)
        held = first.__enter__()
    with pytest.raises(LockedError, match=f"{THERE}.*--break-lock only"), hold_lock(run / "lock", run):
        pytest.fail("two at once")
    assert held.still_held()
    with hold_lock(run / "lock", run, break_lock=True) as second:
        assert second.still_held()
        assert not held.still_held()
        first.__exit__(None, None, None)
        assert second.still_held(), "who has lost a lock does not take it with him"
        assert names(run) == ["lock"]


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "7", '{"host": "x"}', "\0" * 300, "[" * 5000, '{"host": "x", "pid": 1e999}']
    + [json.dumps({"host": THERE, "pid": pid, "start": BEFORE, "program": ""}) for pid in (0, -1, 2**40)]
    + [json.dumps({"host": THERE, "pid": 5, "start": start, "program": ""}) for start in ("", "2026-01-02")],
)
def test_a_damaged_lock_file_has_no_owner(run: Path, content: str) -> None:
    (run / "lock").write_text(content)
    with hold_lock(run / "lock", run) as lock:
        assert lock.still_held()
    assert names(run) == []


def test_without_flock_a_damaged_lock_file_is_taken_once_its_owner_had_time_to_sign(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_flock(monkeypatch, errno.ENOLCK)
    monkeypatch.setattr(lock_owner, "NAME_WAIT_S", 0.1)
    (run / "lock").touch()
    started = time.monotonic()
    with hold_lock(run / "lock", run) as lock:
        assert time.monotonic() - started >= 0.1
        assert lock.still_held()


def test_who_has_not_signed_yet_is_refused_for_without_a_name(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_owner, "NAME_WAIT_S", 0.05)
    with (run / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with (
            pytest.raises(LockedError, match="another process"),
            hold_lock(run / "lock", run, break_lock=True),
        ):
            pytest.fail("two at once")


def test_a_lock_whose_file_was_removed_or_replaced_is_not_held(run: Path, any_file_system: str) -> None:
    with hold_lock(run / "lock", run) as lock:
        (run / "lock").unlink()
        assert not lock.still_held()
        other = write_claim(run / "lock", host=THERE)
        assert not lock.still_held()
        (run / "lock").unlink()
        (run / "lock").symlink_to(run / "elsewhere")
        assert not lock.still_held()
        (run / "lock").unlink()
        write_claim(run / "lock", host=THERE)
    assert (run / "lock").read_text() == other


def test_a_file_that_was_unlinked_between_opening_and_locking_is_not_the_lock(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, calls = fcntl.flock, list[int]()

    def lock_late(descriptor: int, how: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            (run / "lock").unlink()  # the one before has just left
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    with hold_lock(run / "lock", run) as lock:
        assert lock.still_held()
    assert len(calls) == 2


def test_without_flock_the_new_lock_of_a_quicker_process_is_given_back(
    run: Path, monkeypatch: pytest.MonkeyPatch, ended_pid: int, live_pid: int
) -> None:
    refuse_flock(monkeypatch, errno.ENOLCK)
    write_claim(run / "lock", pid=ended_pid, start=now())
    rename, quick = Path.rename, list[str]()

    def rename_late(self: Path, target: Path) -> Path:
        if not quick:
            self.unlink()
            quick.append(write_claim(self, pid=live_pid, start=now()))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_late)
    with pytest.raises(LockedError, match=f"pid {live_pid}"), hold_lock(run / "lock", run):
        pytest.fail("two at once")
    assert (run / "lock").read_text() == quick[0]
    assert names(run) == ["lock"]


def test_a_lock_that_is_taken_and_left_all_the_time_is_given_up(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: (run / "lock").unlink())
    with pytest.raises(LockedError, match="try again"), hold_lock(run / "lock", run):
        pytest.fail("there is no file")


def test_a_missing_folder_is_made_and_stays_only_if_something_was_put_into_it(tmp_path: Path) -> None:
    with hold_lock(tmp_path / "a" / "run" / "lock", tmp_path):
        pass
    assert not (tmp_path / "a" / "run").exists()
    with hold_lock(tmp_path / "a" / "run" / "lock", tmp_path):
        (tmp_path / "a" / "run" / "plan.json").touch()
    assert names(tmp_path / "a" / "run") == ["plan.json"]
    (tmp_path / "of the user").mkdir()
    with hold_lock(tmp_path / "of the user" / "lock", tmp_path):
        pass
    assert (tmp_path / "of the user").is_dir()


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_folder_that_cannot_be_written_to_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(path: Path, *_: object) -> int:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UsageError) as caught, hold_lock(run / "lock", run):
        pytest.fail("there is no lock")
    for word in (f"{run}: ", os.strerror(code), "right to write", "another place"):
        assert word in str(caught.value)


def test_a_full_disk_is_told_with_the_name_of_the_lock_and_leaves_no_file(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        with pytest.raises(OSError, match="No space left") as caught, hold_lock(run / "lock", run):
            pytest.fail("nobody knows whose it is")
    assert caught.value.filename == str(run / "lock")
    assert names(run) == []


def test_an_unknown_error_of_flock_is_raised(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_flock(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output"), hold_lock(run / "lock", run):
        pytest.fail("there is no lock")


def make(path: Path, kind: str) -> None:
    target = path.with_name("target")
    makers: dict[str, Any] = {
        "link": lambda: (target.write_text("precious"), path.symlink_to(target)),
        "dangling link": lambda: path.symlink_to(target),
        "folder": path.mkdir,
        "FIFO": lambda: os.mkfifo(path),
    }
    makers[kind]()


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "FIFO"])
def test_what_is_not_a_regular_file_is_not_followed_nor_waited_for(run: Path, kind: str) -> None:
    make(run / "lock", kind)
    before = names(run)
    with (
        pytest.raises(UsageError, match=r"lock: is not a regular file.*remove"),
        hold_lock(run / "lock", run),
    ):
        pytest.fail("that is no lock")
    assert names(run) == before
    if kind == "link":
        assert (run / "target").read_text() == "precious"


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    for path in (tmp_path / "f" / "lock", tmp_path / "f" / "g" / "lock"):
        with pytest.raises(UsageError, match="is not a folder"), hold_lock(path, path.parent):
            pytest.fail("there is no lock")


def test_a_child_does_not_inherit_the_lock(run: Path) -> None:
    sleeper = "import sys; print('up', flush=True); sys.stdin.read()"
    with hold_lock(run / "lock", run):
        child = subprocess.Popen(
            [sys.executable, "-c", sleeper], stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False
        )
        assert child.stdout is not None
        child.stdout.readline()
        (run / "lock").rename(run / "kept")  # what the child would go on holding
    with (run / "kept").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    child.communicate()


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="a file system in which nothing can be made")
def test_a_folder_that_cannot_be_made_is_not_taken_for_one_in_use() -> None:
    folder = Path("/proc/no-run-can-be-here")
    with (
        pytest.raises(UsageError, match="cannot be made; name another place"),
        hold_lock(folder / ".lock", folder),
    ):
        pass
