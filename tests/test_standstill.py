"""A driver that stood still for a while takes no worker for lost that it could not hear."""

from dataclasses import dataclass, field

import pytest

from apogee_batch.run.clusters.local import local_dask
from apogee_batch.run.clusters.standstill import TTL, Pulse, forgive_standstill


@dataclass
class Worker:
    last_seen: float = 1000.0


class Search:
    """What looks for silent workers; counts them."""

    def __init__(self, scheduler: "Scheduler") -> None:
        self.callback = lambda: sum(
            scheduler.now - worker.last_seen > 300 for worker in scheduler.workers.values()
        )


@dataclass
class Loop:
    begun: list[object] = field(default_factory=list)

    def add_callback(self, begin: object) -> None:
        self.begun.append(begin)


class Scheduler:
    def __init__(self) -> None:
        self.now = 1000.0
        self.workers = {"a": Worker(), "b": Worker()}
        self.loop = Loop()
        self.periodic_callbacks = {TTL: Search(self)}

    def beat(self, seconds: float) -> None:
        """Let the pulse come again after some time."""
        self.now += seconds
        self.periodic_callbacks["apogee-batch-pulse"].callback()

    def n_silent(self) -> int:
        return self.periodic_callbacks[TTL].callback()


def test_what_comes_late_is_told_by_how_much() -> None:
    pulse = Pulse(10.0)
    assert [pulse.missed_s(now) for now in (5.0, 15.0, 40.0, 45.0, 30.0)] == [0.0, 0.0, 15.0, 0.0, 0.0]


@pytest.mark.parametrize("is_search_first", [True, False])
def test_the_time_of_a_standstill_does_not_count(is_search_first: bool) -> None:
    scheduler = Scheduler()
    forgive_standstill(scheduler, lambda: scheduler.now)
    scheduler.beat(1)
    scheduler.now += 3600
    if not is_search_first:
        scheduler.beat(0)
    assert scheduler.n_silent() == 0


def test_a_silent_worker_is_found_by_a_scheduler_that_runs() -> None:
    scheduler = Scheduler()
    forgive_standstill(scheduler, lambda: scheduler.now)
    for _ in range(400):
        scheduler.beat(1)
        scheduler.workers["a"].last_seen = scheduler.now
    assert scheduler.n_silent() == 1


def test_the_scheduler_of_local_workers_is_one_that_forgives() -> None:
    with local_dask(1, None) as workers:
        scheduler = workers.crew._client.cluster.scheduler
        search, pulse = (scheduler.periodic_callbacks[name] for name in (TTL, "apogee-batch-pulse"))
        assert search.callback.__module__ == forgive_standstill.__module__
        assert pulse.is_running()
    assert not pulse.is_running()
