"""A scheduler that somebody else started: its workers may leave, and others come."""

from typing import Any

import pytest

from apogee_batch.errors import ClusterError
from apogee_batch.run.clusters import address
from apogee_batch.run.clusters.address import MOST_LOOKS, SAY_LOOKS, AddressCrew


class Client:
    """Knows of a worker, or of none, or that its scheduler is gone."""

    def __init__(self) -> None:
        self.told: dict[str, Any] = {"workers": {"tcp://n1:1": {"name": "n1"}}}

    def scheduler_info(self, *, n_workers: int) -> dict[str, Any]:
        assert n_workers == -1, "else Dask tells of five"
        return self.told


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr(address, "LOOK_S", 0.0)
    return Client()


def test_a_run_whose_workers_have_all_left_says_so_once_and_goes_on_when_others_come(client: Client) -> None:
    said: list[str] = []
    crew = AddressCrew(client, "tcp://here:8786", said.append)
    there = client.told
    for client.told in ({"workers": {}}, there, {"workers": {}}):
        for _ in range(SAY_LOOKS - 1):
            crew.check()
        assert said == []
    for _ in range(10):
        crew.check()
    assert said == [
        "WARNING: tcp://here:8786: the scheduler has no workers any more; the run goes on when some are "
        "started with 'dask worker'"
    ]


@pytest.mark.parametrize("told", [{"workers": {}}, {}])
def test_a_run_without_workers_ends_after_an_hour(client: Client, told: dict[str, Any]) -> None:
    crew = AddressCrew(client, "tcp://here:8786", [].append)
    client.told = told
    for _ in range(MOST_LOOKS - 1):
        crew.check()
    with pytest.raises(ClusterError, match="has had no workers for 0 minutes; what was finished is kept"):
        crew.check()


def test_the_scheduler_is_not_asked_all_the_time() -> None:
    crew = AddressCrew(object(), "tcp://here:8786", [].append)
    crew.check()  # would ask what cannot answer
