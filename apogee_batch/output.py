"""How a command speaks: lines for people, fewer of them with --quiet, one JSON object each with --log-json.

Nothing heavy is imported here: the line of a signal, or of an option that is not known, comes from here too.
"""

import json
import logging
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Self

QUIET, LOG_JSON = "--quiet", "--log-json"


@dataclass(frozen=True)
class Manner:
    """How a command speaks.

    Attributes
    ----------
    is_quiet : bool
        Whether it tells warnings, errors and where the results are, and nothing else.
    is_json : bool
        Whether each line is a JSON object.
    """

    is_quiet: bool = False
    is_json: bool = False


_manners = [Manner()]  # the last one holds


def manner() -> Manner:
    """Return how the command speaks now."""
    return _manners[-1]


def choose_manner(words: Sequence[str]) -> None:
    """Take the manner from the words of a command line, so that errors in that line are told so, too."""
    options = list(words)[: list(words).index("--")] if "--" in words else words
    _manners[:] = [Manner(QUIET in options, LOG_JSON in options)]


@contextmanager
def speaking(wanted: Manner) -> Iterator[None]:
    """Speak in another manner for the time of the block."""
    _manners.append(wanted)
    try:
        yield
    finally:
        _manners.pop()


class ResultLine(str):
    """A line of a result that also has values for programs; with --quiet, lines without are left out.

    Parameters
    ----------
    text : str
        For people.
    **values
        For programs: JSON values, as `name="catalogue"`, `path` and counts.
    """

    values: dict[str, Any]
    __slots__ = ("values",)

    def __new__(cls, text: str, **values: Any) -> Self:
        """Make the line."""
        line = super().__new__(cls, text)
        line.values = values
        return line


def event_line(event: str, values: dict[str, Any]) -> str:
    """Return an event as one line of JSON that ends; see docs/terminal.md for the fields."""
    now = time.time()
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    said = {"time": f"{moment}.{int(now % 1 * 1000):03d}Z", "event": event, **values}
    return json.dumps(said, ensure_ascii=True, allow_nan=False, default=str) + "\n"


def write_event(event: str, **values: Any) -> None:
    """Write an event to stdout, at once."""
    write_line(event_line(event, values).rstrip("\n"))


def write_line(text: str) -> None:
    """Write a line to stdout, at once; into nothing where whoever called has closed it."""
    if sys.stdout is None:
        return
    sys.stdout.write(f"{writable(text, sys.stdout)}\n")
    sys.stdout.flush()


def writable(text: str, stream: IO[str]) -> str:
    """Return a text as a stream takes it: letters that it would refuse are escaped.

    Its encoding may be a narrow one, and the name of a file may be no text.
    """
    encoding, errors = getattr(stream, "encoding", None), getattr(stream, "errors", None)
    try:
        text.encode(encoding or "utf-8", errors or "strict")
    except UnicodeEncodeError:
        return text.encode(encoding or "utf-8", "backslashreplace").decode(encoding or "utf-8")
    return text


def printable(text: str) -> str:
    """Return a text in which nothing would steer a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class _WarningEvents(logging.StreamHandler):  # type: ignore[type-arg]  # it has one only for readers
    """Makes events of what other packages log and nobody else tells; Dask silences handlers of streams."""

    def __init__(self) -> None:
        super().__init__()
        self.setLevel(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the event; in another manner, the line."""
        if manner().is_json:
            write_event("warning", text=record.getMessage())
        else:
            super().emit(record)


def make_all_events() -> None:
    """With --log-json, make events of the warnings of other packages too, until the process ends."""

    def show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        write_event("warning", text=f"{category.__name__}: {message}")

    warnings.showwarning = show_warning
    logging.lastResort = _WarningEvents()


def tell_bug(error: Exception, code: int) -> None:
    """With --log-json, make an event of an error that nobody expected; the traceback is in it."""
    if sys.stderr is not None:
        told = "".join(traceback.format_exception(error))
        text = f"this is a bug: {type(error).__name__}: {error}"
        sys.stderr.write(event_line("error", {"text": text, "exit_code": code, "traceback": told}))


def make_events_of(logger: str) -> None:
    """With --log-json, make events of the warnings of a package whose logger has a handler of its own."""
    if manner().is_json:
        logging.getLogger(logger).handlers[:] = [_WarningEvents()]


def write_results(lines: Sequence[str]) -> None:
    """Write what a command has to say at its end, in the manner of the command."""
    how = manner()
    if how.is_quiet and any(isinstance(line, ResultLine) for line in lines):
        lines = [line for line in lines if isinstance(line, ResultLine)]
    for line in lines:
        if not how.is_json:
            write_line(line)
        elif line:
            write_event("result", text=str(line), **(line.values if isinstance(line, ResultLine) else {}))
