"""How any stage goes through its shards: a few in flight, each committed as it ends.

A shard whose worker dies is tried again; one that keeps killing its workers is taken apart, so that it
loses the inputs that do it and nothing else.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future
from typing import Protocol

from apogee_batch.errors import IncompleteRunError
from apogee_batch.run.attempts import (
    GOES_ON,
    MAX_DEATHS,
    error_of,
    raise_failure,
    wait_for,
    warn,
    was_taken_away,
)
from apogee_batch.run.clusters import Workers, describe_death, is_lost_worker
from apogee_batch.run.deadly import MAX_DEADLY, find_deadly
from apogee_batch.run.ledger import Ledger, ShardReport
from apogee_batch.run.progress import Facts, ProgressView, show_facts
from apogee_batch.run.stalls import StallWatch

IN_FLIGHT_PER_WORKER = (
    2  # one at work, one waiting; holding more costs the scheduler memory and gains nothing
)
MAX_TAKEN_AWAY = 10  # workers of one shard that a queue may take away before it is left for the next time
MAX_SUSPECTS = 4  # more of them are soon looked into: something may be wrong with every shard
logger = logging.getLogger(__name__)


class ShardTask(Protocol):
    """What a stage does for one shard; carries paths and numbers only."""

    def __call__(
        self, shard: int, *, excluded: Sequence[int] = (), only: Sequence[int] | None = None
    ) -> ShardReport:
        """Do the work of a shard.

        Parameters
        ----------
        shard : int
            The shard.
        excluded : sequence of int
            Positions of inputs in the shard that are not touched, and recorded as WORKER_KILLED.
        only : sequence of int, optional
            A rehearsal: the same work for the inputs at these positions, and nothing is written.
        """


OnReport = Callable[[ShardReport], None]


def run_shards(
    workers: Workers,
    task: ShardTask,
    sizes: Mapping[int, int],
    ledger: Ledger,
    progress: ProgressView,
    *,
    on_report: OnReport | None = None,
) -> None:
    """Run a task for each shard and commit each result when it comes.

    Dask blames a dead worker's end on every task that was on its list. So a shard is tried again among others
    once, then with nothing beside it; when it ends that worker too, the inputs that do so are found and left
    out.

    Parameters
    ----------
    workers : Workers
        Where tasks run.
    task : ShardTask
        The work.
    sizes : Mapping of int to int
        What is left to do, in order: number of a shard -> number of its inputs.
    ledger : Ledger
        Gets an entry for each shard.
    progress : ProgressView
        Advanced by the inputs of each shard.
    on_report : callable, optional
        Called after each commit; an error that it raises ends the stage like that of a task.

    Raises
    ------
    ApogeeBatchError
        What a task or `on_report` raised that a user can mend, or IncompleteRunError where workers keep dying
        or are gone. Shards in flight are finished and committed first. A bug keeps its type and traceback.
    """
    _Stage(workers, task, sizes, ledger, progress, on_report).run()


class _Stage:
    """The shards of a stage on their way; for the arguments see `run_shards`."""

    def __init__(
        self,
        workers: Workers,
        task: ShardTask,
        sizes: Mapping[int, int],
        ledger: Ledger,
        progress: ProgressView,
        on_report: OnReport | None,
    ) -> None:
        self._workers, self._task, self._sizes = workers, task, sizes
        self._ledger, self._progress, self._on_report = ledger, progress, on_report
        self._waiting = deque(sizes)
        self._suspects = deque[int]()  # ended two workers, perhaps as bystanders: wait to run alone
        self._in_flight = dict[Future[ShardReport], int]()
        self._lost = list[tuple[int, BaseException]]()  # with their worker, and nobody knows yet whose fault
        self._deaths, self._n_taken = Counter[int](), Counter[int]()
        self._left = dict[int, str]()  # shards that are not tried any more now -> why
        self._longest_s = 0.0
        self._stalls = StallWatch(progress.say)
        self._failure: tuple[int, BaseException] | None = None

    def run(self) -> None:
        # Now, since this may wait long for the first: jobs stand in a queue.
        show_facts(self._progress, Facts(workers=self._workers.crew.count(), wanted=self._workers.n_workers))
        self._workers.crew.ask(len(self._waiting))
        while True:
            self._submit()
            if self._in_flight or self._lost:
                self._collect()
            elif self._suspects and self._failure is None:
                self._run_suspect(self._suspects.popleft())
            else:
                break
        if self._failure is not None:
            raise_failure(f"shard {self._failure[0]}", self._failure[1])
        if self._left:
            raise IncompleteRunError(_never_finished(self._left))

    def _submit(self) -> None:
        """Keep the workers busy, as long as nothing failed and not too much is suspect."""
        limit = IN_FLIGHT_PER_WORKER * self._workers.n_now()
        while (
            self._waiting
            and self._failure is None
            and len(self._suspects) < MAX_SUSPECTS
            and len(self._in_flight) < limit
        ):
            shard = self._waiting.popleft()
            self._in_flight[self._workers.executor.submit(self._task, shard)] = shard
            if self._workers.n_workers == 1 and next(iter(self._in_flight)).done():
                break  # the serial executor has finished it already: commit before the next one begins

    def _collect(self) -> None:
        """Wait a little for tasks to end, and judge those that did."""
        if not self._waiting and self._failure is None:  # the last ones: not all workers are needed
            self._workers.crew.ask(len(self._in_flight) + len(self._lost) + len(self._suspects))
        for future in wait_for(self._workers, list(self._in_flight), FIRST_COMPLETED):
            shard = self._in_flight.pop(future)
            error = error_of(future)
            if error is None:
                self._commit(future.result())
            elif is_lost_worker(error):
                self._lost.append((shard, error))
            else:
                self._failure = self._failure or (shard, error)
        count = self._workers.crew.count()
        n_now = self._workers.n_workers if count is None else count
        show_facts(self._progress, Facts(workers=n_now, wanted=self._workers.n_workers))
        self._stalls.look(self._in_flight.values(), n_now)
        lost, self._lost = self._lost, []
        for shard, error in lost:
            self._judge_loss(shard, error)

    def _judge_loss(self, shard: int, error: BaseException) -> None:
        """Find out whether a worker was taken away or died of its shard."""
        is_taken = self._workers.crew.is_taken_away(error)
        if is_taken is None:
            self._lost.append((shard, error))
        elif is_taken and self._n_taken[shard] == MAX_TAKEN_AWAY:
            self._left[shard] = describe_death(self._workers, error)
        elif is_taken:
            self._n_taken[shard] += 1
            self._waiting.appendleft(shard)
            logger.info("shard %d: %s; it is done again", shard, describe_death(self._workers, error))
        else:
            self._count_death(shard, error)

    def _commit(self, report: ShardReport) -> None:
        self._ledger.commit(report)
        self._progress.advance(report.n_inputs)
        self._note_time(report)
        self._stalls.note_end()
        if self._on_report is not None:
            try:
                self._on_report(report)
            except Exception as error:  # noqa: BLE001  ends the stage as the error of a task does
                self._failure = self._failure or (report.shard, error)

    def _note_time(self, report: ShardReport) -> None:
        """Learn how long shards take; warn when a worker's time is hardly enough for one."""
        self._workers.crew.note_task(report.seconds)
        bound = self._workers.crew.longest_task_s()
        if bound is not None and report.seconds > bound >= self._longest_s:
            warn(
                self._progress,
                f"shard {report.shard} took {report.seconds:.0f} s on {report.host}, over a quarter of the "
                "walltime of its job: what a job has in hand when its time ends is done again; ask for a "
                "longer --walltime, or ingest with a smaller --shard-stars",
            )
        self._longest_s = max(self._longest_s, report.seconds)

    def _count_death(self, shard: int, error: BaseException) -> None:
        self._deaths[shard] += 1
        is_suspect = self._deaths[shard] == MAX_DEATHS - 1
        (self._suspects if is_suspect else self._waiting).append(shard)
        then = "it is tried again alone, after the others" if is_suspect else "it is tried again"
        warn(self._progress, f"shard {shard}: {describe_death(self._workers, error)}; {then}")

    def _run_suspect(self, shard: int) -> None:
        """Run a shard with nothing beside it, so that a death is its own; then without what causes deaths."""
        report, death = self._run_alone(shard)
        if report is None:
            warn(self._progress, f"shard {shard}: {death}; searching its inputs for those that end a worker")
            excluded = self._find_deadly(shard)
            report, death = self._run_alone(shard, excluded=excluded)
            if report is None:
                raise IncompleteRunError(_too_much_together(shard, self._sizes[shard], excluded, death))
        self._commit(report)

    def _find_deadly(self, shard: int) -> list[int]:
        last_death = ""

        def is_deadly(positions: Sequence[int]) -> bool:
            nonlocal last_death
            report, death = self._run_alone(shard, only=list(positions))
            last_death = death or last_death
            return report is None

        deadly = find_deadly(self._sizes[shard], is_deadly)
        if len(deadly) > MAX_DEADLY:
            raise IncompleteRunError(
                f"shard {shard}: more than {MAX_DEADLY} of its inputs end their worker each by itself, so "
                f"the cause is the installation or the node ({last_death}); when it is mended, {GOES_ON}"
            )
        if deadly:
            warn(
                self._progress,
                f"shard {shard}: of its {self._sizes[shard]} inputs those at {_listed(deadly)} end every "
                f"worker that takes them and are rejected as WORKER_KILLED; the last time {last_death}",
            )
        return deadly

    def _run_alone(
        self, shard: int, *, excluded: Sequence[int] = (), only: Sequence[int] | None = None
    ) -> tuple[ShardReport | None, str]:
        """Run a task while nothing else runs; no report and the death of its worker if it died.

        A worker that was taken away proves nothing against an input, however often that happens.
        """
        death = ""
        for _ in range(MAX_TAKEN_AWAY + 1):
            future = self._workers.executor.submit(self._task, shard, excluded=excluded, only=only)
            wait_for(self._workers, [future])
            error = error_of(future)
            if error is None:
                return future.result(), ""
            if not is_lost_worker(error):
                raise_failure(f"shard {shard}", error)
            is_taken = was_taken_away(self._workers, error)
            death = describe_death(self._workers, error)
            logger.info("shard %d alone (excluded %s, only %s): %s", shard, excluded, only, death)
            if not is_taken:
                return None, death
        raise IncompleteRunError(_never_finished({shard: death}))


def _listed(positions: Sequence[int]) -> str:
    return ", ".join(map(str, positions))


def _never_finished(left: Mapping[int, str]) -> str:
    """Say what to do about shards whose workers the queue took away each time."""
    shard, death = next(iter(left.items()))
    which = f"shard {shard}" if len(left) == 1 else f"shards {_listed(list(left))}"
    return (
        f"{which}: the queue took away {MAX_TAKEN_AWAY + 1} workers in mid-shard, the last of shard {shard}: "
        f"{death}; if their time ran out, ask for a longer --walltime, or ingest with smaller --shard-stars; "
        f"if they were preempted, try another partition or later; {GOES_ON}"
    )


def _too_much_together(shard: int, n_inputs: int, excluded: Sequence[int], death: str) -> str:
    """Say what to do with a shard that ends its worker though none of its parts does."""
    without = f" without the inputs at {_listed(excluded)}" if excluded else ""
    return (
        f"shard {shard}: ends its worker{without}, though each part of it survives: {death}; its {n_inputs} "
        "inputs together most likely need more memory than there is: start fewer workers or give each more "
        f"memory, or ingest with a smaller --shard-stars; {GOES_ON}"
    )
