import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from apogee_batch.ahead import N_READY, map_ahead

NAME = "test-ahead"


def n_threads() -> int:
    return sum(thread.name.startswith(NAME) for thread in threading.enumerate())


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(map_ahead(lambda i: i * i, range(50), thread_name=NAME)) == [i * i for i in range(50)]
    assert n_threads() == 0


def test_items_are_taken_as_they_are_needed() -> None:
    taken = []

    def items() -> Iterator[int]:
        for i in range(100):
            taken.append(i)
            yield i

    with closing(map_ahead(str, items(), thread_name=NAME)) as results:
        assert taken == []
        for n in (1, 2, 3):
            next(results)
            assert len(taken) == n + 1 + N_READY
    assert n_threads() == 0


def test_what_was_not_begun_when_it_is_closed_is_never_done() -> None:
    has_begun, may_go_on, done = threading.Event(), threading.Event(), []

    def slow(i: int) -> None:
        if i == 1:
            has_begun.set()
            assert may_go_on.wait(60)
        done.append(i)

    results = map_ahead(slow, range(100), thread_name=NAME)
    next(results)
    assert has_begun.wait(60)
    closer = threading.Thread(target=results.close)
    closer.start()
    closer.join(0.05)  # closing waits for the call that has begun
    may_go_on.set()
    closer.join(60)
    assert done == [0, 1]
    assert n_threads() == 0


def test_an_error_of_the_items_is_raised_and_ends_the_thread() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        list(map_ahead(str, items(), thread_name=NAME))
    assert n_threads() == 0


def test_several_threads_work_at_the_same_time_and_results_keep_their_order() -> None:
    together = threading.Barrier(3)

    def slow(i: int) -> int:
        if i < 3:
            together.wait(60)
        return i

    with closing(map_ahead(slow, range(10), thread_name=NAME, n_threads=3)) as results:
        assert next(results) == 0
        assert n_threads() == 3
        assert list(results) == list(range(1, 10))
    assert n_threads() == 0


def test_each_thread_more_takes_one_item_more() -> None:
    taken = []

    def items() -> Iterator[int]:
        for i in range(100):
            taken.append(i)
            yield i

    with closing(map_ahead(str, items(), thread_name=NAME, n_threads=3)) as results:
        for n in (1, 2, 3):
            next(results)
            assert len(taken) == n + 3 + N_READY
