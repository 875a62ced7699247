"""Places for tasks that must each have a worker of their own, and whether that worker is still there."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from apogee_batch.errors import ClusterError
from apogee_batch.run.clusters import Crew, dask_crew
from apogee_batch.run.clusters.dask_crew import DaskCrew
from apogee_batch.run.clusters.dask_executor import DaskExecutor


class Client:
    """Knows workers by address and name."""

    def __init__(self, **names: str) -> None:
        self.workers = {address: {"name": name} for address, name in names.items()}

    def scheduler_info(self, *, n_workers: int) -> dict[str, Any]:
        assert n_workers == -1, "else Dask tells of five"
        return {"workers": dict(self.workers)}


def test_each_place_is_a_worker_and_it_shows_when_that_has_left() -> None:
    client = Client(a="w2", b="w1", c="w3")
    crew = DaskCrew(client)
    places = crew.places(2)
    assert [place.worker for place in places if isinstance(place, DaskExecutor)] == ["b", "a"]
    assert [crew.is_there(place) for place in places] == [True, True]
    del client.workers["a"]
    assert [crew.is_there(place) for place in places] == [True, False]


def test_a_place_that_is_no_certain_worker_is_always_there() -> None:
    assert DaskCrew(Client()).is_there(DaskExecutor(Client()))
    assert Crew().is_there(ThreadPoolExecutor(1))


def test_places_that_cannot_be_had_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_crew, "START_TIMEOUT_S", 0.0)
    monkeypatch.setattr(dask_crew, "POLL_S", 0.01)
    with pytest.raises(ClusterError, match="2 workers are needed at the same time, 1 are there"):
        DaskCrew(Client(a="w1")).places(2)
