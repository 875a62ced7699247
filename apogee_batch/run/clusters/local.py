"""Dask workers on this machine."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from apogee_batch.errors import ClusterError
from apogee_batch.run.clusters.dask_crew import DaskCrew, dashboard_text
from apogee_batch.run.clusters.dask_executor import DaskExecutor
from apogee_batch.run.clusters.dask_policy import OF_WORKERS, SELDOM, SILENT, as_environment
from apogee_batch.run.clusters.keys import security_in_memory
from apogee_batch.run.clusters.plugins import (
    log_plugin,
    pin_plugin,
    register,
    remove_empty_logs,
    visible_gpus,
)
from apogee_batch.run.clusters.refill import Refill
from apogee_batch.run.clusters.scratch import private_scratch
from apogee_batch.run.clusters.standstill import forgive_standstill
from apogee_batch.run.clusters.workers import Workers

# A worker that is stopped in a task leaves semaphores, which Python cleans up and warns about.
UNWARNED = {"PYTHONWARNINGS": "ignore:resource_tracker"}
NO_WORKERS_TIMEOUT = "5 minutes"  # a worker that imports torch from a busy file system needs one or two


class LocalCrew(DaskCrew):
    """Workers that are processes of this command.

    Parameters
    ----------
    client : distributed.Client
    refill : Refill
        Keeps them at their number.
    """

    def __init__(self, client: Any, refill: Refill) -> None:
        super().__init__(client)
        self._refill = refill

    def dismiss(self) -> None:
        """See `Crew`; a process that knows torch takes most of a second to end."""
        self._refill.let_go()


@contextmanager
def local_dask(n_workers: int, logs: Path | None, *, tasks_each: int = 1) -> Iterator[Workers]:
    """One process a core, or a GPU; nothing listens outside this machine.

    Other users of it can reach what listens, so the processes know each other by a TLS key, which is in no
    file that stays.

    Parameters
    ----------
    n_workers : int
        How many processes.
    logs : Path, optional
        Folder for a log of each.
    tasks_each : int
        Tasks that a process does at the same time.

    Raises
    ------
    ClusterError
        If they cannot be started.
    """
    import dask
    from distributed import Client

    cluster = _empty_cluster(tasks_each)
    text = f"{n_workers} local worker{'s' * (n_workers > 1)}{dashboard_text(cluster.dashboard_link)}"
    try:
        with (
            dask.config.set(OF_WORKERS),  # a worker has what this process has when it starts
            _inherited({**as_environment(SILENT), **UNWARNED}),
            private_scratch(),
            cluster,
            Client(cluster) as client,
            _silent_when_interrupted(),
        ):
            forgive_standstill(cluster.scheduler)
            refill = Refill(cluster, n_workers)
            refill.start_all()
            with refill.from_time_to_time():
                register(client, pin_plugin(visible_gpus()))
                if logs is not None:
                    register(client, log_plugin(logs, takes_stderr=True))
                yield Workers(DaskExecutor(client), n_workers, text, logs, LocalCrew(client, refill))
    finally:
        logging.disable(logging.NOTSET)
        remove_empty_logs(logs)


@contextmanager
def _inherited(variables: Mapping[str, str]) -> Iterator[None]:
    """Let the processes that start meanwhile have more variables; those that the user has set stay."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _empty_cluster(tasks_each: int) -> Any:
    """Start a scheduler in this process."""
    import dask
    from distributed import LocalCluster
    from distributed.system import MEMORY_LIMIT

    policy = {  # each death is told to the driver, which counts them; a cluster without workers is, too
        **SELDOM,
        "distributed.scheduler.allowed-failures": 0,
        "distributed.scheduler.no-workers-timeout": NO_WORKERS_TIMEOUT,
    }
    try:
        with dask.config.set(policy), private_scratch():
            return LocalCluster(
                n_workers=0,  # they are started by `Refill`
                threads_per_worker=tasks_each,
                processes=True,
                host="127.0.0.1",
                protocol="tls://",
                security=security_in_memory(),
                dashboard_address="127.0.0.1:0",  # a free port: the default is often taken
                memory_limit=MEMORY_LIMIT,  # the share of one in n would kill the worker that trains
                silence_logs="CRITICAL",  # what ends a task is told by the driver, once
            )
    except (OSError, RuntimeError, TimeoutError) as error:
        raise ClusterError(f"no local Dask cluster: {error}; try --cluster serial") from error


@contextmanager
def _silent_when_interrupted() -> Iterator[None]:
    """Leave the last word to what ends the block: workers stopped in a task log lost connections."""
    try:
        yield
    except BaseException:
        logging.disable(logging.CRITICAL)
        raise
