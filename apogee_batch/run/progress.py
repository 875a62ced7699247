"""What a person sees while a command works: a live view on a terminal, plain lines elsewhere."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from rich.console import Console

from apogee_batch.output import manner, writable

PLAIN_INTERVAL_S = 10.0
WARNING = "WARNING:"  # begins what is said although a command is quiet
SAID = {"is_said": True}  # for the log record of a warning that the view has told
logger = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class Facts:
    """What else a view may show; None is "as before".

    Attributes
    ----------
    stages : tuple of str, optional
        The stages that the command goes through from here on.
    rejects : int, optional
        Inputs that were rejected so far.
    workers, wanted : int, optional
        Worker processes that are there; that should be.
    """

    stages: tuple[str, ...] | None = None
    rejects: int | None = None
    workers: int | None = None
    wanted: int | None = None


@runtime_checkable
class FactsView(Protocol):
    """A view that shows more than progress."""

    def show(self, facts: Facts) -> None:
        """Show some facts until others come."""


def show_facts(view: ProgressView, facts: Facts) -> None:
    """Give a view some facts, if it is one that shows them."""
    if isinstance(view, FactsView):
        view.show(facts)


def say_and_log(view: ProgressView, text: str) -> None:
    """Print a line; a warning also goes to the log, where `status` finds it."""
    if text.startswith(WARNING):
        logger.warning("%s", text.removeprefix(WARNING).strip(), extra=SAID)
    view.say(text)


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
        told = writable(text, self._console.file)  # Rich would raise, and end the command
        self._console.print(told, highlight=False, markup=False, soft_wrap=True)


class QuietView(SilentView):
    """Says warnings, to stderr, and nothing else."""

    def say(self, text: str) -> None:
        """See `ProgressView`."""
        if text.startswith(WARNING) and sys.stderr is not None:
            with suppress(OSError):  # nobody listens
                sys.stderr.write(f"{writable(text, sys.stderr)}\n")
                sys.stderr.flush()


class _Teller(logging.Handler):
    """Says the warnings of the package that were not said already, so that no one goes unseen."""

    def __init__(self, view: ProgressView) -> None:
        super().__init__(logging.WARNING)
        self._view = view

    def emit(self, record: logging.LogRecord) -> None:
        """Print a warning; errors end the command, which tells them."""
        if record.levelno == logging.WARNING and not getattr(record, "is_said", False):
            self._view.say(f"{WARNING} {record.getMessage()}")


@contextmanager
def progress_view(console: Console) -> Iterator[ProgressView]:
    """Choose a view for the console, and leave the terminal clean whatever happens.

    On a terminal that cannot move its cursor (TERM=dumb) there are lines, as without a terminal.
    """
    how = manner()
    if how.is_json:
        from apogee_batch.run.json_view import JsonView

        chosen: ProgressView = JsonView(is_quiet=how.is_quiet)
    elif how.is_quiet:
        chosen = QuietView()
    elif console.is_terminal and not console.is_dumb_terminal:
        with live_view(console) as live, _telling(live):
            yield live
        return
    else:
        chosen = PlainView(console)
    with _telling(chosen):
        yield chosen


@contextmanager
def live_view(console: Console) -> Iterator[ProgressView]:
    """Show a live view for the time of the block."""
    from apogee_batch.run.live_view import LiveView

    view = LiveView(console)
    try:
        yield view
    except BaseException:
        view.close(is_stopped=True)
        raise
    view.close()


@contextmanager
def _telling(view: ProgressView) -> Iterator[None]:
    teller, logger = _Teller(view), logging.getLogger("apogee_batch")
    logger.addHandler(teller)
    try:
        yield
    finally:
        logger.removeHandler(teller)
