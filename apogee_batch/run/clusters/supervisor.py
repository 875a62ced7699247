"""Keeps as many jobs in the queue as a stage needs: replaces lost ones, ends stuck ones, gives up in time.

Knows no Dask: it compares what the queue lists with the workers that are connected.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from apogee_batch.errors import ClusterError
from apogee_batch.run.clusters.endings import Endings
from apogee_batch.run.clusters.queues import JobState, Queue
from apogee_batch.run.clusters.roster import Job, Roster, is_of_job
from apogee_batch.run.clusters.scheduler_view import WorkerSeen
from apogee_batch.run.clusters.slurm_words import LIVE_STATES
from apogee_batch.run.clusters.standstill import Pulse

RESTART_S = 60.0  # a worker process that died is started again by its nanny, and imports torch
SUBMITTED_S = 10.0  # squeue may not list a job yet that was submitted just now
COMPLETING_S = 60.0  # a node that does not get rid of a job that has ended keeps no other from starting
CANCEL_PAUSE_S = 60.0  # after a cancellation that the queue did not take
TICK_S = 60.0  # one that comes much later does so after a standstill, and finds what was seen before it
AT_ONCE = 20  # jobs that are submitted, or asked after, in one look: others must be looked at meanwhile
STUCK_FACTOR = 10  # a task that lasts so many times as long as the longest one before is stuck
LEAST_STUCK_S = 600.0
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """When a job is given up.

    Attributes
    ----------
    frozen_s : float
        A job of which some but not all worker processes are connected for so long is ended; one of which
        none is any more goes after `RESTART_S`, or this if it is less.
    start_s : float
        The same for one that runs and whose workers were never all there.
    """

    frozen_s: float
    start_s: float


class Supervisor:
    """The jobs of one cluster, looked after from time to time.

    Parameters
    ----------
    queue : Queue
        Where jobs are.
    submit : callable
        Gets the first part of the names of a job's workers, submits the job and returns its id and name.
    roster : Roster
        Gets each job.
    endings : Endings
        Counts jobs that end without having done anything.
    n_processes : int
        Worker processes of a job.
    limits : Limits
    say : callable
        Tells the user.
    """

    def __init__(
        self,
        queue: Queue,
        submit: Callable[[str], tuple[str, str]],
        roster: Roster,
        endings: Endings,
        *,
        n_processes: int,
        limits: Limits,
        say: Callable[[str], None],
    ) -> None:
        self._queue, self._submit, self._roster, self._endings = queue, submit, roster, endings
        self._n_processes, self._limits, self._say = n_processes, limits, say
        self._n_named = 0
        self._no_cancel_before = float("-inf")
        self._pulse, self._was_late = Pulse(TICK_S), False
        self.n_jobs = 0  # wanted now
        self.n_needed = 1  # worker processes without which nothing can begin
        self.longest_task_s = 0.0  # of those that were finished

    def tick(self, workers: Mapping[str, WorkerSeen], now: float) -> None:
        """Compare, mend and submit.

        Parameters
        ----------
        workers : mapping of str to WorkerSeen
            Those that are connected, by name.
        now : float
            Time of the monotonic clock.

        Raises
        ------
        ClusterError
            If jobs keep ending without having done anything and too few workers are left for anything to
            begin, or none can be submitted.
        """
        jobs = list(self._roster.active.values())
        listed = self._queue.list([job.job_id for job in jobs]) if jobs else {}
        is_told = listed is not None or not self._queue.can_list
        self._was_late = is_late = self._pulse.missed_s(now) > 0 and not self._was_late
        n_dropped = 0
        for job in jobs:
            mine = {name: seen for name, seen in workers.items() if is_of_job(name, job)}
            state = None if listed is None else listed.get(job.job_id)
            self._note_workers(job, mine, now)
            if state is not None:
                _note_state(job, state, now, is_seen=bool(mine))
            if listed is not None and not mine and _is_gone(job, state, now):
                if n_dropped < AT_ONCE:
                    self._drop(job, now)
                n_dropped += 1
            elif is_told and not job.is_cancelled and not is_late:
                if reason := self._find_fault(job, mine, state, now):
                    self._end(job, reason, now)
                elif reason := self._find_stuck(mine, now):
                    self._end(job, reason, now, is_innocent=False)
        self._give_back(workers, now)
        self._fill(workers, now)

    def _note_workers(self, job: Job, mine: Mapping[str, WorkerSeen], now: float) -> None:
        if len(mine) >= self._n_processes:
            job.connected, job.missed = now if job.connected is None else job.connected, None
        elif job.connected is not None and job.missed is None:
            job.missed = now
        n_done = sum(seen.n_done for seen in mine.values())
        if n_done > job.n_done:
            job.n_done = n_done
            self._endings.note_work(job)

    def _drop(self, job: Job, now: float) -> None:
        """Note that a job has ended, and tell why unless that was asked for."""
        end = self._queue.ended(job.job_id)
        if end.state in LIVE_STATES and end.state != "COMPLETING":
            return  # a list that was made before it was submitted: the queue has it
        job.node = end.node or job.node
        job.is_innocent = end.is_innocent or not end.is_known
        self._roster.drop(job, end.text)
        if not job.is_cancelled:
            self._tell_end(job, now)

    def _tell_end(self, job: Job, now: float) -> None:
        text = self._endings.note_end(job, self._roster.log_of(job), now)
        is_replaced = len(self._wanted()) < self.n_jobs and not self._endings.is_hopeless()
        has_left = job.n_done and job.end.startswith("COMPLETED")  # its time was over, as planned
        self._say(f"{'' if has_left else 'WARNING: '}{text}{'; another takes its place' * is_replaced}")

    def _find_fault(
        self, job: Job, mine: Mapping[str, WorkerSeen], state: JobState | None, now: float
    ) -> str:
        """Say why a job is of no use any more; nothing if it is."""
        limits = self._limits
        is_running = job.state == "RUNNING" or not self._queue.can_list
        if state is not None and "held" in state.reason.lower():
            return f"is held and will not start ({state.reason})"
        missed_s = max(RESTART_S, limits.frozen_s) if mine else min(RESTART_S, limits.frozen_s)
        if job.missed is not None and now - job.missed > missed_s and (is_running or mine):
            return "a worker of it does not answer any more"
        if job.connected is None and job.started is not None and now - job.started > limits.start_s:
            return (
                f"runs for over {limits.start_s:.0f} s and {'not all' if mine else 'no'} workers of it came"
            )
        return ""

    def _find_stuck(self, mine: Mapping[str, WorkerSeen], now: float) -> str:
        """Say that a task does not come to an end; nothing if all may."""
        bound = max(LEAST_STUCK_S, STUCK_FACTOR * self.longest_task_s)
        if self.longest_task_s and any(s.n_processing and now - s.progress > bound for s in mine.values()):
            return f"a task of it lasts over {bound:.0f} s, {STUCK_FACTOR} times as long as any before"
        return ""

    def _end(self, job: Job, reason: str, now: float, *, is_innocent: bool = True) -> None:
        """End a job that is of no use, so that another takes its place."""
        job.is_innocent = is_innocent  # first: as soon as it is cancelled, its tasks are judged
        if not self._cancel([job], now):
            return
        self._roster.drop(job, f"ended by this run: {reason}")
        self._tell_end(job, now)

    def _cancel(self, jobs: Sequence[Job], now: float) -> bool:
        """Take jobs out of the queue; where it cannot be told so now, that is tried again later."""
        if now < self._no_cancel_before:
            return False
        try:
            self._queue.cancel([job.job_id for job in jobs])
        except ClusterError as error:
            self._no_cancel_before = now + CANCEL_PAUSE_S
            self._say(f"WARNING: {error}; the run goes on and tries it again later")
            return False
        for job in jobs:
            job.is_cancelled = True  # its end needs no second word
        return True

    def _wanted(self) -> list[Job]:
        """Return the jobs that are there and have not been given back."""
        return [job for job in self._roster.active.values() if not job.is_cancelled]

    def _give_back(self, workers: Mapping[str, WorkerSeen], now: float) -> None:
        """Cancel jobs that are not needed any more: those that wait first, then those without a task."""
        jobs, n_jobs = self._wanted(), self.n_jobs
        busy = {name.partition("-")[0] for name, seen in workers.items() if seen.n_processing}
        idle = [job for job in jobs if n_jobs == 0 or job.worker not in busy]
        idle.sort(key=lambda job: job.connected is not None)
        spare = idle[: max(0, len(jobs) - n_jobs)]
        if spare:
            self._cancel(spare, now)

    def _fill(self, workers: Mapping[str, WorkerSeen], now: float) -> None:
        """Submit what is missing, later and later where jobs end at once or are refused."""
        jobs = self._wanted()
        n_missing = self.n_jobs - len(jobs)
        if n_missing <= 0:
            return
        is_starting = any(job.state == "RUNNING" and job.connected is None for job in jobs)
        is_at_work = any(seen.n_processing for seen in workers.values())
        is_lacking = len(workers) < self.n_needed and not is_at_work
        if self._endings.is_hopeless() and is_lacking and not is_starting:
            raise ClusterError(self._endings.tell())
        if self._endings.must_wait(now):
            return
        for _ in range(1 if self._endings.is_careful() else min(n_missing, AT_ONCE)):
            # asked each time: each submission takes a while, and less may be wanted meanwhile
            if len(self._wanted()) >= self.n_jobs or not self._submit_one(now):
                return

    def _submit_one(self, now: float) -> bool:
        """Submit a job; tell whether the queue took it.

        Raises
        ------
        ClusterError
            If it did not, no other job is there, and it never took one or has refused several times.
        """
        self._n_named += 1
        worker = f"w{self._n_named}"
        try:
            job_id, name = self._submit(worker)
        except ClusterError as error:
            is_final = self._endings.note_refusal(now) or not self._roster.ended
            if is_final and not self._roster.active:
                raise
            self._say(f"WARNING: {error}; the run goes on with the jobs it has, and asks again later")
            return False
        self._endings.note_submission(now)
        self._roster.add(Job(job_id, name, worker, now))
        logger.info("submitted job %s for %s", job_id, worker)
        return True

    def cancel_all(self) -> None:
        """Take all jobs out of the queue; where that fails, the next driver of the run does it."""
        self.n_jobs = 0
        active = list(self._roster.active.values())
        if not active:
            return
        try:
            self._queue.cancel([job.job_id for job in active])
        except ClusterError as error:
            self._say(f"WARNING: jobs of this run are still in the queue: {error}")
            return
        for job in active:
            job.is_cancelled = True
            self._roster.drop(job, "given back")


def _note_state(job: Job, state: JobState, now: float, *, is_seen: bool) -> None:
    """Note what the queue says of a job."""
    job.node, job.state = state.node or job.node, state.state
    if state.state == "RUNNING":
        job.started = now if job.started is None else job.started
    elif state.state == "COMPLETING":
        job.ending = now if job.ending is None else job.ending
    elif state.state in LIVE_STATES and not is_seen:  # not yet, or again: somebody has put it back
        job.started = job.connected = job.missed = None


def _is_gone(job: Job, state: JobState | None, now: float) -> bool:
    """Tell whether a job without workers has ended."""
    if state is None:
        return bool(job.state) or now - job.submitted > SUBMITTED_S
    if state.state == "COMPLETING":
        return job.ending is not None and now - job.ending > COMPLETING_S
    return state.state not in LIVE_STATES
