"""How fast a stage goes, and when it will be over, from what it did in the last minutes.

What an earlier attempt had done says nothing about the speed. Work is counted when a shard is committed, so
it comes in lumps; between two of them the time left runs down, and only a lump that is late makes it longer.
"""

from collections import deque

WINDOW_S = 120.0
GAPS = 3.0  # the window holds the longest wait between two lumps so often


class Pace:
    """The speed of a stage.

    Parameters
    ----------
    total : int or None
        Units there are; None where nobody knows.
    done : int
        Units that are done already.
    now_s : float
        The time, by any clock that goes on steadily.
    """

    def __init__(self, total: int | None, done: int, now_s: float) -> None:
        self._total = total
        self._marks = deque([(now_s, done)])
        self._longest_gap_s = 0.0

    def note(self, done: int, now_s: float) -> None:
        """Take note that so many units are done now."""
        last_s, last_done = self._marks[-1]
        if done <= last_done:
            return
        self._longest_gap_s = max(self._longest_gap_s, now_s - last_s)
        self._marks.append((now_s, done))
        begin_s = now_s - max(WINDOW_S, GAPS * self._longest_gap_s)
        while len(self._marks) > 2 and self._marks[1][0] <= begin_s:
            self._marks.popleft()

    def rate(self, now_s: float) -> float | None:
        """Return units a second; None before anything was done."""
        (first_s, first), (last_s, last) = self._marks[0], self._marks[-1]
        late_s = max(0.0, now_s - last_s - self._longest_gap_s)
        span_s = last_s - first_s + late_s
        return (last - first) / span_s if last > first and span_s > 0 else None

    def left_s(self, now_s: float) -> float | None:
        """Return how many seconds are left; None where that cannot be known."""
        rate = self.rate(now_s)
        if rate is None or self._total is None:
            return None
        last_s, last = self._marks[-1]
        return max(0.0, (self._total - last) / rate - (now_s - last_s))


def clock_text(seconds: float) -> str:
    """Write a time as 0:05, 12:34 or 1:02:03."""
    whole = round(max(0.0, seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
