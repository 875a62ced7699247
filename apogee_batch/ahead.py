"""Prepare the next things in threads while the last ones are being used."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

N_READY = 1  # beside those that are being prepared
Item = TypeVar("Item")
Made = TypeVar("Made")


def map_ahead(
    function: Callable[[Item], Made], items: Iterable[Item], *, thread_name: str, n_threads: int = 1
) -> Generator[Made, None, None]:
    """Call a function with each of some items, in threads that are together a few results ahead.

    They are one result ahead for each thread, and one more. The threads end when the items do, when a call
    fails, and when the generator is closed: put it into `contextlib.closing`, as the frame of an exception
    would keep it, and the threads, for as long as the exception lives.

    Parameters
    ----------
    function : callable
        Called in a thread; an error that it raises is raised where its result is asked for.
    items : iterable
        Its arguments.
    thread_name : str
        What the threads' names begin with.
    n_threads : int
        How many results are prepared at the same time.

    Yields
    ------
    object
        The results, in the order of the items.
    """
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(n_threads, thread_name) as threads:
        try:
            for item in items:
                waiting.append(threads.submit(function, item))
                if len(waiting) > n_threads + N_READY:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
