"""What a program sees while a command works: one JSON object a line."""

import time
from collections.abc import Callable
from typing import Any

from apogee_batch.output import write_event
from apogee_batch.run.pace import Pace
from apogee_batch.run.progress import PLAIN_INTERVAL_S, WARNING, Facts


class JsonView:
    """Writes events to stdout; `docs/terminal.md` lists their fields.

    Parameters
    ----------
    is_quiet : bool
        Whether only warnings are written.
    interval_s : float
        Seconds between two lines about the same stage.
    """

    def __init__(
        self,
        *,
        is_quiet: bool = False,
        interval_s: float = PLAIN_INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._is_quiet, self._interval_s, self._clock = is_quiet, interval_s, clock
        self._facts: dict[str, Any] = {}
        self._begin("", None, "", 0)

    def _begin(self, stage: str, total: int | None, unit: str, done: int) -> None:
        self._stage, self._total, self._unit, self._done, self._note = stage, total, unit, done, ""
        self._started = self._spoken = self._clock()
        self._pace = Pace(total, done, self._started)

    def start(self, stage: str, total: int | None, unit: str, done: int = 0) -> None:
        """See `ProgressView`."""
        self._begin(stage, total, unit, done)
        self._facts = {}
        self._write("begin")

    def advance(self, n: int, note: str = "") -> None:
        """See `ProgressView`."""
        self._done += n
        self._note = note or self._note
        now_s = self._clock()
        self._pace.note(self._done, now_s)
        if now_s - self._spoken >= self._interval_s and self._done != self._total:
            self._spoken = now_s
            rate, left_s = self._pace.rate(now_s), self._pace.left_s(now_s)
            self._write("progress", rate_per_s=_rounded(rate), left_s=_rounded(left_s), **self._facts)

    def finish(self) -> None:
        """See `ProgressView`."""
        self._write("end", seconds=round(self._clock() - self._started, 3), **self._facts)

    def say(self, text: str) -> None:
        """See `ProgressView`."""
        if text.startswith(WARNING):
            write_event("warning", text=text.removeprefix(WARNING).strip())
        elif not self._is_quiet:
            write_event("message", text=text)

    def show(self, facts: Facts) -> None:
        """See `FactsView`."""
        told = {"rejects": facts.rejects, "workers": facts.workers, "workers_wanted": facts.wanted}
        self._facts |= {name: value for name, value in told.items() if value is not None}

    def _write(self, event: str, **values: Any) -> None:
        if not self._is_quiet:
            note = {"note": self._note} if self._note else {}
            counts = {"done": self._done, "total": self._total, "unit": self._unit}
            write_event(event, stage=self._stage, **counts, **values, **note)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
