"""Jobs of a queue: hand them in, ask after them, take them back; each within bounded time.

A job that is asked after and is not told is gone. Where the queue itself cannot be asked nothing is known,
which is another thing: whoever heals a run does nothing then.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from apogee_batch.run.clusters.slurm_words import JobEnd, is_innocent
from apogee_batch.run.config import ClusterKind

__all__ = ["JobEnd", "JobState", "Queue", "is_innocent", "open_queue"]


@dataclass(frozen=True)
class JobState:
    """A job that is in the queue.

    Attributes
    ----------
    job_id, state, node, reason, start_estimate : str
        As the queue says it; "" for what it does not say.
    priority, name : str
        Likewise.
    """

    job_id: str
    state: str
    node: str = ""
    reason: str = ""
    start_estimate: str = ""
    priority: str = ""
    name: str = ""


class Queue(Protocol):
    """What a run asks of a queue system. All methods may be called from several threads."""

    can_list: bool
    """Whether this queue system can be asked which jobs are there."""

    trouble: str
    """Why the queue could not be asked the last time; "" when it could."""

    def submit(self, script: str, *, folder: Path) -> str:
        """Hand in a job and return its id; its script is kept as `folder/job-<id>.sh`.

        Raises
        ------
        ClusterError
            If there is no such queue here, it refuses, or does not answer in time.
        """

    def cancel(self, job_ids: Collection[str]) -> None:
        """Take jobs back; those that are gone are no error.

        Raises
        ------
        ClusterError
            If the queue cannot be told; says how to do it by hand.
        """

    def list(self, job_ids: Collection[str]) -> dict[str, JobState] | None:
        """Return the state of each job that is still there; None if that cannot be told now."""

    def test(self, script: str) -> str:
        """Return what the queue says of a script that it only looks at; "" where it cannot.

        Raises
        ------
        ClusterError
            If it would not take it.
        """

    def ended(self, job_id: str) -> JobEnd:
        """Return how a job ended, as far as the queue still knows."""

    def explain(self, job_ids: Collection[str]) -> Sequence[str]:
        """Say, for people, what jobs do or wait for: a line for all that do the same."""


def open_queue(kind: ClusterKind, *, timeout_s: float) -> Queue:
    """Return the queue of a kind of cluster.

    Parameters
    ----------
    kind : str
        One of the queue systems.
    timeout_s : float
        How long a command may take.
    """
    from apogee_batch.run.clusters.plain_queue import PlainQueue
    from apogee_batch.run.clusters.slurm_queue import SlurmQueue

    return SlurmQueue(timeout_s=timeout_s) if kind == "slurm" else PlainQueue(kind, timeout_s=timeout_s)
