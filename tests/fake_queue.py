"""A queue system and a clock that tests move by hand, with a supervisor that looks after jobs in it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from apogee_batch.errors import ClusterError
from apogee_batch.run.clusters.endings import Endings
from apogee_batch.run.clusters.queues import JobEnd, JobState
from apogee_batch.run.clusters.roster import Roster
from apogee_batch.run.clusters.scheduler_view import WorkerSeen
from apogee_batch.run.clusters.slurm_words import LIVE_STATES
from apogee_batch.run.clusters.supervisor import Limits, Supervisor

FIRST_ID = 100
TICK_S = 3.0


@dataclass
class FakeQueue:
    """Jobs that do what a test says.

    Attributes
    ----------
    jobs : dict
        State of each that was ever submitted.
    cancelled : list of str
        Job ids in the order of their cancellation.
    is_deaf, refusal, is_stubborn : bool, str, bool
        Whether it cannot be listed; why it takes no jobs; whether it cancels none.
    hidden : set of str
        Jobs that lists leave out.
    """

    can_list: bool = True
    jobs: dict[str, JobState] = field(default_factory=dict)
    exit_codes: dict[str, int] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    is_deaf: bool = False
    is_stubborn: bool = False
    refusal: str = ""
    trouble: str = ""
    hidden: set[str] = field(default_factory=set)
    n_asked: int = 0

    def submit(self, script: str, *, folder: Path) -> str:
        self.n_asked += 1
        if self.refusal:
            raise ClusterError(f"sbatch: {self.refusal}")
        job_id = str(FIRST_ID + len(self.jobs))
        self.jobs[job_id] = JobState(job_id, "PENDING", reason="Priority", name=script)
        return job_id

    def cancel(self, job_ids: Collection[str]) -> None:
        if self.is_stubborn:
            raise ClusterError(f"scancel: no answer; by hand: scancel {' '.join(job_ids)}")
        assert job_ids
        assert set(job_ids) <= set(self.jobs), "jobs of somebody else"
        self.cancelled += job_ids
        for job_id in job_ids:
            if self.is_live(job_id):
                self.put(job_id, "CANCELLED")

    def list(self, job_ids: Collection[str]) -> dict[str, JobState] | None:
        self.trouble = "squeue: no answer" if self.is_deaf else ""
        if self.is_deaf or not self.can_list:
            return None
        return {x: self.jobs[x] for x in job_ids if self.is_live(x) and x not in self.hidden}

    def test(self, script: str) -> str:
        return ""

    def ended(self, job_id: str) -> JobEnd:
        job = self.jobs.get(job_id)
        return JobEnd() if job is None else JobEnd(job.state, self.exit_codes.get(job_id), node=job.node)

    def explain(self, job_ids: Collection[str]) -> Sequence[str]:
        return [self.trouble] if self.is_deaf else [f"{len(job_ids)} jobs wait: Priority"]

    def is_live(self, job_id: str) -> bool:
        return self.jobs[job_id].state in LIVE_STATES

    def live(self) -> Sequence[str]:
        return [job_id for job_id in self.jobs if self.is_live(job_id)]

    def put(self, job_id: str, state: str, *, node: str | None = None, reason: str = "") -> None:
        job = self.jobs[job_id]
        self.jobs[job_id] = replace(job, state=state, node=job.node if node is None else node, reason=reason)


class Site:
    """A supervisor, its queue, the workers that it sees, and the time.

    Parameters
    ----------
    logs : Path
        Folder for the list of jobs.
    n_jobs, n_processes : int
        Jobs that are wanted; worker processes of each.
    max_lost : int
        Jobs in a row that may end without having done anything.
    """

    def __init__(
        self, logs: Path, *, n_jobs: int = 2, n_processes: int = 1, max_lost: int = 5, can_list: bool = True
    ) -> None:
        self.queue, self.roster = FakeQueue(can_list), Roster(logs)
        self.endings = Endings(max_lost)
        self.said: list[str] = []
        self.now = 1000.0
        self.workers: dict[str, WorkerSeen] = {}
        self.logs, self.n_processes = logs, n_processes
        self.supervisor = Supervisor(
            self.queue,
            self.submit,
            self.roster,
            self.endings,
            n_processes=n_processes,
            limits=Limits(frozen_s=120.0, start_s=300.0),
            say=self.said.append,
        )
        self.supervisor.n_jobs = n_jobs

    def submit(self, worker: str) -> tuple[str, str]:
        return self.queue.submit(worker, folder=self.logs), f"apogee-{worker}"

    def tick(self, seconds: float = TICK_S) -> None:
        """Let time pass and the supervisor look once."""
        self.now += seconds
        self.supervisor.tick(self.workers, self.now)

    def run(self, seconds: float) -> None:
        """Let time pass while the supervisor looks as often as it does."""
        end = self.now + seconds
        while self.now < end:
            self.tick()

    def start(self, job_id: str, *, node: str = "n1", n_workers: int | None = None) -> None:
        """Let a job run and its workers connect."""
        self.queue.put(job_id, "RUNNING", node=node)
        for name in self.names(job_id)[:n_workers]:
            self.workers[name] = WorkerSeen(0, 0, self.now)

    def names(self, job_id: str) -> list[str]:
        """Return the names of a job's worker processes."""
        worker = self.queue.jobs[job_id].name
        return [worker] if self.n_processes == 1 else [f"{worker}-{i}" for i in range(self.n_processes)]

    def leave(self, job_id: str) -> None:
        """Let the workers of a job be gone."""
        for name in self.names(job_id):
            self.workers.pop(name, None)

    def end(self, job_id: str, state: str = "FAILED", *, exit_code: int = 1) -> None:
        """Let a job end, and its workers with it."""
        self.leave(job_id)
        self.queue.exit_codes[job_id] = exit_code
        self.queue.put(job_id, state)

    def give_task(self, job_id: str) -> None:
        """Let the workers of a job have a task each."""
        for name in self.names(job_id):
            self.workers[name] = replace(self.workers[name], n_processing=1, progress=self.now)

    def finish_task(self, job_id: str) -> None:
        """Let a worker of a job finish a task."""
        name = self.names(job_id)[0]
        seen = self.workers[name]
        self.workers[name] = WorkerSeen(0, seen.n_done + 1, self.now)

    def wanted(self) -> list[str]:
        """Return the jobs that are kept."""
        return [job.job_id for job in self.roster.active.values() if not job.is_cancelled]
