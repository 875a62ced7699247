"""When the stages of a run began and ended: `stages.jsonl` in its folder, for people and for its page.

Nothing depends on that file. It is in no hash and no manifest; where it cannot be written it has gaps, and a
process that is killed leaves a stage without an end.
"""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from apogee_batch.run.progress import Facts, ProgressView, show_facts

STAGES_FILE = "stages.jsonl"
LATEST_S = 1e11  # the year 5138; from the year 10000 on there are no dates
MAX_BYTES = 2**24  # what is longer was not written here
APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True)
class StageTime:
    """One attempt at a stage.

    Attributes
    ----------
    stage : str
        "train", "calibrate", "infer", "publish", "report"; "ingest" in the folder of an ingest. Rounds of
        adaptation are further attempts at "train".
    begin_s : float
        When it began, in seconds since 1970.
    end_s : float or None
        When it ended; None while it goes on, and for an attempt that was stopped or killed.
    done : int
        How much of it was done, by this attempt and those before, when it ended or, without an end, began.
    total : int or None
        How much there is; None where nobody knows.
    unit : str
        What is counted, as "stars".
    host : str
        Where its driver ran.
    """

    stage: str
    begin_s: float
    end_s: float | None
    done: int
    total: int | None
    unit: str
    host: str


def read_stage_times(folder: Path) -> list[StageTime]:
    """Read when the stages of a run, a model or an ingest began and ended, in the order of their beginnings.

    Lines that are torn, not of this program or of no possible time are left out; a missing file has none.
    """
    times: list[StageTime] = []
    going: dict[tuple[str, str, int], int] = {}  # stage, host and pid -> its place in the list
    for line in _lines(folder / STAGES_FILE):
        values = _parse(line)
        if values is None:
            continue
        event, pid, time_ = values
        key = (time_.stage, time_.host, pid)
        if event == "begin":
            going[key] = len(times)
            times.append(time_)
        elif key in going:
            place = going.pop(key)
            begin_s = times[place].begin_s
            times[place] = replace(time_, begin_s=begin_s, end_s=max(begin_s, time_.begin_s))
    return times


def _lines(path: Path) -> list[bytes]:
    try:
        if not path.is_file():
            return []
        with path.open("rb") as file:
            return file.read(MAX_BYTES).split(b"\n")
    except OSError:
        return []


def _parse(line: bytes) -> tuple[str, int, StageTime] | None:
    """Return event, process and values of a line, its time as the beginning; None if it is none of ours."""
    try:
        said = json.loads(line)
        total = said["total"]
        time_ = StageTime(
            stage=str(said["stage"]),
            begin_s=float(said["time"]),
            end_s=None,
            done=int(said["done"]),
            total=None if total is None else int(total),
            unit=str(said["unit"]),
            host=str(said["host"]),
        )
        event, pid = said["event"], int(said["pid"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    is_ours = event in ("begin", "end") and 0 <= time_.begin_s <= LATEST_S  # NaN is not
    return (event, pid, time_) if is_ours else None


def _note(folder: Path, event: str, stage: str, *, done: int, total: int | None, unit: str) -> None:
    """Add a line in one write, behind a torn one on a line of its own; a disk that is full gets none."""
    said = {
        "stage": stage,
        "event": event,
        "time": round(time.time(), 3),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "done": done,
        "total": total,
        "unit": unit,
    }
    path = folder / STAGES_FILE
    with suppress(OSError):
        descriptor = os.open(path, APPEND, 0o666)
        try:
            start = b"\n" if _is_torn(path) else b""
            os.write(descriptor, start + json.dumps(said).encode() + b"\n")
        finally:
            os.close(descriptor)


def _is_torn(path: Path) -> bool:
    """Tell whether the last line has no end, since its process or the disk came to theirs."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


class TimedView:
    """A view whose stages are noted in a folder too; everything else goes on to the view behind it.

    Parameters
    ----------
    view : ProgressView
        What the user sees.
    folder : Path
        Folder of the run, the model or the ingest.
    """

    def __init__(self, view: ProgressView, folder: Path) -> None:
        self._view, self._folder = view, folder
        self._stage: str | None = None
        self._done, self._unit = 0, ""
        self._total: int | None = None

    def start(self, stage: str, total: int | None, unit: str, done: int = 0) -> None:
        """See `ProgressView`; a stage of which nothing is left to do has no time."""
        self._view.start(stage, total, unit, done)
        self._stage = None
        if total is None or done < total:
            self._stage = "train" if stage.startswith("adapt") else stage
            self._done, self._total, self._unit = done, total, unit
            self._note("begin")

    def advance(self, n: int, note: str = "") -> None:
        """See `ProgressView`."""
        self._done += n
        self._view.advance(n, note)

    def finish(self) -> None:
        """See `ProgressView`."""
        self._view.finish()
        if self._stage is not None:
            self._note("end")
            self._stage = None

    def say(self, text: str) -> None:
        """See `ProgressView`."""
        self._view.say(text)

    def show(self, facts: Facts) -> None:
        """See `FactsView`."""
        show_facts(self._view, facts)

    def _note(self, event: str) -> None:
        assert self._stage is not None
        _note(self._folder, event, self._stage, done=self._done, total=self._total, unit=self._unit)


def time_stages(view: ProgressView, folder: Path) -> ProgressView:
    """Return a view that also notes in `folder` when stages begin and end; once is enough for a folder."""
    if isinstance(view, TimedView) and view._folder == folder:
        return view
    return TimedView(view, folder)


def untimed(view: ProgressView) -> ProgressView:
    """Return a view that notes no times: for what is only looked at again."""
    return view._view if isinstance(view, TimedView) else view


@contextmanager
def stage(view: ProgressView, name: str, total: int | None, unit: str, done: int = 0) -> Iterator[None]:
    """Show a stage that is done in one go; it has no end if the block raises."""
    view.start(name, total, unit, done)
    yield
    view.advance(0 if total is None else total - done)
    view.finish()
