"""Workers of a Dask scheduler that somebody else started."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from apogee_batch.errors import ClusterError, UsageError
from apogee_batch.run.clusters.dask_crew import DaskCrew, dashboard_text
from apogee_batch.run.clusters.dask_executor import DaskExecutor
from apogee_batch.run.clusters.plugins import log_plugin, register, remove_empty_logs
from apogee_batch.run.clusters.workers import Workers
from apogee_batch.run.progress import ProgressView, say_and_log

CONNECT_TIMEOUT_S = 30
LOOK_S = 20.0
SAY_LOOKS = 3  # in a row without a worker: a minute
MOST_LOOKS = 180  # an hour: workers that come by themselves may have to wait in a queue


class AddressCrew(DaskCrew):
    """Workers of somebody's scheduler, which may all leave while it stays.

    Parameters
    ----------
    client : distributed.Client
    address : str
        Of the scheduler.
    say : callable
        Tells the user.
    """

    def __init__(self, client: Any, address: str, say: Callable[[str], None]) -> None:
        super().__init__(client)
        self._address, self._say = address, say
        self._n_empty, self._looked = 0, time.monotonic()

    def check(self) -> None:
        """See `Crew`."""
        if time.monotonic() - self._looked < LOOK_S:
            return
        self._n_empty = 0 if self.addresses() else self._n_empty + 1
        self._looked = time.monotonic()
        if self._n_empty == SAY_LOOKS:
            self._say(
                f"WARNING: {self._address}: the scheduler has no workers any more; the run goes on when some "
                "are started with 'dask worker'"
            )
        if self._n_empty == MOST_LOOKS:
            raise ClusterError(
                f"{self._address}: the scheduler has had no workers for {MOST_LOOKS * LOOK_S / 60:.0f} "
                "minutes; what was finished is kept: start some with 'dask worker' and give the command again"
            )


@contextmanager
def dask_at_address(address: str | None, logs: Path | None, progress: ProgressView) -> Iterator[Workers]:
    """Workers of a scheduler that somebody else started.

    Parameters
    ----------
    address : str or None
        Of the scheduler.
    logs : Path, optional
        Folder for a log of each worker process.
    progress : ProgressView
        Told when all workers have left.

    Raises
    ------
    UsageError
        If there is no address.
    ClusterError
        If nobody answers there, or nobody works there.
    """
    from distributed import Client

    if not address:
        raise UsageError("--cluster address needs --address, for example tcp://127.0.0.1:8786")
    try:
        client = Client(address, timeout=CONNECT_TIMEOUT_S)
    except (OSError, TypeError, ValueError) as error:  # TypeError: tls:// without certificates
        raise ClusterError(f"{address}: no Dask scheduler answers there ({error})") from error
    with client:
        found = client.scheduler_info(n_workers=-1)["workers"].values()
        n_workers = sum(worker["nthreads"] for worker in found)  # tasks that run at the same time
        if n_workers == 0:
            raise ClusterError(f"{address}: the scheduler has no workers; start some with 'dask worker'")
        text = f"{len(found)} workers of {address}{dashboard_text(client.dashboard_link)}"
        with _logging_workers(client, logs):
            crew = AddressCrew(client, address, partial(say_and_log, progress))
            yield Workers(DaskExecutor(client), n_workers, text, logs, crew)


@contextmanager
def _logging_workers(client: Any, logs: Path | None) -> Iterator[None]:
    """Let the workers of somebody's scheduler write logs, as long as they are borrowed."""
    if logs is None:
        yield
        return
    plugin = log_plugin(logs, takes_stderr=False)
    register(client, plugin)
    try:
        yield
    finally:
        with suppress(OSError):  # workers or all of the cluster may be gone: their logs are closed
            if client.status == "running":
                client.unregister_worker_plugin(plugin.name)
        remove_empty_logs(logs)
