"""Says that nothing was finished for a long time: workers live on while a file system hangs."""

import time
from collections.abc import Callable, Collection

FIRST_S = 600.0
N_SHOWN = 8


class StallWatch:
    """Speaks when no shard has ended for ten minutes, then after twice as long, and so on.

    Parameters
    ----------
    say : callable
        Tells the user.
    clock : callable
        Seconds that only go forward.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self.note_end()

    def note_end(self) -> None:
        """Note that a shard has ended, or that the stage begins."""
        self._since, self._pause_s = self._clock(), FIRST_S

    def look(self, at_work: Collection[int], n_workers: int) -> None:
        """Speak if it is time to.

        Parameters
        ----------
        at_work : collection of int
            Shards on their way.
        n_workers : int
            Worker processes that are there; without any, others say why.
        """
        silent_s = self._clock() - self._since
        if not at_work or not n_workers or silent_s < self._pause_s:
            return
        self._pause_s *= 2
        shown = ", ".join(map(str, sorted(at_work)[:N_SHOWN])) + (" ..." if len(at_work) > N_SHOWN else "")
        self._say(
            f"no shard was finished for {silent_s:.0f} s; {n_workers} workers have shards {shown}: if a "
            "shard should not take so long, see whether store and run folder answer on their nodes"
        )
