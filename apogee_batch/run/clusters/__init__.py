"""Where the work runs: this process, Dask workers on this machine, or the jobs of a queue.

The only package that knows Dask and dask-jobqueue. Stages see `Workers`: a `concurrent.futures.Executor`
and a crew that comes and goes; another kind of cluster is another branch of `open_workers`.
"""

from apogee_batch.run.clusters.deaths import describe_death, is_lost_cluster, is_lost_worker
from apogee_batch.run.clusters.opening import open_workers
from apogee_batch.run.clusters.workers import (
    Crew,
    SerialExecutor,
    Workers,
    available_cores,
    default_workers,
    is_leaving,
    no_more_than_needed,
    worker_address,
)

__all__ = [
    "Crew",
    "SerialExecutor",
    "Workers",
    "available_cores",
    "default_workers",
    "describe_death",
    "is_leaving",
    "is_lost_cluster",
    "is_lost_worker",
    "no_more_than_needed",
    "open_workers",
    "worker_address",
]
