"""Whoever looks on from another terminal sees how far a run is, and when and how it ends."""

import io
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from apogee_batch.errors import IncompleteRunError, IntegrityError, UsageError
from apogee_batch.files import read_sealed_json, write_sealed_json
from apogee_batch.run import commits
from apogee_batch.run.commits import Commit, CommitReader
from apogee_batch.run.lock_owner import Owner, this_process, write_owner
from apogee_batch.run.onlooker import Onlooker
from apogee_batch.run.run_state import measure, read_log_end, seen_workers
from apogee_batch.run.stage_times import StageTime
from apogee_batch.run.status import describe_status, status_to_json
from apogee_batch.run.watch import driver_line, state_line, watch


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A run of three shards, two of them done, which this process drives."""
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    (run / "manifest.json").rename(tmp_path / "manifest.json")
    (run / "ledger" / "00001.json").rename(tmp_path / "00001.json")
    (run / "stages.jsonl").unlink(missing_ok=True)
    hold(run, this_process())
    return run


def hold(run: Path, owner: Owner) -> None:
    descriptor = os.open(run / "lock", os.O_RDWR | os.O_CREAT)
    write_owner(descriptor, owner)
    os.close(descriptor)


def log(run: Path, *messages: str, level: str = "INFO") -> None:
    lines = [json.dumps({"level": level, "message": message}) + "\n" for message in messages]
    with (run / "logs" / "driver.jsonl").open("a") as file:
        file.writelines(lines)
    os.utime(run / "logs" / "driver.jsonl", (2e9, 2e9))  # after all commits


def end(run: Path) -> Callable[[float], None]:
    """Return a sleep in which the run comes to its end."""

    def sleep(_: float) -> None:
        (run.parent / "00001.json").rename(run / "ledger" / "00001.json")
        (run.parent / "manifest.json").rename(run / "manifest.json")
        (run / "lock").unlink()

    return sleep


def test_lines_come_until_the_run_is_published(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert watch(run, sleep=end(run)) == ["run: finished, 48/48 stars, 3/3 shards, 0 rejected"]
    (line,) = capsys.readouterr().out.splitlines()
    assert re.match(r"\d\d:\d\d:\d\d infer: running, 32/48 stars, 2/3 shards, 0 rejected", line)


def test_each_look_is_a_json_object(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log(run, "shard 1 is tried again", level="WARNING")
    assert watch(run, is_json=True, sleep=end(run)) == []
    first, last = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (first["state"], first["stage"], first["done"], first["total"]) == ("running", "infer", 32, 48)
    assert first["driver"]["pid"] == os.getpid()
    assert first["warnings"][-1] == "shard 1 is tried again"
    assert (last["state"], last["shards_done"], last["driver"]) == ("finished", 3, None)
    assert status_to_json(run) == last | {"workers": status_to_json(run)["workers"]}


@pytest.mark.parametrize("width", [60, 80])
def test_a_terminal_shows_stages_driver_and_warnings(run: Path, width: int) -> None:
    log(run, "shard 1 is tried again", level="WARNING")
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=24, color_system=None)
    watch(run, console=console, sleep=end(run))
    assert isinstance(console.file, io.StringIO)
    told = console.file.getvalue()
    assert "✓ train" in told
    assert "● infer" in told
    assert "32/48 stars" in told
    assert re.search(r"0 rejected · [0-9.e-]+ stars/s", told)
    assert f"pid {os.getpid()} on " in " ".join(told.split())
    assert "WARNING: shard 1 is tried again" in told
    assert told.count("\x1b[?25l") == told.count("\x1b[?25h") == 1
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", told)
    assert all(len(line) <= width for line in re.split(r"[\r\n]+", plain))


def test_a_run_that_has_failed_tells_why(run: Path) -> None:
    (run / "lock").unlink()
    log(run, "begin", "stopped: 5 of 48 stars cannot be used")
    with pytest.raises(IncompleteRunError, match="stopped in infer: 5 of 48 stars cannot be used"):
        watch(run, sleep=end(run))


def test_a_stage_that_was_stopped_shows_how_long_it_worked(run: Path) -> None:
    (run / "lock").unlink()
    log(run, "begin", "stopped: interrupted")  # at 2e9 s
    said = {"stage": "infer", "event": "begin", "time": 2e9 - 66, "host": "n1", "pid": 7}
    (run / "stages.jsonl").write_text(json.dumps(said | {"done": 0, "total": 48, "unit": "stars"}) + "\n")
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24, color_system=None)
    with pytest.raises(IncompleteRunError):
        watch(run, console=console, sleep=end(run))
    assert isinstance(console.file, io.StringIO)
    assert re.search("✗ infer +32/48 stars  1:06", console.file.getvalue())


def test_one_worker_is_one_worker(run: Path) -> None:
    seen = replace(Onlooker(run).look(), workers=["n1 7"])
    assert state_line(seen).endswith("1 worker seen")
    assert "2 workers seen" in state_line(replace(seen, workers=["n1 7", "n2 8"]))
    assert "seen" not in state_line(replace(seen, stage="publish"))  # they have nothing to do with that


def test_a_damaged_manifest_is_told_as_status_tells_it(
    run: Path, finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (finished_run / "manifest.json").read_bytes()
    (run / "manifest.json").write_bytes(whole[:-9])
    assert Onlooker(run).look().state == "running"  # its driver may be about to write it anew
    (run / "lock").unlink()
    with pytest.raises(IntegrityError) as told:
        describe_status(run)
    for is_logged in (True, False):
        if not is_logged:  # as a job array leaves it
            (run / "logs" / "driver.jsonl").unlink()
        with pytest.raises(IntegrityError, match=r"manifest.json: is damaged") as watched:
            watch(run, sleep=lambda _: None)
        assert str(watched.value) == str(told.value)
    assert "finished" not in capsys.readouterr().out


def test_a_run_whose_driver_was_killed_is_over(run: Path) -> None:
    hold(run, replace(this_process(), pid=2**22 + 1))
    with pytest.raises(IncompleteRunError, match="was killed"):
        watch(run, sleep=end(run))


def test_a_driver_on_another_host_is_believed(run: Path) -> None:
    hold(run, replace(this_process(), host="node7"))
    seen = Onlooker(run).look()
    assert seen.state == "running"
    assert "on node7" in driver_line(seen)
    assert driver_line(seen).endswith("it cannot be seen from this host")


def test_the_tasks_of_a_job_array_are_waited_for(run: Path) -> None:
    (run / "lock").unlink()
    (run / "logs" / "driver.jsonl").unlink()
    seen = Onlooker(run).look()
    assert (seen.state, seen.stage) == ("waiting", "infer")
    assert "job array" in driver_line(seen)
    (run / "lock").touch()
    assert watch(run, sleep=end(run))


def test_stages_before_and_after_inference_are_named(run: Path, finished_run: Path) -> None:
    shutil.copy(run.parent / "00001.json", run / "ledger")
    assert Onlooker(run).look().stage == "publish"
    for entry in (run / "ledger").iterdir():
        entry.unlink()
    assert Onlooker(run).look().stage == "calibrate"
    (run / "model" / "model.json").unlink()
    assert Onlooker(run).look().stage == "train"
    assert Onlooker(finished_run / "model").look().state == "finished"


def test_an_ingest_is_watched_by_its_store(labelled_store: Path) -> None:
    seen = Onlooker(labelled_store).look()
    assert (seen.kind, seen.state, seen.done) == ("ingest", "finished", 48)
    assert state_line(seen) == "ingest: finished, 48/48 files, 3/3 shards, 0 rejected"
    assert Onlooker(labelled_store).rows(seen)[0].state == "done"


def test_what_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a run nor a store"):
        watch(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        watch(tmp_path / "nowhere")


def test_entries_are_read_once_and_damaged_ones_do_not_count(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []
    read = commits.read_file
    monkeypatch.setattr(commits, "read_file", lambda path: (calls.append(path), read(path))[1])
    entry = run / "ledger" / "00000.json"
    key = read_sealed_json(entry)["key"].split()[0]
    reader = CommitReader(run / "ledger", key)
    assert [len(reader.read()), len(reader.read()), len(calls)] == [2, 2, 2]
    assert reader.read()[0].worker.partition(":")[0]
    entry.write_bytes(entry.read_bytes()[:-9])
    assert len(reader.read()) == 1
    write_sealed_json(run / "ledger" / "00002.json", {"key": key, "shard": 2})
    assert reader.read() == []
    assert CommitReader(run / "ledger", "other").read() == []


def test_speed_counts_from_the_last_beginning() -> None:
    done = [Commit(at_s, 10, 10, 0, 5.0, f"n1:{i}") for i, at_s in enumerate((100.0, 110.0, 1010.0, 1020.0))]
    times = [StageTime("infer", begin, None, 0, 100, "stars", "n1") for begin in (90.0, 1000.0)]
    rate, left_s = measure(done, times, "infer", 100, 1020.0)
    assert (rate, left_s) == (pytest.approx(1.0), pytest.approx(60.0))
    rate, _ = measure(done[:2], [], "infer", 100, 110.0)  # no times: an array, or an older program
    assert rate == pytest.approx(20 / 15)
    assert measure([], [], "infer", 100, 110.0) == (None, None)
    assert seen_workers(done, 1030.0) == ["n1:2", "n1:3"]


def test_the_end_of_a_torn_log_is_read(tmp_path: Path) -> None:
    assert not read_log_end(tmp_path).is_there
    lines = ["x" * 70_000, '{"level": "WARNING", "message": "old"}', '{"level": "INFO", "message": "begin"}']
    lines += [f'{{"level": "WARNING", "message": "w{i}"}}' for i in range(5)] + ['{"level": "INF']
    (tmp_path / "driver.jsonl").write_text("\n".join(lines))
    found = read_log_end(tmp_path)
    assert found.warnings == ("w2", "w3", "w4")
    assert found.last == "w4"


def test_what_a_log_says_steers_no_terminal(tmp_path: Path) -> None:
    line = {"level": "WARNING", "message": "\x1b]0;owned\x07 caf\u00e9"}
    (tmp_path / "driver.jsonl").write_text(json.dumps(line) + "\n")
    assert read_log_end(tmp_path).warnings == ("\\x1b]0;owned\\x07 caf\u00e9",)
