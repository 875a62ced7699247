"""What a stage sees of a cluster: an executor, and a crew of worker processes that comes and goes."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from apogee_batch.run.computers import count_gpus
from apogee_batch.run.config import ClusterSettings, Device

P = ParamSpec("P")
T = TypeVar("T")
TASKS_OF_A_GPU = 2  # one keeps it busy while the other checks and reads its shard, or writes its part


class Crew:
    """The worker processes of a cluster; those of this one are always there."""

    def ask(self, n_workers: int | None) -> None:
        """Want so many worker processes from now on.

        Parameters
        ----------
        n_workers : int or None
            None: as many as the settings say; 0: give all back.
        """

    def dismiss(self) -> None:
        """Let all worker processes go, while this one goes on: there will be no task any more."""
        self.ask(0)

    def count(self) -> int | None:
        """Return how many worker processes there are now; None: as many as were said to be."""
        return None

    def check(self) -> None:
        """Raise what makes waiting for workers useless; whoever waits for a task calls it now and then.

        Raises
        ------
        ClusterError
            If the workers are gone for good.
        """

    def longest_task_s(self) -> float | None:
        """Return how long a task should take at most, since workers leave after a time; None: they stay."""
        return None

    def note_task(self, seconds: float) -> None:
        """Learn how long a task took."""

    def is_taken_away(self, error: BaseException) -> bool | None:  # noqa: ARG002  for crews that know
        """Tell whether a worker that was lost had been taken away, so that its task is not to blame.

        Parameters
        ----------
        error : BaseException
            One that `is_lost_worker` knows.

        Returns
        -------
        bool or None
            None: it cannot be told yet; ask again in a second.
        """
        return False

    def describe_loss(self, error: BaseException) -> str | None:  # noqa: ARG002  for crews that know
        """Say where a worker was that was lost; None: nothing is known beyond what Dask says."""
        return None

    def places(self, n_places: int) -> Sequence[Executor]:
        """Return executors that each stand for a worker of its own, once there are so many.

        Parameters
        ----------
        n_places : int
            How many.

        Raises
        ------
        ClusterError
            If so many cannot be had.
        """
        return [ThreadPoolExecutor(1) for _ in range(n_places)]

    def is_there(self, place: Executor) -> bool:  # noqa: ARG002  for crews that know
        """Tell whether the worker of a place, one that `places` returned, is still there.

        Dask keeps a task for a worker that has left, however long it takes for that to come again.
        """
        return True


FIXED = Crew()


@dataclass(frozen=True)
class Workers:
    """What runs the tasks of a stage.

    Attributes
    ----------
    executor : Executor
        Takes tasks; their arguments are paths and numbers.
    n_workers : int
        Tasks that run at the same time when all workers are there.
    description : str
        For people: what and how many.
    logs : Path, optional
        Where the workers write their logs.
    crew : Crew, optional
        The worker processes behind the executor.
    """

    executor: Executor
    n_workers: int
    description: str
    logs: Path | None = None
    crew: Crew = FIXED

    def n_now(self) -> int:
        """Return how many tasks run at the same time now, and 1 where all workers are still to come."""
        count = self.crew.count()
        return self.n_workers if count is None else max(1, count)


class SerialExecutor(Executor):
    """Run each task at once, in this process: for tests, debuggers and a failing shard."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` now; its result or its exception is in the future that is returned."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  an executor hands every error to whoever asks for the result
            future.set_exception(error)
        return future


def available_cores() -> int:
    """Return the cores that this process may use, which on a cluster node are not all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_workers(device: Device) -> int:
    """Return how many local processes fit a device: one a core, or one a GPU where torch sees some."""
    n_gpus = 0 if device == "cpu" else count_gpus()
    return n_gpus or available_cores()


def tasks_each(device: Device) -> int:
    """Return how many tasks a local process does at the same time."""
    return TASKS_OF_A_GPU if device != "cpu" and count_gpus() else 1


def no_more_than_needed(cluster: ClusterSettings, n_tasks: int) -> ClusterSettings:
    """Return the settings for so many tasks: a local worker without one would start for nothing."""
    if cluster.kind != "local":
        return cluster
    wanted = cluster.workers or default_workers(cluster.device)
    return cluster.model_copy(update={"workers": max(1, min(wanted, n_tasks))})


def worker_address() -> str:
    """Return the address at which others reach the host of the Dask worker that runs the calling task."""
    from distributed import get_worker

    try:
        worker = get_worker()
    except ValueError:  # no task of Dask: all of the cluster is this process
        return "127.0.0.1"
    return str(worker.address).split("://")[-1].rsplit(":", 1)[0].strip("[]")


def is_leaving() -> bool:
    """Tell whether the Dask worker that runs the calling task leaves, so that another does the task again."""
    from distributed import get_worker

    try:
        worker = get_worker()
    except ValueError:  # no task of Dask
        return False
    return str(worker.status.name).startswith(("clos", "fail"))
