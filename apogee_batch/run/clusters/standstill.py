"""Notices that this process stood still: with Ctrl-Z, with its container or with its machine.

What its workers said meanwhile has not been read yet, so that they seem to be silent, or stuck.
"""

import time
from collections.abc import Callable
from typing import Any

INTERVAL_S = 1.0
LEAST_S = 2.0  # a busy scheduler is late by less
TTL = "worker-ttl"  # what Dask calls its search for workers that say nothing


class Pulse:
    """Something that happens from time to time, unless this process stands still.

    Parameters
    ----------
    interval_s : float
        How often at least.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._last: float | None = None

    def missed_s(self, now: float) -> float:
        """Return by how much it comes too late, now that it happens again; 0 if it does not."""
        last, self._last = self._last, now
        return 0.0 if last is None else max(0.0, now - last - self._interval_s)


def forgive_standstill(scheduler: Any, clock: Callable[[], float] = time.time) -> None:
    """Keep a scheduler from giving workers up that it could not hear.

    Parameters
    ----------
    scheduler : distributed.Scheduler
        Of this process.
    clock : callable
        The clock by which the scheduler notes when it heard a worker.
    """
    from tornado.ioloop import PeriodicCallback

    pulse = Pulse(INTERVAL_S)

    def forgive() -> None:
        missed_s = pulse.missed_s(clock())
        if missed_s > LEAST_S:
            for worker in scheduler.workers.values():
                worker.last_seen += missed_s

    search = scheduler.periodic_callbacks[TTL]
    search_silent = search.callback

    def search_after() -> Any:
        forgive()  # it may be the first to run when this process goes on
        return search_silent()

    search.callback = search_after
    beat = scheduler.periodic_callbacks["apogee-batch-pulse"] = PeriodicCallback(forgive, INTERVAL_S * 1000)
    scheduler.loop.add_callback(beat.start)
