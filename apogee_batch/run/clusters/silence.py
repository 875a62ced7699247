"""Says why nothing happens: no run waits for workers without a word."""

from collections.abc import Callable, Sequence

from apogee_batch.run.clusters.queues import Queue

LONGEST_SILENCE_S = 1800.0


class Silence:
    """Asks the queue about jobs, when there has been no worker for a while; less and less often.

    Parameters
    ----------
    queue : Queue
        Knows why jobs wait.
    say : callable
        Tells the user.
    after_s : float
        How long a silence may last at first.
    """

    def __init__(self, queue: Queue, say: Callable[[str], None], after_s: float) -> None:
        self._queue, self._say, self._after_s = queue, say, after_s
        self._began: float | None = None
        self._pause_s = after_s

    def tick(self, n_workers: int, job_ids: Sequence[str], now: float, *, n_needed: int = 1) -> None:
        """Look whether it is time to speak.

        Parameters
        ----------
        n_workers : int
            Worker processes that are connected.
        job_ids : sequence of str
            Jobs that are asked for.
        now : float
            Time of the monotonic clock.
        n_needed : int, optional
            Worker processes without which nothing happens.
        """
        if n_workers >= n_needed:
            self._began, self._pause_s = None, self._after_s
            return
        if self._began is None:
            self._began = now
        if now - self._began < self._pause_s:
            return
        waited = now - self._began
        self._pause_s = waited + min(2 * self._pause_s, LONGEST_SILENCE_S)
        lines = self._queue.explain(job_ids) if job_ids else []
        trouble = self._queue.trouble
        quiet = (
            "the queue says nothing about its jobs" if job_ids else "the next job is asked for after a pause"
        )
        because = "; ".join(lines) or trouble or quiet
        who = f"{n_workers} of {n_needed} workers" if n_workers else "no worker"
        self._say(f"{who} for {waited:.0f} s: {because}")
