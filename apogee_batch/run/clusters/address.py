"""Workers of a Dask scheduler that somebody else started."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from apogee_batch.errors import ClusterError, UsageError
from apogee_batch.run.clusters.dask_crew import DaskCrew, dashboard_text
from apogee_batch.run.clusters.dask_executor import DaskExecutor
from apogee_batch.run.clusters.plugins import log_plugin, register, remove_empty_logs
from apogee_batch.run.clusters.workers import Workers

CONNECT_TIMEOUT_S = 30


@contextmanager
def dask_at_address(address: str | None, logs: Path | None) -> Iterator[Workers]:
    """Workers of a scheduler that somebody else started.

    Parameters
    ----------
    address : str or None
        Of the scheduler.
    logs : Path, optional
        Folder for a log of each worker process.

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
            yield Workers(DaskExecutor(client), n_workers, text, logs, DaskCrew(client))


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
