"""How jobs ended, and when it is no use to ask for more."""

from pathlib import Path

from apogee_batch.run.clusters.roster import Job

LONGEST_PAUSE_S = 60.0
RETRY_S = 600.0  # after so many failures, while other workers work
SERVED_S = 300.0  # a job whose workers were there for so long did what it could: a task may last for hours
TAIL_LINES = 8
TAIL_BYTES = 1 << 14


class Endings:
    """Counts jobs that ended without having done anything.

    Parameters
    ----------
    max_in_a_row : int
        How many are accepted with no good one between.
    """

    def __init__(self, max_in_a_row: int) -> None:
        self._max = max_in_a_row
        self.n_in_a_row = 0
        self._n_refused = 0
        self._first_failure = float("inf")
        self._not_before = float("-inf")
        self._last, self._last_log = "", Path()
        self._nodes = dict[str, None]()  # in order

    def note_work(self, job: Job) -> None:
        """Take heart: a job that was asked for after the failures has done something."""
        if job.submitted > self._first_failure:
            self.n_in_a_row, self._first_failure = 0, float("inf")
            self._nodes.clear()

    def note_end(self, job: Job, log: Path, now: float) -> str:
        """Count the end of a job; return what there is to say about it."""
        end = job.end or "is not in the queue any more"
        where = f" on {job.node}" if job.node and f" on {job.node}" not in end else ""
        text = f"job {job.job_id}{where}: {end}"
        if job.n_done:
            return f"{text}, after {job.n_done} task{'s' * (job.n_done != 1)}"
        if job.connected is not None:
            served_s = (now if job.missed is None else job.missed) - job.connected
            if served_s >= SERVED_S:
                return f"{text}, after {served_s:.0f} s"
        if job.end.startswith("PREEMPTED"):  # as many may be at once, with which nothing is wrong
            return f"{text}, and had done nothing yet"
        self.n_in_a_row += 1
        self._first_failure = min(self._first_failure, now)
        if job.node:
            self._nodes[job.node] = None
        self._last, self._last_log = text, log
        self._postpone(now, self._pause_s())
        return f"{text}, and had done nothing{f' (log {log})' if log.is_file() else ''}"

    def note_refusal(self, now: float) -> bool:
        """Count a job that the queue did not take; tell whether that has happened too often."""
        self._n_refused += 1
        self._postpone(now, min(_doubled(self._n_refused), RETRY_S))
        return self._n_refused >= self._max

    def note_submission(self, now: float) -> None:
        """Note that the queue has taken a job: after failures, the next has to wait how this one fares."""
        self._n_refused = 0
        if self.n_in_a_row:
            self._postpone(now, self._pause_s())

    def _pause_s(self) -> float:
        return RETRY_S if self.is_hopeless() else min(_doubled(self.n_in_a_row), LONGEST_PAUSE_S)

    def _postpone(self, now: float, pause_s: float) -> None:
        self._not_before = max(self._not_before, now + pause_s)

    def is_careful(self) -> bool:
        """Tell whether jobs are asked for one by one: the last ones failed."""
        return bool(self.n_in_a_row or self._n_refused)

    def must_wait(self, now: float) -> bool:
        """Tell whether it is too early to ask for a job again."""
        return now < self._not_before

    def is_hopeless(self) -> bool:
        """Tell whether too many jobs in a row have done nothing."""
        return self.n_in_a_row >= self._max

    def tell(self) -> str:
        """Say why no more jobs are asked for."""
        nodes = f" (on {', '.join(self._nodes)})" if self._nodes else ""
        tail = last_lines(self._last_log)
        last = f"{self._last}; {self._last_log}{' ends with: ' + tail if tail else ' says nothing'}"
        if self._max == 1:  # a test
            return f"the job ended without having done anything: {last}"
        return (
            f"{self.n_in_a_row} jobs in a row{nodes} ended without having done anything, the last: {last}; "
            "see the log, try 'apogee-batch cluster test', and give the same command again"
        )


def _doubled(n_times: int) -> float:
    return 2.0 ** min(n_times, 16)


def last_lines(log: Path) -> str:
    """Return the end of a log in one line; nothing where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = " | ".join(lines[-TAIL_LINES:])
    return "".join(char if char.isprintable() else " " for char in told)
