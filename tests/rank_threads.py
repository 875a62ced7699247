"""Ranks that are threads of this process, without sockets: for tests of what they compute."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from apogee_batch.network.ranks import Ranks, RanksDisagreeError
from apogee_batch.schema import DoubleArray, FloatArray

T = TypeVar("T")


class ThreadRank:
    """One of some threads that meet at a barrier for each exchange."""

    def __init__(self, rank: int, barrier: threading.Barrier, table: list[object]) -> None:
        self.rank = rank
        self.n_ranks = barrier.parties
        self._barrier = barrier
        self._table = table

    def _exchange(self, mine: object) -> list[object]:
        self._table[self.rank] = mine
        self._barrier.wait()
        found = list(self._table)
        self._barrier.wait()
        return found

    def sum_gradients(self, gradient: FloatArray) -> None:
        first, *others = self._exchange(gradient.copy())
        total = np.array(first)
        for other in others:
            total += np.array(other)
        gradient[:] = total

    def gather(self, values: DoubleArray) -> list[DoubleArray]:
        return [np.asarray(found) for found in self._exchange(values)]

    def agree(self, what: str, text: str) -> None:
        found = self._exchange(text)
        if len(set(found)) > 1:
            raise RanksDisagreeError(what)

    def check(self) -> None:
        pass


def run_ranks(n_ranks: int, call: Callable[[Ranks], T]) -> list[T]:
    """Call a function for each rank; return what they return, or raise what one of them does."""
    barrier = threading.Barrier(n_ranks, timeout=60)
    table: list[object] = [None] * n_ranks

    def run(rank: int) -> T:
        try:
            return call(ThreadRank(rank, barrier, table))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(n_ranks) as threads:
        futures = [threads.submit(run, rank) for rank in range(n_ranks)]
        errors = [error for future in futures if (error := future.exception()) is not None]
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    return [future.result() for future in futures]
