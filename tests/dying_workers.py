"""Executors whose workers die, without processes: for tests of what the driver does then."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from threading import Thread
from types import SimpleNamespace
from typing import Any

from distributed.scheduler import KilledWorker

from apogee_batch.run.clusters.workers import Crew
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


class FakeCrew(Crew):
    """Workers that come and go as a test says.

    Parameters
    ----------
    n_workers : int
        How many are there now.
    verdicts : sequence of bool or None
        Whether a lost worker had been taken away, one for each time that this is asked; the last for ever.
    longest_s : float, optional
        How long a task should take.
    on_check : callable, optional
        Called when a stage waits.
    """

    def __init__(
        self,
        n_workers: int = 1,
        verdicts: Sequence[bool | None] = (False,),
        *,
        longest_s: float | None = None,
        on_check: Callable[[], None] = lambda: None,
    ) -> None:
        self.n_workers, self.verdicts, self.longest_s = n_workers, list(verdicts), longest_s
        self.on_check = on_check
        self.asked: list[int | None] = []
        self.noted: list[float] = []

    def ask(self, n_workers: int | None) -> None:
        self.asked.append(n_workers)

    def count(self) -> int:
        return self.n_workers

    def check(self) -> None:
        self.on_check()

    def longest_task_s(self) -> float | None:
        return self.longest_s

    def note_task(self, seconds: float) -> None:
        self.noted.append(seconds)

    def is_taken_away(self, error: BaseException) -> bool | None:
        assert isinstance(error, KilledWorker)
        return self.verdicts.pop(0) if len(self.verdicts) > 1 else self.verdicts[0]


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
    seconds : sequence of float
        How long it takes, for each shard.
    """

    def __init__(
        self,
        n_inputs: int = 16,
        deadly: Sequence[tuple[int, int]] = (),
        n_accidents: dict[int, int] | None = None,
        capacity: int = 10**9,
        seconds: Sequence[float] = (),
    ) -> None:
        self.seconds = seconds
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
        seconds = self.seconds[shard] if self.seconds else 0.0
        extra = {"excluded": list(excluded)}
        return ShardReport(shard, self.n_inputs, len(taken), len(excluded), (), seconds, "node07", extra)
