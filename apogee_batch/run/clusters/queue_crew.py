"""The worker processes that the jobs of a queue hold, as a stage sees them."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor
from typing import Any

from apogee_batch.errors import ClusterError
from apogee_batch.run.clusters.dask_crew import POLL_S, DaskCrew
from apogee_batch.run.clusters.roster import Job, Roster, is_of_job
from apogee_batch.run.clusters.scheduler_view import SchedulerView
from apogee_batch.run.clusters.silence import Silence
from apogee_batch.run.clusters.supervisor import Supervisor

INTERVAL_S = 3.0
QUIET_S = 120.0  # without any change for so long, the queue is asked less often: it serves others too
QUIET_INTERVAL_S = 15.0
JUDGE_S = 60.0  # a worker process that died of its task is back by then, and so its job was not taken away
TASKS_PER_WALLTIME = 4
MAX_FAILED_LOOKS = 100  # in a row: five minutes in which nobody looks after the jobs
logger = logging.getLogger(__name__)


class QueueCrew(DaskCrew):
    """Worker processes of jobs, which a thread looks after.

    Parameters
    ----------
    client : distributed.Client
    n_workers, n_processes : int
        Worker processes when all are there; those of one job.
    view : SchedulerView
    supervisor : Supervisor
    roster : Roster
    silence : Silence
        Tells when nothing happens.
    walltime_s : float
        Of a job.
    on_first : callable
        Called once, when the first worker is there.
    """

    def __init__(
        self,
        client: Any,
        n_workers: int,
        *,
        n_processes: int,
        view: SchedulerView,
        supervisor: Supervisor,
        roster: Roster,
        silence: Silence,
        walltime_s: float,
        on_first: Callable[[], None],
    ) -> None:
        super().__init__(client)
        self._n_workers, self._n_processes, self._walltime_s = n_workers, n_processes, walltime_s
        self._view, self._supervisor, self._roster = view, supervisor, roster
        self._silence, self._on_first = silence, on_first
        self._is_first = True
        self._failure: Exception | None = None
        self._n_connected = 0
        self._deaths = dict[int, float]()  # when an error was first asked about, by its id
        self._over, self._hurry, self._looked = threading.Event(), threading.Event(), threading.Event()
        self._n_failed_looks = 0
        self._seen: object = None  # what was there at the last look
        self._changed = self._asked_queue = float("-inf")
        self._turn = threading.Lock()  # one tick at a time
        self._thread = threading.Thread(target=self._look_after, name="jobs", daemon=True)

    def ask(self, n_workers: int | None) -> None:
        """See `Crew`; the first time, waits for the first worker and has it checked."""
        n_wanted = self._n_workers if n_workers is None else min(n_workers, self._n_workers)
        n_jobs = -(-n_wanted // self._n_processes)
        n_before, self._supervisor.n_jobs = self._supervisor.n_jobs, n_jobs
        if n_jobs <= n_before:
            return  # what is too much is given back by and by
        if not self._thread.is_alive():
            self._thread.start()
        self._looked.clear()
        self._hurry.set()  # a signal, which ends this thread's work, must not cut off a submission
        while not (self._looked.wait(POLL_S) or self._over.is_set()):
            self.check()
        self.check()
        if self._is_first:
            self._wait_for_first()

    def places(self, n_places: int) -> Sequence[Executor]:
        """See `Crew`."""
        if n_places > self._n_workers:
            raise ClusterError(
                f"{n_places} workers are needed at the same time, there are {self._n_workers} at most; "
                "raise `workers`, or train with fewer (--train-workers)"
            )
        self._supervisor.n_needed = n_places
        try:
            return super().places(n_places)
        finally:
            self._supervisor.n_needed = 1

    def _wait_for_first(self) -> None:
        while not self.count():
            self.check()
            time.sleep(0.2)
        self._on_first()
        self._is_first = False

    def count(self) -> int:
        """See `Crew`."""
        return self._n_connected

    def check(self) -> None:
        """See `Crew`."""
        if self._failure is not None:
            raise self._failure

    def longest_task_s(self) -> float | None:
        """See `Crew`."""
        return self._walltime_s / TASKS_PER_WALLTIME

    def note_task(self, seconds: float) -> None:
        """See `Crew`."""
        self._supervisor.longest_task_s = max(self._supervisor.longest_task_s, seconds)

    def is_taken_away(self, error: BaseException) -> bool | None:
        """See `Crew`: a job that was cancelled, or has ended, or does not come back, was taken away."""
        verdict = self._judge(error, self._job_of(error))
        if verdict is not None:
            self._deaths.pop(id(error), None)  # another error may get the same id
        return verdict

    def _judge(self, error: BaseException, job: Job | None) -> bool | None:
        if job is None:
            return True
        if job.end or job.is_cancelled:
            return job.is_innocent
        now = time.monotonic()
        first_asked = self._deaths.setdefault(id(error), now)
        try:
            n_there = sum(is_of_job(name, job) for name in self._view.workers())
        except TimeoutError:  # the scheduler is busy
            return None
        if n_there < self._n_processes and now - first_asked < JUDGE_S:
            return None
        return n_there < self._n_processes

    def describe_loss(self, error: BaseException) -> str | None:
        """See `Crew`."""
        job = self._job_of(error)
        if job is None:
            return None
        where = f" on {job.node}" if job.node else ""
        end = f"{job.end}; " if job.end else ""
        return f"its worker in job {job.job_id}{where} was lost ({end}log {self._roster.log_of(job)})"

    def _job_of(self, error: BaseException) -> Job | None:
        worker: Any = error.args[1]  # the scheduler's last state of it
        return self._roster.job_of(str(worker.name))

    def start_timeout_s(self) -> float:
        """See `DaskCrew`: jobs may wait for days, and it is told why."""
        return float("inf")

    def _look_after(self) -> None:
        while not self._over.is_set():
            self._hurry.wait(INTERVAL_S)
            self._hurry.clear()
            if not self._over.is_set():
                self._tick()

    def _tick(self) -> None:
        with self._turn:
            if self._failure is not None or self._over.is_set():
                return
            try:
                self._look()
                self._n_failed_looks = 0
            except ClusterError as error:
                self._failure = error
            except Exception as error:
                # one look that fails for a reason nobody foresaw must not leave the run without supervision
                logger.exception("a look at the jobs failed")
                self._n_failed_looks += 1
                if self._n_failed_looks == MAX_FAILED_LOOKS:
                    self._failure = ClusterError(f"nobody can look after the jobs any more: {error!r}")
            finally:
                self._looked.set()

    def _look(self) -> None:
        workers = self._view.workers()
        self._n_connected = len(workers)
        now = time.monotonic()
        if self._is_due(workers, now):
            self._asked_queue = now
            self._supervisor.tick(workers, now)
        n_needed = self._supervisor.n_needed if self._supervisor.n_jobs else 0  # nobody waits for any
        jobs = list(self._roster.active)
        self._silence.tick(self._n_connected, jobs, time.monotonic(), n_needed=n_needed)

    def _is_due(self, workers: Collection[str], now: float) -> bool:
        """Tell whether to ask the queue: often while things change, else now and then."""
        jobs = {job_id: job.state for job_id, job in self._roster.active.items()}
        seen = (frozenset(workers), jobs, self._supervisor.n_jobs)
        if seen != self._seen:
            self._seen, self._changed = seen, now
        return now - self._changed < QUIET_S or now - self._asked_queue >= QUIET_INTERVAL_S

    def close(self) -> None:
        """Give all jobs back."""
        self._supervisor.n_jobs = 0  # also ends a row of submissions that is on its way
        self._over.set()
        self._hurry.set()
        with self._turn:
            try:
                self._supervisor.cancel_all()
            except ClusterError as error:  # not worth the result of the run: the jobs leave by themselves
                logger.warning("%s", error)
        if self._thread.is_alive():
            self._thread.join(INTERVAL_S)
