"""Which inputs of a shard end the worker that takes them: found by halving."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

MAX_DEADLY = 8  # more in one shard are no accident of single stars, and each costs some ten workers
TRIES = 3  # a single input is blamed after as many deaths: the first may have come from outside


def find_deadly(n_inputs: int, is_deadly: Callable[[Sequence[int]], bool]) -> list[int]:
    """Return the inputs that end their worker each by itself, in their order.

    A group that survives is cleared as a whole; one that does not is halved. With `k` such inputs that takes
    at most about `k * (log2(n_inputs) + TRIES)` workers.

    Parameters
    ----------
    n_inputs : int
        Inputs of the shard, which as a whole ended its worker.
    is_deadly : callable
        Goes through the inputs at some positions and tells whether their worker died of it.

    Returns
    -------
    list of int
        Positions; none where the inputs are only too much together. Where there are more than `MAX_DEADLY`
        the search ends with the next one: nothing is known of the inputs behind it.
    """
    return list(islice(_deadly_among(range(n_inputs), is_deadly), MAX_DEADLY + 1))


def _deadly_among(group: range, is_deadly: Callable[[Sequence[int]], bool]) -> Iterator[int]:
    """Find the deadly inputs in a group of which a worker died."""
    if len(group) == 1:  # its own deaths begin here: the one that led here may have been its neighbours'
        if all(is_deadly(group) for _ in range(TRIES)):
            yield group[0]
        return
    middle = len(group) // 2
    for half in (group[:middle], group[middle:]):
        if len(half) == 1 or (half and is_deadly(half)):
            yield from _deadly_among(half, is_deadly)
