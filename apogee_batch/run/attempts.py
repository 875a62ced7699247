"""How often a task is tried whose worker dies, and what the end of a task means for the user."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ALL_COMPLETED, CancelledError, Future, wait
from typing import NoReturn, TypeVar

from apogee_batch.errors import ApogeeBatchError, IncompleteRunError
from apogee_batch.run.clusters import Workers, describe_death, is_lost_cluster, is_lost_worker
from apogee_batch.run.progress import SAID, ProgressView

MAX_DEATHS = 3  # tried again at most twice
GOES_ON = "what was finished is kept, the same command goes on"
MAX_TAKEN_AWAY = 20  # in a row, from one task that gets no further
POLL_S = 1.0
T = TypeVar("T")
logger = logging.getLogger(__name__)


def run_alone(
    workers: Workers,
    call: Callable[[], T],
    what: str,
    progress: ProgressView,
    *,
    follow: Callable[[Future[T]], None] | None = None,
    count_done: Callable[[], int] = lambda: 0,
) -> T:
    """Run one task, again when its worker dies, and return what it returns.

    Parameters
    ----------
    workers : Workers
        One of them runs it.
    call : callable
        The task; a partial of paths and numbers. It goes on by itself where an earlier attempt stopped.
    what : str
        What it is, for messages.
    progress : ProgressView
        Told when it is tried again.
    follow : callable, optional
        Called with the future of each attempt, to show how it goes; returns when the future is done.
    count_done : callable, optional
        Tells how far it is. As long as it gets on, workers may be taken away from it as often as they are.

    Raises
    ------
    IncompleteRunError
        If it ended as many workers as it may, if too many were taken away in a row and it got no further, or
        if all are gone. What the task raises comes as it is.
    """
    n_deaths = n_taken = 0
    n_done = count_done()
    while True:
        future = workers.executor.submit(call)
        if follow is not None:
            follow(future)
        wait_for(workers, [future])
        error = error_of(future)
        if error is None:
            return future.result()
        if not is_lost_worker(error):
            raise_failure(what, error)
        death = describe_death(workers, error)
        if was_taken_away(workers, error):
            before, n_done = n_done, count_done()
            n_taken = 1 if n_done > before else n_taken + 1
            if n_taken > MAX_TAKEN_AWAY:
                raise IncompleteRunError(
                    f"{what}: {death}; {n_taken} workers in a row were taken away before it got any further: "
                    f"ask for a longer --walltime, or for a partition that is not preempted; {GOES_ON}"
                ) from error
            warn(progress, f"{what}: {death}; it goes on in another one")
            continue
        n_deaths += 1
        if n_deaths == MAX_DEATHS:
            raise IncompleteRunError(
                f"{what}: {death}; it has ended {n_deaths} workers: give it more memory or another node; "
                f"{GOES_ON}"
            ) from error
        warn(progress, f"{what}: {death}; it is tried again")


def wait_for(
    workers: Workers, futures: Sequence[Future[T]], return_when: str = ALL_COMPLETED
) -> Sequence[Future[T]]:
    """Wait for tasks as long as there are workers for them; return those that are done.

    Parameters
    ----------
    workers : Workers
        Where they run.
    futures : sequence of Future
        The tasks.
    return_when : str
        As for `concurrent.futures.wait`. For the first of them it is waited a second at most, since more
        workers may have come meanwhile.

    Raises
    ------
    ClusterError
        If the workers are gone for good.
    """
    while True:
        done, others = wait(futures, timeout=POLL_S, return_when=return_when)
        if not others or return_when != ALL_COMPLETED:
            if not done:
                workers.crew.check()
            if not futures:
                time.sleep(POLL_S)
            return [future for future in futures if future in done]
        workers.crew.check()


def was_taken_away(workers: Workers, error: BaseException) -> bool:
    """Wait until it can be told whether a lost worker had been taken away; see `Crew.is_taken_away`."""
    while (is_taken := workers.crew.is_taken_away(error)) is None:
        workers.crew.check()
        time.sleep(POLL_S)
    return is_taken


def warn(progress: ProgressView, text: str) -> None:
    """Tell the user and the run's log."""
    logger.warning("%s", text, extra=SAID)
    progress.say(f"WARNING: {text}")


def error_of(future: Future[T]) -> BaseException | None:
    """Return the error of a future that is done; a cancelled one would raise it."""
    return CancelledError() if future.cancelled() else future.exception()


def raise_failure(what: str, error: BaseException) -> NoReturn:
    """Raise what ended a task: lost workers as a run to resume, anything else as it is.

    Parameters
    ----------
    what : str
        What was worked on.
    error : BaseException
        What the task's future holds.

    Raises
    ------
    IncompleteRunError
        If there are no workers any more; nothing is wrong with the program then.
    """
    if is_lost_cluster(error):
        raise IncompleteRunError(
            f"{what}: its workers were lost ({type(error).__name__}), as when a job ends; {GOES_ON}"
        ) from error
    if not isinstance(error, ApogeeBatchError):
        error.add_note(f"in {what}; what was finished is kept")
    raise error
