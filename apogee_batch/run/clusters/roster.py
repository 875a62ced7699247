"""The jobs of a run: what was submitted, what became of it; written down as it happens."""

import json
import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from apogee_batch.files import force_to_disk

JOBS_FILE = "jobs.jsonl"
logger = logging.getLogger(__name__)


@dataclass
class Job:
    """One job of the queue.

    Attributes
    ----------
    job_id, name : str
        What the queue calls it; what this run does.
    worker : str
        How the names of its worker processes begin.
    submitted : float
        When; times are of the monotonic clock.
    connected : float, optional
        When all its worker processes were first there.
    missed : float, optional
        Since when some of them are not there any more.
    n_done : int
        Tasks that it has finished.
    is_cancelled : bool
        Whether this run gave it back or ended it.
    end : str
        How it ended, once it has.
    is_innocent : bool
        Whether its end was not the doing of what ran in it.
    node, state : str
        Where it runs, and what it does, as the queue said last.
    started, ending : float, optional
        When it was first seen to run; to be over and not yet cleared away.
    """

    job_id: str
    name: str
    worker: str
    submitted: float
    connected: float | None = None
    missed: float | None = None
    n_done: int = 0
    is_cancelled: bool = False
    end: str = ""
    is_innocent: bool = True
    node: str = ""
    state: str = ""
    started: float | None = None
    ending: float | None = None


@dataclass
class Roster:
    """All jobs of a run.

    Attributes
    ----------
    logs : Path
        Folder of the run's logs; the file of jobs is there.
    active, ended : dict of str to Job
        By job id.
    """

    logs: Path
    active: dict[str, Job] = field(default_factory=dict)
    ended: dict[str, Job] = field(default_factory=dict)

    def add(self, job: Job) -> None:
        """Keep a job that was submitted."""
        self.active[job.job_id] = job
        self._write("submitted", job)

    def drop(self, job: Job, end: str) -> None:
        """Note the end of a job."""
        job.end = end
        del self.active[job.job_id]
        self.ended[job.job_id] = job
        self._write("ended", job)

    def job_of(self, worker: str) -> Job | None:
        """Return the job of a worker process."""
        jobs = (*self.active.values(), *self.ended.values())
        return next((job for job in jobs if is_of_job(worker, job)), None)

    def log_of(self, job: Job) -> Path:
        """Return the file that a job prints to."""
        return self.logs / f"job-{job.job_id}.log"

    def _write(self, event: str, job: Job) -> None:
        line = {
            "time": time.time(),
            "event": event,
            "job": job.job_id,
            "name": job.name,
            "worker": job.worker,
            "node": job.node,
            "end": job.end,
        }
        try:
            with (self.logs / JOBS_FILE).open("ab+") as file:
                text = json.dumps(line).encode() + b"\n"
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    text = text if file.read() == b"\n" else b"\n" + text  # an earlier driver's was torn
                file.write(text)
                file.flush()
                force_to_disk(file.fileno())
        except OSError as error:  # a full disk: the list is for the next driver, this one knows its jobs
            logger.warning("%s is not in %s: %s", job.job_id, self.logs / JOBS_FILE, error)


def is_of_job(worker: str, job: Job) -> bool:
    """Tell whether a worker process belongs to a job, by its name: "gpu7" or "gpu7-2" to that of "gpu7"."""
    return worker.partition("-")[0] == job.worker


def unfinished_jobs(logs: Path) -> dict[str, str]:
    """Return the jobs of earlier drivers of a run that were not seen to end: job id -> name."""
    left = dict[str, str]()
    try:
        lines = (logs / JOBS_FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return left
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:  # the last line of a driver that was killed as it wrote
            continue
        if event["event"] == "submitted":
            left[event["job"]] = event["name"]
        else:
            left.pop(event["job"], None)
    return left
