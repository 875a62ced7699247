"""Files read one after the other, or many at once where the file system makes each of them wait.

On a parallel file system a file costs some milliseconds of waiting for its metadata and its bytes, many times
what its bytes cost a processor; on a disk near by, threads that take turns cost more than they save.
"""

import resource
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

N_IN_FLIGHT = 16  # files of one process that wait at the same time
SAMPLE_FILES = 4  # read alone, to see how long they wait
FILES_BETWEEN_SAMPLES = 512
SLOW_S = 0.0005  # of waiting for a file; the processor has it for 0.0003
THREAD = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)  # Linux knows of threads

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Waiting:
    """What a thread has done until now: seconds, those of its processor, and how often it slept.

    A thread that a busy machine puts aside waits too, but does not sleep: more threads would not help it.
    """

    wall_s: float
    cpu_s: float
    n_sleeps: int

    @classmethod
    def now(cls) -> "Waiting":
        """Return the counts of the calling thread."""
        return cls(time.monotonic(), time.thread_time(), resource.getrusage(THREAD).ru_nvcsw)


def is_slow(before: Waiting, after: Waiting, n_files: int) -> bool:
    """Tell whether the files read between two moments made the thread wait longer than it worked."""
    waited_s = (after.wall_s - before.wall_s) - (after.cpu_s - before.cpu_s)
    has_slept = after.n_sleeps - before.n_sleeps >= n_files
    return has_slept and waited_s > n_files * SLOW_S


def read_in_order(
    read: Callable[[Item], Result], items: Sequence[Item], *, most_at_once: int = N_IN_FLIGHT
) -> Iterator[Result]:
    """Give what `read` returns of each item, in their order, whatever it took to read them.

    Parameters
    ----------
    read : callable
        Reads a file; its errors are raised here. May be called in several threads.
    items : sequence
        What to read, in order.
    most_at_once : int
        Bound of the files that are in memory at a time.
    """
    start = 0
    while start < len(items):
        before = Waiting.now()
        sample = [read(item) for item in items[start : start + SAMPLE_FILES]]
        is_waiting = is_slow(before, Waiting.now(), len(sample))
        yield from sample
        rest = items[start + SAMPLE_FILES : start + FILES_BETWEEN_SAMPLES]
        yield from _read_many_at_once(read, rest, most_at_once) if is_waiting else map(read, rest)
        start += FILES_BETWEEN_SAMPLES


def _read_many_at_once(
    read: Callable[[Item], Result], items: Sequence[Item], most_at_once: int
) -> Iterator[Result]:
    """Give the same as `map`; only so many are read ahead that the memory for them is small."""
    waiting = deque[Future[Result]]()
    with ThreadPoolExecutor(most_at_once, thread_name_prefix="read") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > 2 * most_at_once:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
