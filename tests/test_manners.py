"""How commands speak: with --quiet little, with --log-json for programs, and each command the same."""

import io
import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from rich.console import Console

from apogee_batch import cli
from apogee_batch.cli_options import CHOICES
from apogee_batch.inference.engines import EngineChoice, Precision
from apogee_batch.output import (
    Manner,
    ResultLine,
    choose_manner,
    make_all_events,
    make_events_of,
    manner,
    speaking,
    write_results,
)
from apogee_batch.run.config import ClusterKind, Device, InferenceSettings, IngestSettings
from apogee_batch.run.export import FORMATS, HATS
from apogee_batch.run.json_view import JsonView
from apogee_batch.run.progress import Facts, QuietView, progress_view


@pytest.fixture(autouse=True)
def ordinary_manner(monkeypatch: pytest.MonkeyPatch) -> Any:
    for owner, name in ((warnings, "showwarning"), (logging, "lastResort")):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # as they were, after a test
    yield
    choose_manner([])


def call(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["apogee-batch", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


def events(text: str) -> list[dict[str, Any]]:
    """Parse every line."""
    found = [json.loads(line) for line in text.splitlines()]
    assert all({"time", "event"} <= set(event) for event in found)
    return found


def test_every_command_has_both_options() -> None:
    groups = [cli.app, *(group.typer_instance for group in cli.app.registered_groups)]
    commands = [info for group in groups for info in group.registered_commands]
    assert len(commands) > 20
    for info in commands:
        click = typer.main.get_command_from_info(info, pretty_exceptions_short=False, rich_markup_mode=None)
        names = {name for parameter in click.params for name in parameter.opts}
        assert {"--quiet", "--log-json"} <= names, info.callback


@pytest.fixture
def words(labelled_store: Path, tiny_recipe: str, tmp_path: Path) -> list[str]:
    """A command that makes a catalogue in a second."""
    settings = tmp_path / "run.toml"
    settings.write_text(
        f"[training]\nrecipe = '{tiny_recipe}'\nthreads = 1\n[inference]\nrealizations = 2\n"
        "[cluster]\nkind = 'serial'\ndevice = 'cpu'\n"
    )
    out = str(tmp_path / "run")
    return ["run-catalog", str(labelled_store), "--out", out, "--config", str(settings), "--no-report"]


def test_with_log_json_every_line_of_a_run_is_an_object(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call([*words, "--log-json"], monkeypatch) == 0
    told = capsys.readouterr()
    found = events(told.out)
    assert told.err == ""
    begun = [event["stage"] for event in found if event["event"] == "begin"]
    assert [begun[0], *begun[-3:]] == ["train", "calibrate", "infer", "publish"]
    ended = {event["stage"]: event for event in found if event["event"] == "end"}
    assert {ended["infer"][key] for key in ("done", "total")} == {48}
    assert (ended["infer"]["unit"], ended["infer"]["rejects"]) == ("stars", 0)
    results = {event["name"]: event for event in found if event["event"] == "result" and "name" in event}
    assert Path(results["catalogue"]["path"]).is_file()
    assert (results["catalogue"]["stars"], results["rejects"]["rejects"]) == (48, 0)


def test_with_quiet_a_run_says_where_its_results_are(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call([*words, "--quiet"], monkeypatch) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in told] == ["catalogue", "rejects", "flags", "report"]
    assert call([*words, "--quiet", "--log-json"], monkeypatch) == 0
    assert {event["event"] for event in events(capsys.readouterr().out)} == {"result", "warning"}


@pytest.mark.parametrize(
    ("arguments", "code"), [(["status", "nowhere"], 2), (["status", "--colour"], 2), (["inject"], 2)]
)
def test_an_error_is_an_object_with_the_exit_code(
    arguments: list[str], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call([*arguments, "--log-json"], monkeypatch) == code
    told = capsys.readouterr()
    (event,) = events(told.err)
    assert (event["event"], event["exit_code"]) == ("error", code)
    assert arguments[-1] in event["text"]
    assert call(arguments, monkeypatch) == code
    assert capsys.readouterr().err.startswith("error: "), "the next command speaks for people again"


def test_progress_is_told_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 0.0, 5.0, 10.0, 20.0, 21.0])
    view = JsonView(interval_s=10.0, clock=lambda: next(times))
    view.start("infer", 100, "stars", done=40)
    view.show(Facts(rejects=2, workers=3, wanted=4))
    view.advance(10)
    view.advance(10, "a note")
    view.advance(40)
    view.finish()
    begin, progress, end = events(capsys.readouterr().out)
    assert begin == {"time": begin["time"], "event": "begin", "stage": "infer", "done": 40, "total": 100} | {
        "unit": "stars"
    }
    assert (progress["done"], progress["rate_per_s"], progress["left_s"]) == (60, 2.0, 20.0)
    assert [progress[key] for key in ("rejects", "workers", "workers_wanted", "note")] == [2, 3, 4, "a note"]
    assert (end["event"], end["done"], end["seconds"]) == ("end", 100, 21.0)


def test_warnings_are_told_in_every_manner(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    logger = logging.getLogger("apogee_batch.run.lock")
    for wanted in (Manner(is_json=True), Manner(is_quiet=True, is_json=True)):
        with speaking(wanted), progress_view(Console()) as view:
            assert isinstance(view, JsonView)
            logger.warning("took over a lock")
            view.say("WARNING: a shard is done again")
        told = [(event["event"], event["text"]) for event in events(capsys.readouterr().out)]
        assert told == [("warning", "took over a lock"), ("warning", "a shard is done again")]
    with speaking(Manner(is_quiet=True)), progress_view(Console()) as view:
        assert isinstance(view, QuietView)
        logger.warning("took over a lock")
        view.say("workers: 2")
        view.start("infer", 1, "stars")
    assert capsys.readouterr() == ("", "WARNING: took over a lock\n")


def test_results_without_values_are_all_told(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["a", "", ResultLine("b", name="b", path="p")]
    write_results(lines)
    assert capsys.readouterr().out == "a\n\nb\n"
    with speaking(Manner(is_quiet=True)):
        write_results(lines)
        write_results(["a"])
    assert capsys.readouterr().out == "b\na\n"
    with speaking(Manner(is_json=True)):
        write_results(lines)
    first, second = events(capsys.readouterr().out)
    assert (first["text"], second["text"], second["path"]) == ("a", "b", "p")


def test_words_behind_two_dashes_are_no_options() -> None:
    choose_manner(["ingest", "--", "--quiet"])
    assert manner() == Manner()
    choose_manner(["ingest", "--quiet", "--", "--log-json"])
    assert manner() == Manner(is_quiet=True)


def test_a_shell_offers_what_the_settings_take() -> None:
    assert sorted(CHOICES["cluster"]) == sorted(get_args(ClusterKind))
    for name, known in (("device", Device), ("engine", EngineChoice), ("precision", Precision)):
        assert sorted(CHOICES[name]) == sorted(get_args(known))
    assert sorted(CHOICES["format"]) == sorted((*FORMATS, HATS))
    fields = {"err_cap": InferenceSettings, "row": IngestSettings}
    for name, section in fields.items():
        assert sorted(CHOICES[name]) == sorted(get_args(section.model_fields[name].annotation))


def test_what_other_packages_warn_of_are_events_too(capsys: pytest.CaptureFixture[str]) -> None:
    choose_manner(["--log-json"])
    make_all_events()
    warnings.showwarning("too old", DeprecationWarning, "file.py", 1)
    record = logging.LogRecord("some.other.package", logging.WARNING, "", 1, "disk is %s", ("slow",), None)
    assert logging.lastResort is not None
    logging.lastResort.handle(record)  # what is done where no handler is; here those of pytest are
    told = capsys.readouterr()
    assert [event["text"] for event in events(told.out)] == ["DeprecationWarning: too old", "disk is slow"]


@pytest.mark.parametrize("how", [Manner(), Manner(is_json=True), Manner(is_quiet=True)])
def test_a_command_whose_output_is_closed_ends_as_otherwise(
    how: Manner, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)  # as after >&- and 2>&-
    with speaking(how), progress_view(Console(file=io.StringIO())) as view:
        view.say("WARNING: a disk is slow")
        write_results(["a line", ResultLine("a catalogue", path="run1")])


@pytest.mark.parametrize("is_json", [True, False])
def test_the_lines_of_a_package_with_a_handler_of_its_own_are_events(
    is_json: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger, own = logging.getLogger("a.package"), logging.StreamHandler()
    monkeypatch.setattr(logger, "handlers", [own])
    with speaking(Manner(is_json=is_json)):
        make_events_of("a.package")
        logger.warning("a worker is slow")
    told = capsys.readouterr()
    assert [event["text"] for event in events(told.out)] == (["a worker is slow"] if is_json else [])
    assert (logger.handlers == [own]) != is_json


def test_a_bug_is_an_event_for_programs_and_a_traceback_for_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Path) -> list[str]:
        raise KeyError("x")

    monkeypatch.setattr("apogee_batch.run.status.describe_status", fail)
    assert call(["status", str(tmp_path), "--log-json"], monkeypatch) == 1
    (bug,) = events(capsys.readouterr().err)
    assert (bug["event"], bug["exit_code"]) == ("error", 1)
    assert "KeyError" in bug["traceback"]
    monkeypatch.setattr(sys, "argv", ["apogee-batch", "status", str(tmp_path)])
    with pytest.raises(KeyError):
        cli.main()


def test_what_stdout_cannot_encode_is_written_in_other_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", narrow)
    write_results(["a wavelength in \u00c5", "a name \udcff"])
    assert narrow.buffer.getvalue() == b"a wavelength in \\xc5\na name \\udcff\n"  # type: ignore[attr-defined]


def test_dask_can_silence_the_handler(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed.utils import silence_logging_cmgr

    logger = logging.getLogger("a.package")
    monkeypatch.setattr(logger, "handlers", [logging.StreamHandler()])
    with speaking(Manner(is_json=True)):
        make_events_of("a.package")
        with silence_logging_cmgr("CRITICAL", "a.package"):
            logger.warning("a task is lost, which is told elsewhere")
    assert capsys.readouterr().out == ""
    logger.warning("for people again")
    assert capsys.readouterr() == ("", "for people again\n")
