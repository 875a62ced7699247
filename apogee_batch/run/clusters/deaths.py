"""How the end of a worker, or of all of them, shows in the error of a task."""

from concurrent.futures import BrokenExecutor, CancelledError
from typing import Any

from apogee_batch.run.clusters.worker_logs import describe_end, find_log, host_of_log
from apogee_batch.run.clusters.workers import Workers


def is_lost_worker(error: BaseException) -> bool:
    """Tell whether a task ended because its worker died; others go on, so it can be tried again."""
    return _is_of_dask(error) and type(error).__name__ == "KilledWorker"


def is_lost_cluster(error: BaseException) -> bool:
    """Tell whether a task ended because nothing is there any more to run tasks."""
    return isinstance(error, CancelledError | BrokenExecutor) or (
        _is_of_dask(error) and not is_lost_worker(error)
    )


def _is_of_dask(error: BaseException) -> bool:
    return type(error).__module__.startswith("distributed.")


def describe_death(workers: Workers, error: BaseException) -> str:
    """Say where a lost worker was and what most likely ended it, of an error that `is_lost_worker` knows."""
    told = workers.crew.describe_loss(error)
    worker: Any = error.args[1]  # the scheduler's last state of it
    log = None if workers.logs is None else find_log(workers.logs, worker.server_id)
    if told is not None:
        return told if log is None else f"{told}, {describe_end(log)}"
    host = worker.host if log is None else host_of_log(log)
    return f"its worker on {host} died, {describe_end(log)}"
