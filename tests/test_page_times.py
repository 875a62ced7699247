"""The table of stages on the page of a run: from the notes of the stages, else from ledger and metrics."""

import json
from pathlib import Path
from typing import Any

import pytest

from apogee_batch.report.page_figures_timing import Span
from apogee_batch.run.report_times import describe_stages, show_seconds, stage_folders

MIDNIGHT = 1_790_000_000.0 - 1_790_000_000.0 % 86_400
SPANS = [Span("node1", "cpu", 100.0 + 30 * i, 30.0, 50) for i in range(4)]
EPOCHS = [{"seconds": 60.0}, {"seconds": None}, {"seconds": 90.0}]


def note(folder: Path, stage: str, begin_s: float, end_s: float | None, **others: Any) -> None:
    """Note an attempt at a stage; without an end it was stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    said = {"stage": stage, "host": "node1", "pid": int(begin_s), "done": 0, "total": 200, "unit": "stars"}
    lines = [said | {"event": "begin", "time": MIDNIGHT + begin_s}]
    if end_s is not None:
        lines.append(said | {"event": "end", "time": MIDNIGHT + end_s, "done": 200} | others)
    with (folder / "stages.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def table(*folders: Path, spans: list[Span] = SPANS, epochs: Any = EPOCHS) -> dict[str, tuple[str, ...]]:
    return {row[0]: row[1:] for row in describe_stages(folders, spans, epochs)}


def test_without_notes_ledger_and_metrics_tell_what_they_can(tmp_path: Path) -> None:
    assert table(tmp_path) == {
        "Training": ("2 epochs", "2.5 min", "", ""),
        "Estimating the labels": ("200 stars, by the ledger", "2.0 min", "", ""),
    }
    assert table(tmp_path, spans=[], epochs=()) == {}


def test_stages_of_all_folders_are_in_their_order(tmp_path: Path) -> None:
    store, run, model = (tmp_path / name for name in ("s.zarr", "run", "model"))
    for i, stage in enumerate(("infer", "publish")):
        note(run, stage, 1000 * i, 1000 * i + 60)
    note(model, "calibrate", 10, 15, unit="epochs", done=3)
    note(model, "train", 0, 7300, unit="epochs", done=1)
    note(store / "ingest" / "0001", "ingest", 0, 30)
    note(store / "ingest" / "0002", "ingest", 50, 60)
    found = table(*stage_folders(run, model, store))
    assert list(found) == ["Ingest", "Training", "Calibration", "Estimating the labels", "Publishing"]
    assert found["Ingest"][:2] == ("400 stars", "40.0 s")
    assert found["Training"][:2] == ("1 epochs", "2.0 h")
    assert found["Publishing"][2].endswith("00:16")
    assert found["Publishing"][3] == "node1"


def test_an_attempt_that_was_stopped_is_told_and_has_no_time(tmp_path: Path) -> None:
    note(tmp_path, "infer", 0, None)
    assert table(tmp_path)["Estimating the labels"][0] == "200 stars, by the ledger"
    note(tmp_path, "infer", 100, 130, host="node1")
    done, seconds, began, hosts = table(tmp_path)["Estimating the labels"]
    assert done == "200 stars; 1 attempts were stopped, their times are not known"
    assert (seconds, began[-5:], hosts) == ("30.0 s", "00:00", "node1")


def test_a_run_that_was_gone_on_with_is_counted_once(tmp_path: Path) -> None:
    note(tmp_path, "infer", 0, 10, done=120)
    note(tmp_path, "infer", 20, 25)
    assert table(tmp_path)["Estimating the labels"][:2] == ("200 stars", "15.0 s")


def test_the_page_that_is_being_made_has_no_time_yet(tmp_path: Path) -> None:
    note(tmp_path, "report", 0, None)
    assert "Page" not in table(tmp_path)


TIMES = [(0.04, "0.0 s"), (119, "119.0 s"), (7199, "120.0 min"), (7200, "2.0 h")]


@pytest.mark.parametrize(("seconds", "text"), TIMES)
def test_times_are_said_as_a_person_would(seconds: float, text: str) -> None:
    assert show_seconds(seconds) == text


def test_inputs_of_an_ingest_that_was_mended_are_counted_once(tmp_path: Path) -> None:
    for number, n_done in (("0001", 60), ("0002", 40)):
        note(tmp_path / number, "ingest", 0, 30, done=n_done)
        note(tmp_path / number, "ingest", 50, 60, done=n_done)  # another call, which found most of them done
    assert table(tmp_path / "0001", tmp_path / "0002")["Ingest"][:2] == ("100 stars", "80.0 s")
