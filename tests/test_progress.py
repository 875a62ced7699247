"""What is shown: a bar on a terminal, plain lines elsewhere, whole and in order."""

import io
import json
import logging
import os
from pathlib import Path

import pytest
from rich.console import Console

from apogee_batch.errors import UsageError
from apogee_batch.run.live_view import LiveView
from apogee_batch.run.logs import log_to_folder
from apogee_batch.run.progress import SAID, PlainView, QuietView, SilentView, progress_view, say_and_log


def console(*, is_terminal: bool) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=is_terminal, width=120), out


def test_a_pipe_gets_plain_lines() -> None:
    target, out = console(is_terminal=False)
    with progress_view(target) as view:
        assert isinstance(view, PlainView)
        view.start("infer", 10, "stars", done=4)
        view.advance(6)
        view.finish()
        view.say("[not markup] 1,200")
    lines = out.getvalue().splitlines()
    assert lines[0] == "infer: 6 stars to do, 4 done before"
    assert lines[1].startswith("infer: 10/10 stars, ")
    assert lines[1].endswith(" - done")
    assert lines[2] == "[not markup] 1,200"
    assert "\x1b" not in out.getvalue()


def test_plain_lines_come_now_and_then_and_carry_the_note() -> None:
    target, out = console(is_terminal=False)
    view = PlainView(target, interval_s=0.0)
    view.start("train", None, "epochs")
    view.advance(1, "dev loss 0.5")
    view.advance(1)
    view.finish()
    lines = out.getvalue().splitlines()
    assert lines[0] == "train: begins"
    assert lines[1].startswith("train: 1 epochs, ")
    assert all(line.endswith("dev loss 0.5") or "done" in line for line in lines[1:])
    quiet, silence = console(is_terminal=False)
    slow = PlainView(quiet, interval_s=1000.0)
    slow.start("train", 5, "epochs")
    slow.advance(1)
    assert silence.getvalue().count("\n") == 1


def test_a_terminal_gets_a_live_view() -> None:
    target, out = console(is_terminal=True)
    with progress_view(target) as view:
        assert isinstance(view, LiveView)
        view.advance(1)
        view.start("infer", 10, "stars")
        view.advance(3, "worker 2")
        view.say("a line")
        view.finish()
        view.start("train", None, "epochs")
    assert "infer" in out.getvalue()
    assert "a line" in out.getvalue()
    assert "3/10" in out.getvalue()


def test_a_log_is_json_lines_with_the_error_that_ended_it(tmp_path: Path) -> None:
    def work() -> None:
        with log_to_folder(tmp_path / "logs") as logger:
            logger.info("reading %s", "ä.fits")
            raise UsageError("no such thing")

    with pytest.raises(UsageError):
        work()
    lines = [json.loads(line) for line in (tmp_path / "logs" / "driver.jsonl").read_text().splitlines()]
    assert [line["message"] for line in lines] == ["begin", "reading ä.fits", "stopped: no such thing"]
    assert "Traceback" in lines[-1]["traceback"]
    assert lines[0]["time"].endswith("Z")
    handlers = logging.getLogger("apogee_batch").handlers
    assert all(isinstance(handler, logging.NullHandler) for handler in handlers)


def test_warnings_of_the_package_are_said_once(tmp_path: Path) -> None:
    stream = io.StringIO()
    logger = logging.getLogger("apogee_batch.run.lock")
    with progress_view(Console(file=stream)):
        logger.warning("took over the lock of %s", "pid 7")
        logger.warning("shard 3 is tried again", extra=SAID)
        logger.info("between us")
    logger.warning("after the end")
    assert stream.getvalue() == "WARNING: took over the lock of pid 7\n"


def test_a_full_disk_does_not_speak_through_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "driver.jsonl").symlink_to("/dev/full")
    with log_to_folder(tmp_path) as logger:
        logger.info("x" * 100_000)
    told = capsys.readouterr()
    assert told.err == told.out == ""


def test_an_error_without_words_is_told_by_its_kind(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), log_to_folder(tmp_path):
        raise KeyboardInterrupt
    assert "stopped: KeyboardInterrupt" in (tmp_path / "driver.jsonl").read_text()


def test_a_warning_of_the_queue_is_in_the_log_too(tmp_path: Path) -> None:
    with log_to_folder(tmp_path):
        say_and_log(SilentView(), "WARNING: job 12: CANCELLED on n2")
        say_and_log(SilentView(), "queue: job 13 will start soon")
    lines = [json.loads(line) for line in (tmp_path / "driver.jsonl").read_text().splitlines()]
    said = [line["message"] for line in lines if line["level"] == "WARNING"]
    assert said == ["job 12: CANCELLED on n2"]


@pytest.mark.parametrize("is_terminal", [False, True])
@pytest.mark.parametrize(("encoding", "told"), [("utf-8", "caf\\udce9 é"), ("ascii", r"caf\udce9 \xe9")])
def test_names_that_are_no_text_are_said_escaped(encoding: str, told: str, *, is_terminal: bool) -> None:
    written = io.BytesIO()
    out = io.TextIOWrapper(written, encoding=encoding)
    view_console = Console(file=out, force_terminal=is_terminal, width=120, _environ={"TERM": "xterm"})
    with progress_view(view_console) as view:
        assert isinstance(view, LiveView if is_terminal else PlainView)
        view.say(os.fsdecode(b"left out: caf\xe9 \xc3\xa9"))
    out.flush()
    assert f"left out: {told}\n" in written.getvalue().decode(encoding)


def test_quiet_warnings_of_such_names_are_said_too(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stderr", io.TextIOWrapper(written, encoding="utf-8", errors="strict"))
    QuietView().say(os.fsdecode(b"WARNING: caf\xe9"))
    assert written.getvalue() == b"WARNING: caf\\udce9\n"


def test_bytes_of_a_name_are_left_as_they_are_where_the_stream_takes_them() -> None:
    written = io.BytesIO()
    out = io.TextIOWrapper(written, encoding="utf-8", errors="surrogateescape")
    PlainView(Console(file=out)).say(os.fsdecode(b"caf\xe9"))
    out.flush()
    assert written.getvalue() == b"caf\xe9\n"
