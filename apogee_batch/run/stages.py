"""How any stage goes through its shards: a few in flight, each committed as it ends."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait

from apogee_batch.errors import ApogeeBatchError, IncompleteRunError
from apogee_batch.run.clusters import Workers
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
        What a task raised that a user can mend; IncompleteRunError, naming the shard, for anything else.
        Shards in flight are finished and committed first.
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
        shard, error = failure
        raise explain_failure(f"shard {shard}", error) from error


def explain_failure(what: str, error: BaseException) -> ApogeeBatchError:
    """Return what a user can mend as it is, anything else as an incomplete run that names what failed."""
    if isinstance(error, ApogeeBatchError):
        return error
    return IncompleteRunError(
        f"{what} failed ({type(error).__name__}: {error}); what was finished is kept: "
        "run the same command again to go on, with --cluster serial to see where it fails"
    )
