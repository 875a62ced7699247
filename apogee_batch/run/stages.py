"""How any stage goes through its shards: a few in flight, each committed as it ends."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import NoReturn

from apogee_batch.errors import ApogeeBatchError, IncompleteRunError
from apogee_batch.run.clusters import Workers, is_lost_worker
from apogee_batch.run.ledger import Ledger, ShardReport
from apogee_batch.run.progress import ProgressView

IN_FLIGHT_PER_WORKER = (
    2  # one at work, one waiting; holding more costs the scheduler memory and gains nothing
)


def run_shards(
    workers: Workers,
    task: Callable[[int], ShardReport],
    shards: Sequence[int],
    ledger: Ledger,
    progress: ProgressView,
) -> None:
    """Run a task for each shard and commit each result when it comes.

    Parameters
    ----------
    workers : Workers
        Where tasks run.
    task : callable
        Takes the number of a shard; carries paths and numbers only.
    shards : sequence of int
        What is left to do.
    ledger : Ledger
        Gets an entry for each shard.
    progress : ProgressView
        Advanced by the inputs of each shard.

    Raises
    ------
    ApogeeBatchError
        What a task raised that a user can mend, or IncompleteRunError where a worker was lost. Shards in
        flight are finished and committed first. A bug keeps its own type and traceback.
    """
    waiting, in_flight = deque(shards), dict[Future[ShardReport], int]()
    failure: tuple[int, BaseException] | None = None
    while in_flight or (waiting and failure is None):
        while waiting and failure is None and len(in_flight) < IN_FLIGHT_PER_WORKER * workers.n_workers:
            shard = waiting.popleft()
            in_flight[workers.executor.submit(task, shard)] = shard
            if workers.n_workers == 1 and next(iter(in_flight)).done():
                break  # the serial executor has finished it already: commit before the next one begins
        finished, _ = wait(in_flight, return_when=FIRST_COMPLETED)
        for future in finished:
            shard = in_flight.pop(future)
            error = future.exception()
            if error is not None:
                failure = failure or (shard, error)
                continue
            report = future.result()
            ledger.commit(report)
            progress.advance(report.n_inputs)
    if failure is not None:
        raise_failure(f"shard {failure[0]}", failure[1])


def raise_failure(what: str, error: BaseException) -> NoReturn:
    """Raise what ended a task: a lost worker as a run to resume, anything else as it is.

    Parameters
    ----------
    what : str
        What was worked on.
    error : BaseException
        What the task's future holds.

    Raises
    ------
    IncompleteRunError
        If the worker was lost; nothing is wrong with the program then.
    """
    if is_lost_worker(error):
        raise IncompleteRunError(
            f"{what}: its worker was lost ({type(error).__name__}), as when memory runs out or a job ends; "
            "what was finished is kept, the same command goes on"
        ) from error
    if not isinstance(error, ApogeeBatchError):
        error.add_note(f"in {what}; what was finished is kept")
    raise error
