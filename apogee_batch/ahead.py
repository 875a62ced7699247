"""Prepare the next things in a thread while the last ones are being used."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

N_AHEAD = 2  # one that is ready, one that is being prepared
Item = TypeVar("Item")
Made = TypeVar("Made")


def map_ahead(
    function: Callable[[Item], Made], items: Iterable[Item], *, thread_name: str
) -> Generator[Made, None, None]:
    """Call a function with each of some items, in a thread that is at most two results ahead.

    The thread ends when the items do, when a call fails, and when the generator is closed: put it into
    `contextlib.closing`, as the frame of an exception would keep it, and the thread, for as long as the
    exception lives.

    Parameters
    ----------
    function : callable
        Called in the thread; an error that it raises is raised where its result is asked for.
    items : iterable
        Its arguments.
    thread_name : str
        What the thread's name begins with.

    Yields
    ------
    object
        The results, in the order of the items.
    """
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(1, thread_name) as thread:
        try:
            for item in items:
                waiting.append(thread.submit(function, item))
                if len(waiting) > N_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
