"""The worker processes of a Dask scheduler, as a stage sees them."""

import os
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from importlib.util import find_spec
from typing import Any, ParamSpec, TypeVar

from apogee_batch.errors import ClusterError, set_place
from apogee_batch.run.clusters.workers import Crew

START_TIMEOUT_S = 120.0
POLL_S = 0.5
LOGS_VARIABLE = "APOGEE_BATCH_LOGS"  # in jobs of a queue: the folder of what they print
JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "JOB_ID", "LSB_JOBID")
P = ParamSpec("P")
T = TypeVar("T")


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
        found = self._client.scheduler_info(n_workers=-1)["workers"]
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
        return [new_executor(self._client, worker=address) for address in found[:n_places]]

    def is_there(self, place: Executor) -> bool:
        """See `Crew`."""
        return not isinstance(place, PlacedExecutor) or place.worker in (None, *self.addresses())

    def start_timeout_s(self) -> float:
        """Return how long `places` waits for workers that are not there."""
        return START_TIMEOUT_S


class PlacedExecutor(Executor):
    """Lets the errors of tasks say where they happened.

    Parameters
    ----------
    executor : Executor
        Runs the tasks.
    worker : str, optional
        Address of the only worker that may run them.
    """

    def __init__(self, executor: Executor, worker: str | None = None) -> None:
        self._executor = executor
        self.worker = worker

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See `Executor`."""
        return self._executor.submit(tell_place, partial(fn, *args, **kwargs))


def tell_place(call: Callable[[], T]) -> T:
    """Make a call; its error learns in which job that was, if in any."""
    try:
        return call()
    except Exception as error:
        job = next((os.environ[name] for name in JOB_VARIABLES if name in os.environ), None)
        if job is not None:
            logs = os.environ.get(LOGS_VARIABLE)
            log = "" if logs is None else f", log {logs}/job-{job}.log"
            set_place(error, f"on {socket.gethostname()}, job {job}{log}")
        raise


def new_executor(client: Any, *, worker: str | None = None) -> Executor:
    """Return what runs tasks on a cluster, each submission a task of its own.

    Parameters
    ----------
    client : distributed.Client
    worker : str, optional
        Address of the only one that may run them.
    """
    # pure: a repeated call would get the result of the first
    workers = None if worker is None else [worker]
    return PlacedExecutor(client.get_executor(pure=False, workers=workers), worker)


def dashboard_text(link: str) -> str:
    """Name the dashboard only where it can be drawn: Dask needs bokeh for it."""
    return f", dashboard {link}" if find_spec("bokeh") else ""
