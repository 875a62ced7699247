"""The live view of a command on a terminal: its stages, one below the other, and lines that scroll above."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from apogee_batch.output import printable, writable
from apogee_batch.run.pace import Pace, clock_text
from apogee_batch.run.progress import WARNING, Facts

REFRESH_PER_S = 4.0
MAX_WIDTH = 100  # longer lines are harder to read than short ones
NAME_WIDTH = 10
MIN_BAR, MAX_BAR = 8, 40
MARKS = {"done": "✓", "now": "●", "stopped": "✗", "to come": "○"}
ASCII_MARKS = {"done": "+", "now": "*", "stopped": "!", "to come": "-"}
STYLES = {"done": "green", "now": "bold cyan", "stopped": "bold red", "to come": "dim"}


@dataclass
class Row:
    """A stage on the screen.

    Attributes
    ----------
    name : str
        The stage.
    state : {"to come", "now", "done", "stopped"}
        How far it is.
    unit, note : str
        What is counted; what else there is to tell.
    done, total : int or None
        Units done; None where nobody knows how many there are.
    begun_s, ended_s : float
        By the clock of the view.
    """

    name: str
    state: str = "to come"
    unit: str = ""
    note: str = ""
    done: int = 0
    total: int | None = None
    begun_s: float = 0.0
    ended_s: float = 0.0
    pace: Pace | None = None


class LiveView:
    """Stages done, at work and to come, with bar, stars/s, time left, rejects and workers.

    Parameters
    ----------
    console : Console
        A terminal.
    clock : callable
        Seconds that go on steadily.
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._rows: list[Row] = []
        self._facts = Facts()
        self._live: Live | None = None

    def start(self, stage: str, total: int | None, unit: str, done: int = 0) -> None:
        """See `ProgressView`."""
        now_s = self._clock()
        row = Row(stage, "now", unit, "", done, total, now_s, now_s, Pace(total, done, now_s))
        begun = [other for other in self._rows if other.state != "to come"]
        ahead = [other for other in self._rows if other.state == "to come"]
        names = [other.name for other in ahead]
        if stage in names:  # those before it had nothing to do
            ahead = ahead[names.index(stage) + 1 :]
        self._rows, self._facts = [*begun, row, *ahead], Facts()
        self._open()

    def advance(self, n: int, note: str = "") -> None:
        """See `ProgressView`."""
        row = self._current()
        if row is not None and row.pace is not None:
            row.done += n
            row.note = note or row.note
            row.pace.note(row.done, self._clock())

    def finish(self) -> None:
        """See `ProgressView`."""
        row = self._current()
        if row is not None:
            row.state, row.ended_s = "done", self._clock()

    def say(self, text: str) -> None:
        """See `ProgressView`; the line scrolls above the stages."""
        style = "yellow" if text.startswith(WARNING) else ""
        self._console.print(Text(writable(printable(text), self._console.file), style=style))

    def show(self, facts: Facts) -> None:
        """See `FactsView`."""
        if facts.stages is not None:
            begun = [row for row in self._rows if row.state != "to come"]
            self._rows = begun + [Row(name) for name in facts.stages]
            self._open()
        old = self._facts
        self._facts = Facts(
            None,
            old.rejects if facts.rejects is None else facts.rejects,
            old.workers if facts.workers is None else facts.workers,
            old.wanted if facts.wanted is None else facts.wanted,
        )

    def close(self, *, is_stopped: bool = False) -> None:
        """Leave the stages on the screen as they are, and the terminal as it was."""
        row = self._current()
        if row is not None:
            row.state, row.ended_s = ("stopped" if is_stopped else "done"), self._clock()
        if not is_stopped:
            self._rows = [row for row in self._rows if row.state != "to come"]
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _open(self) -> None:
        if self._live is None:
            self._live = Live(
                self, console=self._console, refresh_per_second=REFRESH_PER_S, vertical_overflow="crop"
            )
            self._live.start()

    def _current(self) -> Row | None:
        return next((row for row in self._rows if row.state == "now"), None)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the stages."""
        yield from draw_rows(list(self._rows), self._facts, self._clock(), options)


def draw_rows(rows: list[Row], facts: Facts, now_s: float, options: ConsoleOptions) -> Iterator[Text]:
    """Return the lines of some stages, none of them wider than the terminal."""
    width, is_ascii = min(options.max_width, MAX_WIDTH), options.ascii_only
    for row in rows:
        for line in row_lines(row, facts, now_s, width, is_ascii=is_ascii):
            line.no_wrap = True
            line.truncate(width, overflow="crop" if is_ascii else "ellipsis")
            yield line


def row_lines(row: Row, facts: Facts, now_s: float, width: int, *, is_ascii: bool) -> list[Text]:
    """Return the lines of a stage: one, and another for what is going on."""
    mark = (ASCII_MARKS if is_ascii else MARKS)[row.state]
    head = Text.assemble((f" {mark} {row.name:<{NAME_WIDTH}}", STYLES[row.state]))
    if row.state == "to come":
        return [head]
    elapsed = clock_text((now_s if row.state == "now" else row.ended_s) - row.begun_s)
    count = f"{row.done:,} {row.unit}"
    if row.total is not None and (row.state != "done" or row.total != row.done):
        count = f"{row.done:,}/{row.total:,} {row.unit}"
    if row.state != "now" or row.total is None:
        body = f" {count}"
    else:
        share = min(1.0, row.done / row.total) if row.total else 1.0
        said = f" {int(100 * share):3d} %  {count}"
        room = width - len(head) - len(said) - len(elapsed) - 3
        bar = _bar(share, min(room, MAX_BAR), is_ascii=is_ascii) if room >= MIN_BAR else Text()
        head = Text.assemble(head, " ", bar)
        body = said
    lines = [Text.assemble(head, body, "  ", (elapsed, "dim"))]
    if row.state == "now" and (told := _going_on(row, facts, now_s)):
        indent = " " * (NAME_WIDTH + 4)
        lines.append(Text(indent + (" | " if is_ascii else " · ").join(told)))
    return lines


def _going_on(row: Row, facts: Facts, now_s: float) -> list[str]:
    """Return what is known of a stage at work, what matters most first."""
    told = []
    if row.pace is not None and (rate := row.pace.rate(now_s)) is not None:
        told.append(f"{rate:,.0f} {row.unit}/s" if rate >= 100 else f"{rate:.3g} {row.unit}/s")
        if (left_s := row.pace.left_s(now_s)) is not None:
            told.append(f"{clock_text(left_s)} left")
    if facts.rejects is not None:
        told.append(f"{facts.rejects:,} rejected")
    if facts.workers is not None:
        of = "" if facts.wanted is None else f" of {facts.wanted}"
        told.append(f"{facts.workers}{of} workers")
    return [*told, row.note] if row.note else told


def _bar(share: float, width: int, *, is_ascii: bool) -> Text:
    """Return a bar, part of which is full."""
    full = int(share * width)
    if is_ascii:
        return Text("#" * full + "." * (width - full))
    return Text.assemble(("━" * full, "cyan"), ("─" * (width - full), "bright_black"))
