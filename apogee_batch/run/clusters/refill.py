"""Keeps the worker processes of a local Dask cluster at their number."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from apogee_batch.errors import ClusterError

INTERVAL_MS = 2000
START_TRIES = 6


class Refill:
    """Replaces workers that are gone for good: Dask restarts one that dies, but not while it starts.

    Parameters
    ----------
    cluster : LocalCluster
        Without workers as yet.
    n_workers : int
        How many it shall have.
    """

    def __init__(self, cluster: Any, n_workers: int) -> None:
        self._cluster = cluster
        self._seen_dead: set[Any] = set()
        self._closing: list[asyncio.Future[None]] = []  # without a reference they would not be finished
        self._is_over = False
        self._failure: Exception | None = None
        while len(cluster.worker_spec) < n_workers:
            cluster.worker_spec.update(cluster.new_worker_spec())

    def start_all(self) -> None:
        """Start the workers, again where one dies as it starts.

        Raises
        ------
        ClusterError
            If they cannot be started.
        """
        for _ in range(START_TRIES):
            self._failure = None
            self._cluster.sync(self.check)
            if self._failure is None:
                return
        raise ClusterError(f"no local Dask cluster: {self._failure}; try --cluster serial")

    @contextmanager
    def from_time_to_time(self) -> Iterator[None]:
        """Check the workers as long as the block lasts."""
        from tornado.ioloop import PeriodicCallback

        callback = PeriodicCallback(self.check, INTERVAL_MS)
        self._cluster.loop.add_callback(callback.start)
        try:
            yield
        finally:
            self._is_over = True
            self._cluster.loop.add_callback(callback.stop)

    def let_go(self) -> None:
        """Begin to stop the workers, for good; what stops the cluster waits until they have."""
        self._is_over = True
        self._cluster.loop.add_callback(self._cluster.scale, 0)  # in the thread that changes the workers

    async def check(self) -> None:
        """Start what is missing; what fails is tried again at the next time."""
        if self._is_over:
            return
        try:
            for name in self._lost():
                self._closing.append(asyncio.ensure_future(_close(self._cluster.workers.pop(name))))
            await self._cluster
        except Exception as error:  # noqa: BLE001  whatever it is, the workers that are there work on
            self._failure = error

    def _lost(self) -> set[Any]:
        """Return the names of workers whose process was dead the last time too: it is not restarting."""
        nannies = self._cluster.workers
        dead = {name for name, nanny in nannies.items() if not nanny.is_alive()}
        lost = {name for name in dead if name in self._seen_dead or nannies[name].status.name == "failed"}
        self._seen_dead = dead - lost
        return lost


async def _close(nanny: Any) -> None:
    """Let go of what is left of a worker; one that is stuck takes its time."""
    with suppress(Exception):
        await nanny.close()
