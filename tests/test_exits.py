"""How a command ends: codes and lines for what the machine could not do, and for signals."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from apogee_batch import cli
from apogee_batch.errors import ApogeeBatchError, LockedError
from apogee_batch.exits import CLEANUP_S, REMEDIES, SignalWatch

GO_ON = "what was finished is kept"


def end_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the exit code of a command that raises an error."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("apogee_batch.run.status.describe_status", fail)
    monkeypatch.setattr(sys, "argv", ["apogee-batch", "status", "."])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


def run_script(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in which `end(body)` is a command that does `body`."""
    begin = """
        import os, signal, sys, threading, time
        from apogee_batch import cli, exits
        def end(body):
            cli.app = lambda *_, **__: body()
            cli.main()
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(begin) + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("code", sorted(REMEDIES), ids=errno.errorcode.get)
def test_what_a_machine_cannot_do_now_leaves_a_run_to_resume(
    code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end_with(OSError(code, os.strerror(code), "/d/part"), monkeypatch) == 75
    expected = f"{os.strerror(code)}; {GO_ON}: {REMEDIES[code]}, and the same command goes on\n"
    assert capsys.readouterr().err == f"error: /d/part: {expected}"
    assert end_with(OSError(code, os.strerror(code)), monkeypatch) == 75
    assert capsys.readouterr().err == f"error: {expected}"


def test_every_word_for_an_error_that_passes_is_there() -> None:
    names = "ENOSPC EDQUOT EFBIG EIO ESTALE EROFS ENOLCK EMFILE ENFILE ETIMEDOUT EREMOTEIO ENOMEM"
    assert {getattr(errno, name) for name in names.split() if hasattr(errno, name)} == set(REMEDIES)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), "error: out of memory; "),
        (MemoryError("Unable to allocate 8 GiB"), "error: out of memory (Unable to allocate 8 GiB); "),
        (OSError(errno.ENOSPC, "Error writing bytes to file"), "error: Error writing bytes to file; "),
    ],
    ids=str,
)
def test_errors_without_a_file_are_one_line_too(
    error: BaseException,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert end_with(error, monkeypatch) == 75
    told = capsys.readouterr().err
    assert told.startswith(expected + GO_ON)
    assert told.count("\n") == 1


def test_other_errors_of_a_file_name_it_and_those_of_none_keep_their_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    denied = OSError(errno.EACCES, "Permission denied", b"/d/\xff")
    assert end_with(denied, monkeypatch) == 1
    told = capsys.readouterr().err
    assert told == "error: /d/\\udcff: Permission denied; check its permissions and the space on the disk\n"
    with pytest.raises(TimeoutError):
        end_with(TimeoutError("a bug"), monkeypatch)
    with pytest.raises(ZeroDivisionError):
        end_with(ZeroDivisionError("a bug"), monkeypatch)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/d/\x1b[2J\x1b]0;x\x07y", r"/d/\x1b[2J\x1b]0;x\x07y"),
        ("two\nlines\r\n and\ttabs", "two lines and tabs"),
        ("right\u202eleft \x9b31m \0", r"right\u202eleft \x9b31m \x00"),
        ("café 星 \udcff", r"café 星 \udcff"),
    ],
)
def test_nothing_in_a_message_steers_the_terminal(
    text: str, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end_with(ApogeeBatchError(text), monkeypatch) == 1
    assert capsys.readouterr().err == f"error: {shown}\n"


def test_a_lock_of_another_has_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    assert end_with(LockedError("run1: in use"), monkeypatch) == 6


def test_a_command_leaves_the_handlers_of_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)]
    end_with(LockedError("run1: in use"), monkeypatch)
    assert before == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)]


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with SignalWatch():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_unwinds_every_block_and_repeats_do_not_disturb_that() -> None:
    done = run_script("""
        def work():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.1)
                print("cleaned up", flush=True)
                raise OSError("clean-up had its own trouble")
        end(work)
    """)
    assert done.returncode == 75
    assert done.stdout == "cleaned up\n"
    assert done.stderr == "error: terminated; the same command goes on where it stopped\n"


@pytest.mark.parametrize(
    ("name", "code", "word"), [("SIGTERM", 75, "terminated"), ("SIGINT", 130, "interrupted")]
)
@pytest.mark.parametrize("how", ["hangs", "is swallowed", "hangs in a thread"])
def test_clean_up_that_takes_too_long_is_left_alone(name: str, code: int, word: str, how: str) -> None:
    done = run_script(f"""
        exits.CLEANUP_S = 0.3
        def work():
            if {how!r} == "hangs in a thread":
                threading.Thread(target=time.sleep, args=(20,)).start()
            try:
                os.kill(os.getpid(), signal.{name})
                time.sleep(5)
            except exits.Stopped:
                if {how!r} == "hangs in a thread":
                    raise
            time.sleep(20)
        end(work)
    """)
    assert done.returncode == code
    assert done.stderr == f"error: {word}; the same command goes on where it stopped\n"


def test_a_second_ctrl_c_does_not_wait_for_the_clean_up() -> None:
    started = time.monotonic()
    done = run_script("""
        def work():
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
            finally:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(20)
        end(work)
    """)
    assert time.monotonic() - started < CLEANUP_S
    assert done.returncode == 130
    assert done.stderr == "error: interrupted; the same command goes on where it stopped\n"


def test_a_command_that_came_to_its_end_all_the_same_has_succeeded() -> None:
    done = run_script("""
        def work():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
            except exits.Stopped:
                return 0
        end(work)
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_closes_the_pipe_is_no_error(labelled_store: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    for arguments in (["--help"], ["status", str(labelled_store)]):
        done = subprocess.run(
            [sys.executable, "-m", "apogee_batch", *arguments],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (1, "")
    os.close(write)
