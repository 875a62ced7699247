"""A Dask scheduler and a worker that are threads of this process, for libraries that insist on a client."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from apogee_batch.errors import ClusterError
from apogee_batch.run.clusters.dask_policy import SELDOM
from apogee_batch.run.clusters.scratch import private_scratch

_POLICY: dict[str, object] = {
    **SELDOM,
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


@contextmanager
def in_process_dask() -> Iterator[Any]:
    """Give a client whose tasks run one after the other in a thread of this process.

    Messages go through queues in memory, so that nobody else can send a task. Dask cannot do without a web
    server: it listens on 127.0.0.1 only, with neither a dashboard nor any other page about the work.

    Yields
    ------
    distributed.Client

    Raises
    ------
    ClusterError
        If they cannot be started.
    """
    import dask
    from distributed import Client

    with dask.config.set(_POLICY), private_scratch(), _cluster() as cluster, Client(cluster) as client:
        yield client


def _cluster() -> Any:
    from distributed import Scheduler, SpecCluster, Worker

    # LocalCluster leaves its web servers open to other hosts where it is told to have no dashboard.
    inside = {"protocol": "inproc://", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    try:
        with warnings.catch_warnings():
            # of a machine without a network, whose address nobody needs
            warnings.filterwarnings("ignore", message="Couldn't detect a suitable IP address")
            return SpecCluster(
                scheduler={"cls": Scheduler, "options": inside},
                workers={0: {"cls": Worker, "options": {**inside, "nthreads": 1, "memory_limit": 0}}},
                silence_logs="CRITICAL",  # what goes wrong is raised, once
            )
    except (OSError, RuntimeError, TimeoutError) as error:
        raise ClusterError(f"no Dask in this process: {error}") from error
