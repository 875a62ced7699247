"""Tasks for the workers of a Dask scheduler, as futures of Python."""

import asyncio
import os
import socket
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

from apogee_batch.errors import ClusterError, set_place

LOOK_S = 10.0
MOST_LOOKS = 30  # counted, since a driver that stands still for a while sees nothing meanwhile
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
        handed: Future[T] = Future()
        if self._client.status in ("closing", "closed"):  # its scheduler is gone
            _cancel(handed)
            return handed
        call = partial(fn, *args, **kwargs)
        workers = None if self.worker is None else [self.worker]
        # pure: a repeated call would get the result of the first
        task = self._client.submit(tell_place, call, pure=False, workers=workers)
        handed.add_done_callback(partial(_cancel_too, task))
        self._client.loop.add_callback(_hand_over, task, handed)
        return handed


async def _hand_over(task: Any, handed: Future[Any]) -> None:
    """Give what becomes of a task to those who wait for it."""
    try:
        result = await _outcome(task)
    except asyncio.CancelledError:  # nobody will look any more
        _cancel(handed)
        raise
    except BaseException as error:  # noqa: BLE001  whatever is not told would be waited for
        if task.cancelled():
            _cancel(handed)
        elif handed.set_running_or_notify_cancel():
            handed.set_exception(error)
    else:
        if handed.set_running_or_notify_cancel():
            handed.set_result(result)
    finally:
        task.release()  # else an error holds its task, and that the error, as long as there is a client


async def _outcome(task: Any) -> Any:
    """Wait for the result of a task; one that is there but cannot be had is waited for 5 minutes.

    Raises
    ------
    ClusterError
        If it cannot be had. What the task raised comes as it is.
    """
    coming, n_looks = asyncio.ensure_future(task), 0
    while not coming.done():
        await asyncio.wait({coming}, timeout=LOOK_S)
        n_looks = n_looks + 1 if task.status == "finished" else 0
        if n_looks > MOST_LOOKS and not coming.done():
            coming.add_done_callback(lambda late: late.cancelled() or late.exception())  # nobody asks for it
            raise ClusterError(
                "a worker has finished a task, but could not be asked for its result for "
                f"{MOST_LOOKS * LOOK_S:.0f} s: this host must be able to connect to the workers' nodes; "
                "try --interface, or ask the site which ports its firewall leaves open"
            )
    return coming.result()


def _cancel(handed: Future[Any]) -> None:
    handed.cancel()
    handed.set_running_or_notify_cancel()  # wakes those who wait


def _cancel_too(task: Any, handed: Future[Any]) -> None:
    """Cancel the task of a future that was cancelled by whom it was handed to, not by its own end."""
    if handed.cancelled() and not task.cancelled() and not task.client.asynchronous:
        task.cancel()


def tell_place(call: Callable[[], T]) -> T:
    """Make a call; its error learns in which job that was, if in any."""
    try:
        return _whole(call)
    except Exception as error:
        job = next((os.environ[name] for name in JOB_VARIABLES if name in os.environ), None)
        if job is not None:
            logs = os.environ.get(LOGS_VARIABLE)
            log = "" if logs is None else f", log {logs}/job-{job}.log"
            set_place(error, f"on {socket.gethostname()}, job {job}{log}")
        raise


def _whole(call: Callable[[], T]) -> T:
    """Make a call whose error is nothing but an error: some would end the worker, or pass for a lost one."""
    try:
        return call()
    except (SystemExit, KeyboardInterrupt, CancelledError, asyncio.CancelledError) as error:
        raise RuntimeError(f"the task gave itself up: {error!r}") from error
