"""Executors whose workers die, without processes: for tests of what the driver does then."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from threading import Thread
from types import SimpleNamespace
from typing import Any

from distributed.scheduler import KilledWorker

from apogee_batch.run.ledger import ShardReport


class DeathError(Exception):
    """What a task raises to end its worker."""


def killed_worker() -> KilledWorker:
    """What Dask makes of the end of a worker."""
    return KilledWorker("task", SimpleNamespace(server_id="Worker-0", host="node07"), 0)


def end_of(call: Callable[[], Any]) -> Future[Any]:
    """Run a task to its end, also that of its worker."""
    future: Future[Any] = Future()
    try:
        future.set_result(call())
    except DeathError:
        future.set_exception(killed_worker())
    except Exception as error:  # noqa: BLE001  an executor hands every error on
        future.set_exception(error)
    return future


class DyingExecutor(Executor):
    """One worker, which works at once."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return end_of(lambda: fn(*args, **kwargs))


class CrowdedExecutor(Executor):
    """One worker with a list of tasks: when it dies, all that wait on its list are blamed too, as by Dask."""

    def __init__(self) -> None:
        self.n_bystanders = 0
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread = Thread(target=self._work)
        self._thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._tasks.put((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._tasks.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            ended = end_of(task[1])
            error = ended.exception()
            if error is None:
                task[0].set_result(ended.result())
                continue
            end = time.monotonic() + 5
            while not self.n_bystanders and self._tasks.empty() and time.monotonic() < end:
                time.sleep(0.001)  # at the first death there are others on their way
            blamed = [task[0]]
            while isinstance(error, KilledWorker) and not self._tasks.empty():
                waiting = self._tasks.get()
                if waiting is None:
                    return
                blamed.append(waiting[0])
                self.n_bystanders += 1
            for future in blamed:
                future.set_exception(error)


class FakeTask:
    """A task of a stage of which some inputs end the worker; keeps the calls.

    Parameters
    ----------
    n_inputs : int
        Inputs of each shard.
    deadly : sequence of (int, int)
        Shard and position of the inputs that end their worker.
    n_accidents : dict of int to int
        How often the worker of a shard is killed from outside.
    capacity : int
        Inputs that fit into a worker's memory.
    """

    def __init__(
        self,
        n_inputs: int = 16,
        deadly: Sequence[tuple[int, int]] = (),
        n_accidents: dict[int, int] | None = None,
        capacity: int = 10**9,
    ) -> None:
        self.n_inputs, self.deadly, self.capacity = n_inputs, set(deadly), capacity
        self.accidents = dict(n_accidents or {})
        self.calls: list[tuple[int, tuple[int, ...], tuple[int, ...] | None]] = []
        self.n_deaths = 0

    def __call__(
        self, shard: int, *, excluded: Sequence[int] = (), only: Sequence[int] | None = None
    ) -> ShardReport:
        self.calls.append((shard, tuple(excluded), None if only is None else tuple(only)))
        taken = [i for i in (range(self.n_inputs) if only is None else only) if i not in excluded]
        is_dead = len(taken) > self.capacity or any((shard, i) in self.deadly for i in taken)
        if not is_dead and self.accidents.get(shard, 0):
            self.accidents[shard] -= 1
            is_dead = True
        if is_dead:
            self.n_deaths += 1
            raise DeathError
        return ShardReport(
            shard, self.n_inputs, len(taken), len(excluded), (), 0.0, "", {"excluded": list(excluded)}
        )
