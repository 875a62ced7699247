"""What each worker process of a cluster does when it starts."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apogee_batch.errors import ClusterError
from apogee_batch.run.clusters.worker_logs import WorkerLog, remove_if_empty
from apogee_batch.run.computers import count_gpus

REGISTER_TRIES = 4
VISIBLE = "CUDA_VISIBLE_DEVICES"


def log_plugin(logs: Path, *, takes_stderr: bool) -> Any:
    """Return what opens a `WorkerLog` in each worker process, also in those that start later.

    Parameters
    ----------
    logs : Path
        Folder of the logs.
    takes_stderr : bool
        Whether the processes are this command's own: what they print goes to the log as well.
    """
    from distributed import WorkerPlugin

    class WorkerLogs(WorkerPlugin):  # type: ignore[misc]
        name = f"apogee-batch-logs-{os.getpid()}"

        def setup(self, worker: Any) -> None:
            if takes_stderr:  # a worker of our own: Ctrl-C at a terminal is for the driver, who tells it
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                self.log: WorkerLog | None = WorkerLog(logs, worker.id, takes_stderr=takes_stderr)
            except OSError:  # a host that does not see the folder: its workers work all the same
                self.log = None

        def teardown(self, worker: Any) -> None:  # noqa: ARG002  how Dask calls it
            if self.log is not None:
                self.log.close()

    return WorkerLogs()


def pin_plugin(gpus: Sequence[str]) -> Any:
    """Return what shows each worker process one GPU of its host, its own: torch takes the first it sees.

    Parameters
    ----------
    gpus : sequence of str
        What CUDA calls the GPUs of the host; empty: what the queue gave to the worker's job.
    """
    from distributed import WorkerPlugin

    class Pin(WorkerPlugin):  # type: ignore[misc]
        name = "apogee-batch-gpu"

        def setup(self, worker: Any) -> None:
            given = gpus or [gpu for gpu in os.environ.get(VISIBLE, "").split(",") if gpu]
            if len(given) > 1:
                os.environ[VISIBLE] = given[place_on_host(str(worker.name)) % len(given)]

    return Pin()


def place_on_host(worker: str) -> int:
    """Return which of its job's processes a worker is, by its name: 2 of "gpu7-2", 0 of "gpu7", 3 of "3"."""
    last = worker.rsplit("-", 1)[-1]
    return int(last) if last.isdecimal() else 0


def visible_gpus() -> list[str]:
    """Return what CUDA calls the GPUs that this process may use."""
    if VISIBLE in os.environ:
        return [gpu for gpu in os.environ[VISIBLE].split(",") if gpu]
    return [str(number) for number in range(count_gpus())]


def register(client: Any, plugin: Any) -> None:
    """Give a plugin to all workers, also where one dies meanwhile.

    Raises
    ------
    ClusterError
        If they cannot be reached.
    """
    for n_left in reversed(range(REGISTER_TRIES)):
        try:
            client.register_plugin(plugin)
            return
        except OSError as error:
            if not n_left:
                raise ClusterError(f"the workers cannot be told how to start: {error}") from error


def remove_empty_logs(logs: Path | None) -> None:
    """Remove what was left by workers that ended without a word, for example with their driver."""
    for log in [] if logs is None else logs.glob("worker-*.log"):
        remove_if_empty(log)
