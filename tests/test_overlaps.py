"""What a command does while it would only wait: imports for later, and workers that stop meanwhile."""

import asyncio
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from apogee_batch.run.clusters import Crew
from apogee_batch.run.clusters.local import LocalCrew
from apogee_batch.run.clusters.refill import Refill
from apogee_batch.run.import_ahead import import_ahead


class FakeCluster:
    """Starts as many workers as it is told, and notes it."""

    def __init__(self) -> None:
        self.worker_spec: dict[int, Any] = {}
        self.workers: dict[int, Any] = {}
        self.n_starts = 0
        self.scales: list[int] = []
        self.loop = SimpleNamespace(add_callback=lambda call, *arguments: call(*arguments))

    def new_worker_spec(self) -> dict[int, Any]:
        return {len(self.worker_spec): {}}

    def scale(self, n_workers: int) -> None:
        self.scales.append(n_workers)

    def __await__(self) -> Any:
        self.n_starts += 1
        return asyncio.sleep(0).__await__()


def test_dismissed_local_workers_are_stopped_and_never_started_again() -> None:
    cluster = FakeCluster()
    refill = Refill(cluster, 2)
    asyncio.run(refill.check())
    LocalCrew(SimpleNamespace(), refill).dismiss()
    asyncio.run(refill.check())
    assert (cluster.scales, cluster.n_starts) == ([0], 1)


def test_workers_that_cannot_be_dismissed_are_given_back() -> None:
    asked = list[int | None]()

    class Noting(Crew):
        def ask(self, n_workers: int | None) -> None:
            asked.append(n_workers)

    Noting().dismiss()
    assert asked == [0]


def test_modules_are_imported_ahead_and_what_is_wrong_with_one_is_left_to_those_who_need_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "this_is_no_module", raising=False)
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    import_ahead("this_is_no_module", "colorsys").join(timeout=60)
    assert "colorsys" in sys.modules
