"""What a person sees while a command works: a bar on a terminal, plain lines elsewhere."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

PLAIN_INTERVAL_S = 10.0
SAID = {"is_said": True}  # for the log record of a warning that the view has told


class ProgressView(Protocol):
    """How stages tell what they do."""

    def start(self, stage: str, total: int | None, unit: str, done: int = 0) -> None:
        """Begin a stage of `total` units (None: nobody knows), `done` of which an earlier attempt left."""

    def advance(self, n: int, note: str = "") -> None:
        """Count `n` more units; `note` replaces what stands beside the bar."""

    def finish(self) -> None:
        """End the stage."""

    def say(self, text: str) -> None:
        """Print a line."""


class SilentView:
    """Says nothing: for tests and for callers of the library."""

    def start(self, stage: str, total: int | None, unit: str, done: int = 0) -> None:
        """See `ProgressView`."""

    def advance(self, n: int, note: str = "") -> None:
        """See `ProgressView`."""

    def finish(self) -> None:
        """See `ProgressView`."""

    def say(self, text: str) -> None:
        """See `ProgressView`."""


class PlainView:
    """A line now and then, for logs and pipes."""

    def __init__(self, console: Console, *, interval_s: float = PLAIN_INTERVAL_S) -> None:
        self._console = console
        self._interval_s = interval_s
        self._stage, self._unit, self._note = "", "", ""
        self._done, self._begun_with = 0, 0
        self._total: int | None = None
        self._started = self._spoken = time.monotonic()

    def start(self, stage: str, total: int | None, unit: str, done: int = 0) -> None:
        """See `ProgressView`."""
        self._stage, self._unit, self._note = stage, unit, ""
        self._done, self._total, self._begun_with = done, total, done
        self._started = self._spoken = time.monotonic()
        if total == done:
            self._line(f"{stage}: all {done} {unit} done before")
            return
        todo = "begins" if total is None else f"{total - done} {unit} to do"
        self._line(f"{stage}: {todo}" + (f", {done} done before" if done else ""))

    def advance(self, n: int, note: str = "") -> None:
        """See `ProgressView`."""
        self._done += n
        self._note = note or self._note
        is_last = self._done == self._total
        if time.monotonic() - self._spoken >= self._interval_s and not is_last:
            self._spoken = time.monotonic()
            self._line(self._state())

    def finish(self) -> None:
        """See `ProgressView`."""
        if self._begun_with != self._total:
            self._line(self._state() + " - done")

    def say(self, text: str) -> None:
        """See `ProgressView`."""
        self._line(text)

    def _state(self) -> str:
        elapsed = max(time.monotonic() - self._started, 1e-3)
        rate = (self._done - self._begun_with) / elapsed
        note = f", {self._note}" if self._note else ""
        of = "" if self._total is None else f"/{self._total}"
        return f"{self._stage}: {self._done}{of} {self._unit}, {rate:.3g}/s, {elapsed:.0f} s{note}"

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


class BarView:
    """A live bar on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Progress | None = None

    def start(self, stage: str, total: int | None, unit: str, done: int = 0) -> None:
        """See `ProgressView`."""
        self._bars = Progress(
            TextColumn("{task.description:<7}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self._console,
        )
        self._bars.add_task(stage, total=total, completed=done, note="")
        self._bars.start()

    def advance(self, n: int, note: str = "") -> None:
        """See `ProgressView`."""
        if self._bars is not None:
            task = self._bars.tasks[0]
            self._bars.update(task.id, advance=n, note=note or task.fields["note"])

    def finish(self) -> None:
        """See `ProgressView`."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def say(self, text: str) -> None:
        """See `ProgressView`."""
        (self._bars.console if self._bars else self._console).print(
            text, highlight=False, markup=False, soft_wrap=True
        )


class _Teller(logging.Handler):
    """Says the warnings of the package that were not said already, so that no one goes unseen."""

    def __init__(self, view: ProgressView) -> None:
        super().__init__(logging.WARNING)
        self._view = view

    def emit(self, record: logging.LogRecord) -> None:
        """Print a warning; errors end the command, which tells them."""
        if record.levelno == logging.WARNING and not getattr(record, "is_said", False):
            self._view.say(f"WARNING: {record.getMessage()}")


@contextmanager
def progress_view(console: Console) -> Iterator[ProgressView]:
    """Choose a view for the console, and leave the terminal clean whatever happens."""
    view: BarView | PlainView = BarView(console) if console.is_terminal else PlainView(console)
    teller, logger = _Teller(view), logging.getLogger("apogee_batch")
    logger.addHandler(teller)
    try:
        yield view
    finally:
        logger.removeHandler(teller)
        if isinstance(view, BarView):
            view.finish()
