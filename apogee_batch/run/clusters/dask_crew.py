"""The worker processes of a Dask scheduler, as a stage sees them."""

import time
from collections.abc import Sequence
from concurrent.futures import Executor
from importlib.util import find_spec
from typing import Any

from apogee_batch.errors import ClusterError
from apogee_batch.run.clusters.dask_executor import DaskExecutor
from apogee_batch.run.clusters.workers import Crew

START_TIMEOUT_S = 120.0
POLL_S = 0.5


class DaskCrew(Crew):
    """Workers that a client reaches.

    Parameters
    ----------
    client : distributed.Client
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def addresses(self) -> list[str]:
        """Return the addresses of the workers that are there, in the order of their names."""
        found = self._client.scheduler_info(n_workers=-1).get("workers", {})  # not if it is gone
        return sorted(found, key=lambda address: str(found[address]["name"]))

    def places(self, n_places: int) -> Sequence[Executor]:
        """See `Crew`."""
        began = time.monotonic()
        while len(found := self.addresses()) < n_places:
            self.check()
            if time.monotonic() - began > self.start_timeout_s():
                raise ClusterError(
                    f"{n_places} workers are needed at the same time, {len(found)} are there; "
                    "start more, or train with fewer (--train-workers)"
                )
            time.sleep(POLL_S)
        return [DaskExecutor(self._client, worker=address) for address in found[:n_places]]

    def is_there(self, place: Executor) -> bool:
        """See `Crew`."""
        return not isinstance(place, DaskExecutor) or place.worker in (None, *self.addresses())

    def start_timeout_s(self) -> float:
        """Return how long `places` waits for workers that are not there."""
        return START_TIMEOUT_S


def dashboard_text(link: str) -> str:
    """Name the dashboard only where it can be drawn: Dask needs bokeh for it."""
    return f", dashboard {link}" if find_spec("bokeh") else ""
