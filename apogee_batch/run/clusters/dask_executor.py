"""Tasks for the workers of a Dask scheduler, as futures of Python."""

import asyncio
import os
import socket
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

from apogee_batch.errors import set_place

LOGS_VARIABLE = "APOGEE_BATCH_LOGS"  # in jobs of a queue: the folder of what they print
JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "JOB_ID", "LSB_JOBID")
P = ParamSpec("P")
T = TypeVar("T")


class DaskExecutor(Executor):
    """Runs tasks on a cluster, each submission a task of its own, however it ends.

    The executor that Dask offers forgets a task whose worker dies before its result has come, if the next
    worker, who shall do it again, dies too: who waits for it then waits for ever.

    Parameters
    ----------
    client : distributed.Client
    worker : str, optional
        Address of the only worker that may run the tasks.
    """

    def __init__(self, client: Any, *, worker: str | None = None) -> None:
        self._client = client
        self.worker = worker

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See `Executor`; the task's error says in which job it happened."""
        call = partial(fn, *args, **kwargs)
        workers = None if self.worker is None else [self.worker]
        # pure: a repeated call would get the result of the first
        task = self._client.submit(tell_place, call, pure=False, workers=workers)
        handed: Future[T] = Future()
        handed.add_done_callback(partial(_cancel_too, task))
        self._client.loop.add_callback(_hand_over, task, handed)
        return handed


async def _hand_over(task: Any, handed: Future[Any]) -> None:
    """Give what becomes of a task to those who wait for it."""
    try:
        result = await task
    except (CancelledError, asyncio.CancelledError):
        handed.cancel()
        handed.set_running_or_notify_cancel()
    except BaseException as error:  # noqa: BLE001  whatever is not told would be waited for
        if handed.set_running_or_notify_cancel():
            handed.set_exception(error)
    else:
        if handed.set_running_or_notify_cancel():
            handed.set_result(result)


def _cancel_too(task: Any, handed: Future[Any]) -> None:
    if handed.cancelled() and not task.cancelled():
        task.cancel()


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
