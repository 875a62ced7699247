"""A training by several ranks, each on a worker of its own: all of them, or all again.

Whatever happens to a rank, its process or its node, the attempt ends for all; the next one goes on from the
last epoch that was saved, with workers that are there. As an epoch's random numbers follow from its number,
the weights in the end are those of a training that nothing disturbed.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from apogee_batch.errors import IncompleteRunError
from apogee_batch.network.metrics import METRICS_FILE, read_metrics
from apogee_batch.run.attempts import (
    GOES_ON,
    MAX_TAKEN_AWAY,
    error_of,
    raise_failure,
    warn,
    was_taken_away,
)
from apogee_batch.run.clusters import Crew, Workers, describe_death, is_lost_cluster, is_lost_worker
from apogee_batch.run.config import ClusterSettings
from apogee_batch.run.gang.spec import GANG, GangSpec, attempt_folder, new_attempt
from apogee_batch.run.gang.task import RankLostError, run_rank
from apogee_batch.run.progress import ProgressView

MAX_ATTEMPTS = 3  # that finish no epoch
END_S = 15.0  # for ranks to end once one of them has
LEAVE_S = 4.0  # the same when the driver itself is told to end
LOOK_S = 5.0  # how often it is seen whether the workers are still there
CAUSES = ("failed", "killed", "frozen", "left", "alone", "given up")  # from the most telling one
Follow = Callable[[Future[Any]], None]


def train_together(
    store: Path,
    out: Path,
    plan: dict[str, Any],
    settings: ClusterSettings,
    workers: Workers,
    progress: ProgressView,
    *,
    follow: Follow,
) -> None:
    """Train with as many ranks as the plan says, until the model is there.

    Parameters
    ----------
    store, out : Path
        A store with labels; folder for the model.
    plan : dict
        Of the training.
    settings : ClusterSettings
        Device, and how long a rank may be silent.
    workers : Workers
        Where the ranks run.
    progress : ProgressView
        Told when ranks are lost.
    follow : callable
        Called with a future for each attempt, which is done when the first rank has ended or any was lost;
        returns then.

    Raises
    ------
    IncompleteRunError
        If ranks are lost again and again.
    ClusterError
        If so many workers cannot be had.
    """
    n_attempts = n_taken = 0
    n_epochs = _count_epochs(out)
    try:
        while True:
            shutil.rmtree(out / GANG, ignore_errors=True)  # also what a driver that was killed has left
            error = _attempt(store, out, plan, settings, workers, follow)
            if error is None:
                return
            loss = _describe(workers, error)
            before, n_epochs = n_epochs, _count_epochs(out)
            if n_epochs > before:
                n_attempts = n_taken = 0
            if n_taken < MAX_TAKEN_AWAY and _is_nobodys_fault(workers, error):
                n_taken += 1
            else:
                n_attempts += 1
            if n_attempts == MAX_ATTEMPTS:
                _give_up(loss, error)
            warn(progress, f"the training: {loss}; all ranks go on from epoch {n_epochs}")
    finally:
        shutil.rmtree(out / GANG, ignore_errors=True)


def _count_epochs(out: Path) -> int:
    return len(read_metrics(out / METRICS_FILE))


def _attempt(
    store: Path, out: Path, plan: dict[str, Any], settings: ClusterSettings, workers: Workers, follow: Follow
) -> BaseException | None:
    """Let all ranks train; return what lost one of them."""
    n_ranks = plan["workers"]
    workers.crew.ask(n_ranks)
    places = workers.crew.places(n_ranks)
    with _new_spec(store, out, plan, settings) as spec:
        path = str(spec.write())
        futures = [place.submit(run_rank, path, rank) for rank, place in enumerate(places)]
        end_s = LEAVE_S
        try:
            with _first_end(futures, places, workers.crew) as ended:
                follow(ended)
            end_s = END_S
        finally:
            _end_all(spec, futures, places, end_s)
    return _find_loss(futures, ended.result())


@contextmanager
def _new_spec(store: Path, out: Path, plan: dict[str, Any], settings: ClusterSettings) -> Iterator[GangSpec]:
    """Make the folder of an attempt, with keys of its own, and clear it away."""
    from apogee_batch.run.clusters.keys import run_keys

    attempt = new_attempt()
    folder = attempt_folder(out, attempt)
    folder.mkdir(parents=True)
    with run_keys(folder / "keys") as keys:
        yield GangSpec(
            attempt=attempt,
            store=str(store),
            model=str(out),
            recipe=plan["recipe"],
            seed=plan["seed"],
            threads=plan["threads"],
            device=settings.device,
            n_ranks=plan["workers"],
            stall_s=settings.frozen_after_s,
            ca_file=str(keys.ca_file),
            cert=str(keys.cert),
            key=str(keys.key),
        )


@contextmanager
def _first_end(
    futures: Sequence[Future[None]], places: Sequence[Executor], crew: Crew
) -> Iterator[Future[RankLostError | None]]:
    """Give a future that is done when the first rank has ended, or any was lost.

    Its result is a loss that no rank can tell: a task that waits for a worker which has left never ends.
    """
    ended, lock, over = Future[RankLostError | None](), Lock(), Event()

    def end(loss: RankLostError | None = None) -> None:
        with lock:
            if not ended.done():
                ended.set_result(loss)

    def look(future: Future[None]) -> None:
        if future is futures[0] or error_of(future) is not None:
            end()

    def watch() -> None:
        before = set[int]()
        while not over.wait(LOOK_S):
            with suppress(OSError):  # the scheduler is busy
                gone = {
                    i for i, future in enumerate(futures) if not (future.done() or crew.is_there(places[i]))
                }
                if again := gone & before:  # else Dask may be about to tell more of it
                    end(RankLostError(min(again), "a worker that has left", "left", "was lost with it"))
                before = gone

    for future in futures:
        future.add_done_callback(look)
    watcher = Thread(target=watch, name="ranks", daemon=True)
    watcher.start()
    try:
        yield ended
    finally:
        over.set()
        watcher.join(LOOK_S)


def _end_all(
    spec: GangSpec, futures: Sequence[Future[None]], places: Sequence[Executor], end_s: float
) -> None:
    """See that no rank of an attempt is left, as far as their workers can still be told."""
    if not (futures[0].done() and error_of(futures[0]) is None and not wait(futures, timeout=end_s).not_done):
        spec.give_up()
        for future in wait(futures, timeout=end_s).not_done:
            future.cancel()
    for place in places:
        place.shutdown(wait=False)


def _find_loss(futures: Sequence[Future[None]], seen: RankLostError | None) -> BaseException | None:
    """Return the most telling of the losses; None where the first rank, which writes the model, ended well.

    An error that is no loss is raised. A task that was cancelled because its worker is gone tells less than
    what the other ranks say.
    """
    if futures[0].done() and error_of(futures[0]) is None:
        return None
    found = [error for future in futures if future.done() and (error := error_of(future)) is not None]
    losses = [error for error in found if isinstance(error, RankLostError) or is_lost_worker(error)]
    losses += [] if seen is None else [seen]
    for error in found:
        if error not in losses and not (losses and is_lost_cluster(error)):
            raise_failure("the training", error)
    return min(losses, key=_rank_of_cause)


def _is_nobodys_fault(workers: Workers, error: BaseException) -> bool:
    """Tell whether a worker was taken away, or left because its time was over."""
    if isinstance(error, RankLostError):
        return error.cause == "left"
    return was_taken_away(workers, error)


def _rank_of_cause(error: BaseException) -> int:
    return CAUSES.index(error.cause) if isinstance(error, RankLostError) else -1


def _describe(workers: Workers, error: BaseException) -> str:
    return describe_death(workers, error) if is_lost_worker(error) else str(error)


def _give_up(loss: str, error: BaseException) -> None:
    """Raise what ends a training whose ranks are lost again and again."""
    if isinstance(error, RankLostError) and error.cause == "failed":
        raise error
    raise IncompleteRunError(
        f"the training: {loss}; {MAX_ATTEMPTS} attempts in a row have finished no epoch; {GOES_ON}"
    ) from error
