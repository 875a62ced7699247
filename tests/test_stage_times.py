"""Stages leave their times in the folder of the run; nothing depends on that."""

import json
import os
import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest

from apogee_batch.run import commands
from apogee_batch.run.config import RunConfig
from apogee_batch.run.progress import Facts, SilentView
from apogee_batch.run.stage_times import STAGES_FILE, read_stage_times, stage, time_stages, untimed


class Heard(SilentView):
    """Keeps what is passed on."""

    def __init__(self) -> None:
        self.facts: list[Facts] = []
        self.done = 0

    def advance(self, n: int, note: str = "") -> None:
        self.done += n

    def show(self, facts: Facts) -> None:
        self.facts.append(facts)


def test_begin_and_end_of_a_stage_are_read_again(tmp_path: Path) -> None:
    heard = Heard()
    view = time_stages(heard, tmp_path)
    view.start("infer", 10, "stars", done=4)
    view.advance(6)
    view.finish()
    with stage(view, "publish", 10, "stars"):
        pass
    infer, publish = read_stage_times(tmp_path)
    assert (infer.stage, infer.done, infer.total, infer.unit) == ("infer", 10, 10, "stars")
    assert infer.end_s is not None
    assert infer.begin_s <= infer.end_s <= publish.begin_s
    assert publish.host == infer.host != ""
    assert heard.done == 16
    time_stages(view, tmp_path).show(Facts(rejects=2))  # type: ignore[attr-defined]
    assert heard.facts == [Facts(rejects=2)]
    assert time_stages(view, tmp_path) is view
    assert untimed(view) is heard


def test_a_stage_that_is_stopped_has_no_end(tmp_path: Path) -> None:
    def work() -> None:
        with stage(time_stages(SilentView(), tmp_path), "publish", 10, "stars"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    (publish,) = read_stage_times(tmp_path)
    assert publish.end_s is None
    assert publish.done == 0


def test_a_stage_with_nothing_to_do_takes_no_time(tmp_path: Path) -> None:
    view = time_stages(SilentView(), tmp_path)
    view.start("infer", 10, "stars", done=10)
    view.finish()
    assert read_stage_times(tmp_path) == []


def test_rounds_of_adaptation_are_attempts_at_the_training(tmp_path: Path) -> None:
    view = time_stages(SilentView(), tmp_path)
    for name in ("train", "adapt 1"):
        view.start(name, None, "epochs")
        view.advance(2)
        view.finish()
    assert [(time.stage, time.done) for time in read_stage_times(tmp_path)] == [("train", 2), ("train", 2)]


def test_torn_and_foreign_lines_are_left_out(tmp_path: Path) -> None:
    view = time_stages(SilentView(), tmp_path)
    view.start("infer", 10, "stars")
    file = tmp_path / STAGES_FILE
    whole = file.read_bytes()
    other = json.loads(whole) | {"pid": 1, "event": "end"}
    file.write_bytes(b"\xff\n[1]\n" + whole + json.dumps(other).encode() + b'\n{"stage": "in')
    view.finish()  # on a line of its own
    assert file.read_bytes().endswith(b"}\n")
    (infer,) = read_stage_times(tmp_path)
    assert infer.end_s is not None
    for n_bytes in range(len(whole)):
        file.write_bytes(whole[:n_bytes])
        assert len(read_stage_times(tmp_path)) == (n_bytes == len(whole) - 1)  # all but the end of the line


@pytest.mark.parametrize("text", ["1e30", "1e12", "-1e9", "NaN", "Infinity"])
@pytest.mark.parametrize("event", ["begin", "end"])
def test_impossible_times_are_left_out(tmp_path: Path, event: str, text: str) -> None:
    view = time_stages(SilentView(), tmp_path)
    for name in ("infer", "publish"):
        with stage(view, name, 10, "stars"):
            pass
    file = tmp_path / STAGES_FILE
    lines = file.read_text().splitlines(keepends=True)
    i = ("begin", "end").index(event)
    lines[i] = re.sub(r'"time": [0-9.]+', f'"time": {text}', lines[i])
    assert text in lines[i]
    file.write_text("".join(lines))
    times = read_stage_times(tmp_path)
    told = [(time.stage, time.end_s is not None) for time in times]
    assert told == [*([("infer", False)] if event == "end" else []), ("publish", True)]
    json.dumps([asdict(time) for time in times], allow_nan=False)
    assert all(datetime.fromtimestamp(time.begin_s, UTC).year < 2100 for time in times)


@pytest.mark.parametrize("kind", ["full", "folder", "fifo", "link"])
def test_a_file_that_cannot_be_written_stops_nothing(tmp_path: Path, kind: str) -> None:
    file = tmp_path / STAGES_FILE
    if kind == "folder":
        file.mkdir()
    elif kind == "fifo":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/full" if kind == "full" else tmp_path / "elsewhere")
    with stage(time_stages(SilentView(), tmp_path), "infer", 10, "stars"):
        pass
    assert read_stage_times(tmp_path) == []
    assert not (tmp_path / "elsewhere").exists()


def test_a_missing_folder_has_no_times(tmp_path: Path) -> None:
    assert read_stage_times(tmp_path / "nowhere") == []
    with stage(time_stages(SilentView(), tmp_path / "nowhere"), "infer", 10, "stars"):
        pass


def test_a_run_tells_the_times_of_its_stages_once(
    labelled_store: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    for _ in range(2):
        commands.make_catalog(
            labelled_store, run, model=None, config=serial_config, is_dry_run=False, progress=SilentView()
        )
    times = read_stage_times(run)
    assert [time.stage for time in times] == ["train", "train", "calibrate", "infer", "publish"]
    assert all(time.end_s is not None for time in times)
    assert [(time.done, time.total) for time in times[3:]] == [(48, 48), (48, 48)]
