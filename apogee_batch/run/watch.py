"""`status --watch`: a run, a training or an ingest as seen from another terminal, until it ends."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from apogee_batch.errors import IncompleteRunError
from apogee_batch.exits import RESUME
from apogee_batch.output import manner, write_event, write_line
from apogee_batch.run.live_view import draw_rows
from apogee_batch.run.onlooker import Onlooker
from apogee_batch.run.pace import clock_text
from apogee_batch.run.progress import WARNING, Facts
from apogee_batch.run.run_state import RunState, now

INTERVAL_S = 5.0
AT_LEAST_S = 60.0  # a line comes at least that often, also where nothing changes


def state_line(seen: RunState) -> str:
    """Return how far something is as one line."""
    words = [f"{seen.stage or seen.kind}: {seen.state}" + (f" ({seen.why})" if seen.why else "")]
    if seen.shards:
        words.append(f"{seen.done:,}/{seen.total:,} {seen.unit}")
        words.append(f"{seen.shards_done}/{seen.shards} shards")
        words.append(f"{seen.rejects:,} rejected")
    words += _speed_words(seen)
    return ", ".join(words)


def _speed_words(seen: RunState) -> list[str]:
    """Return what there is to say about what goes on now."""
    words = []
    if seen.rate_per_s is not None:
        words.append(f"{seen.rate_per_s:.3g} {seen.unit}/s")
    if seen.left_s is not None:
        words.append(f"{clock_text(seen.left_s)} left")
    if seen.state in ("running", "waiting") and seen.workers and seen.stage in ("infer", "ingest"):
        n_workers = len(seen.workers)
        words.append(f"{n_workers} worker{'s' * (n_workers != 1)} seen")
    return words


def driver_line(seen: RunState) -> str:
    """Say who drives it."""
    if seen.driver is None:
        if seen.state == "waiting":
            return "driver: none; as while the tasks of a job array work, or before the first"
        return "driver: none"
    return f"driver: {seen.driver}" + ("" if seen.is_driver_seen else "; it cannot be seen from this host")


def watch(
    path: Path,
    *,
    interval_s: float = INTERVAL_S,
    is_json: bool = False,
    console: Console | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Show how far something is until it ends.

    Parameters
    ----------
    path : Path
        As for `Onlooker`.
    interval_s : float
        Seconds between two looks.
    is_json : bool
        Whether each look is a line of JSON.
    console : Console, optional
        Where to show it; without one there are lines.

    Returns
    -------
    list of str
        How it ended.

    Raises
    ------
    IncompleteRunError
        If it has stopped before its end; the message says why.
    """
    onlooker = Onlooker(path)
    show: _Lines | _Screen = _Lines(is_json=is_json) if console is None else _Screen(console, onlooker)
    with show:
        while (seen := onlooker.look()).state in ("running", "waiting"):
            show.show(seen)
            sleep(interval_s)
        show.show(seen)
    if seen.state == "stopped":
        remedy = "" if RESUME in seen.why else f"; {RESUME}"
        raise IncompleteRunError(f"{path}: stopped in {seen.stage}: {seen.why}{remedy}")
    return [] if is_json else [state_line(seen)]


class _Lines:
    """A line each time something has changed."""

    def __init__(self, *, is_json: bool) -> None:
        self._is_json = is_json
        self._last, self._at_s = "", 0.0

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to do."""

    def show(self, seen: RunState) -> None:
        if self._is_json:
            write_line(json.dumps(seen.to_json(), default=str))
            return
        line, now_s = state_line(seen), now()
        if seen.state not in ("running", "waiting"):
            return  # it is told at the end
        if line != self._last and (
            line.split(",")[:3] != self._last.split(",")[:3] or now_s - self._at_s > AT_LEAST_S
        ):
            if manner().is_json:
                write_event("status", **seen.to_json())
            elif not manner().is_quiet:
                write_line(f"{time.strftime('%H:%M:%S')} {line}")
            self._last, self._at_s = line, now_s


class _Screen:
    """The stages, drawn again at each look, with the driver and the last warnings below."""

    def __init__(self, console: Console, onlooker: Onlooker) -> None:
        self._onlooker = onlooker
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> "_Screen":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, seen: RunState) -> None:
        console = self._live.console
        rows = self._onlooker.rows(seen)
        for row in rows:
            if row.state == "now" and row.name == seen.stage:
                row.note = " · ".join(_speed_words(seen))
        facts = Facts(rejects=seen.rejects if seen.shards else None)
        lines = list(draw_rows(rows, facts, now(), console.options))
        shards = f", {seen.shards_done}/{seen.shards} shards" if seen.shards else ""
        state = seen.state + (f" ({seen.why})" if seen.why else "")
        below = ["", f"{seen.kind} {seen.run_id} in {seen.path}: {state}{shards}", driver_line(seen)]
        below += [f"{WARNING} {text}" for text in seen.warnings]
        texts = [Text(text, style="yellow" if text.startswith(WARNING) else "dim") for text in below]
        self._live.update(Group(*lines, *texts), refresh=True)
