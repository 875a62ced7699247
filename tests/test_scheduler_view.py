"""What the scheduler knows of its workers is seen from another thread: how many tasks, and since when."""

import asyncio
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from apogee_batch.run.clusters import scheduler_view
from apogee_batch.run.clusters.scheduler_view import SchedulerView


class Cluster:
    """A scheduler without workers, and the loop that it runs in."""

    def __init__(self) -> None:
        asyncio_loop = asyncio.new_event_loop()
        self.loop = SimpleNamespace(asyncio_loop=asyncio_loop)
        self.plugins: list[Any] = []
        self.scheduler = SimpleNamespace(workers={}, add_plugin=self.plugins.append)
        self.thread = threading.Thread(target=asyncio_loop.run_forever)
        self.thread.start()

    def put(self, address: str, name: str, n_processing: int) -> None:
        self.scheduler.workers[address] = SimpleNamespace(name=name, processing=range(n_processing))

    def finish(self, address: str, end: str = "memory") -> None:
        self.plugins[0].transition("task", "processing", end, worker=address)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.loop.asyncio_loop.call_soon_threadsafe(cluster.loop.asyncio_loop.stop)
    cluster.thread.join()
    cluster.loop.asyncio_loop.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(scheduler_view, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_tasks_are_counted_by_the_worker_that_ended_them(cluster: Cluster, clock: SimpleNamespace) -> None:
    view = SchedulerView(cluster)
    assert view.workers() == {}
    cluster.put("tls://a:1", "w1-0", 2)
    cluster.put("tls://b:1", "w2", 0)
    cluster.finish("tls://a:1")
    cluster.finish("tls://a:1", "erred")
    cluster.plugins[0].transition("task", "waiting", "processing", worker="tls://b:1")
    seen = view.workers()
    assert {name: (worker.n_processing, worker.n_done) for name, worker in seen.items()} == {
        "w1-0": (2, 2),
        "w2": (0, 0),
    }


def test_the_end_of_a_worker_is_no_task_done(cluster: Cluster) -> None:
    view = SchedulerView(cluster)
    cluster.finish("tls://gone:1", "erred")  # Dask blames the task once the worker is forgotten
    cluster.put("tls://gone:1", "w1", 0)
    assert view.workers()["w1"].n_done == 0


def test_progress_begins_with_a_task_and_again_with_the_next(
    cluster: Cluster, clock: SimpleNamespace
) -> None:
    view = SchedulerView(cluster)
    times = list[float]()
    for now, n_processing in ((100, 0), (200, 1), (300, 1), (400, 0), (500, 2), (600, 2)):
        clock.now = now
        cluster.put("tls://a:1", "w1", n_processing)
        times.append(view.workers()["w1"].progress)
    assert times == [100, 200, 200, 200, 500, 500]
    clock.now = 700
    cluster.finish("tls://a:1")
    assert view.workers()["w1"].progress == 700


def test_a_process_that_was_started_again_is_not_taken_for_a_stuck_one(
    cluster: Cluster, clock: SimpleNamespace
) -> None:
    view = SchedulerView(cluster)
    cluster.put("tls://a:1", "w1", 1)
    cluster.finish("tls://a:1")
    view.workers()
    cluster.scheduler.workers.clear()
    clock.now = 5000
    cluster.put("tls://a:2", "w1", 1)
    seen = view.workers()["w1"]
    assert seen.progress == 5000
    assert seen.n_done == 1


def test_a_scheduler_that_does_not_answer_is_not_awaited_for_ever(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_view, "ANSWER_S", 0.01)
    view = SchedulerView(cluster)
    cluster.loop.asyncio_loop.call_soon_threadsafe(time.sleep, 0.2)
    with pytest.raises(TimeoutError):
        view.workers()
