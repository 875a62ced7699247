"""Dask inside this process: it works, and has no door but one without anything behind it."""

import threading
import urllib.error
import urllib.request

import psutil
import pytest

from apogee_batch.errors import ClusterError
from apogee_batch.run.clusters import in_process
from apogee_batch.run.clusters.in_process import in_process_dask


def listening() -> set[tuple[str, int]]:
    found = psutil.Process().net_connections(kind="inet")
    return {(door.laddr.ip, door.laddr.port) for door in found if door.status == psutil.CONN_LISTEN}


def test_tasks_run_in_a_thread_of_this_process() -> None:
    before = psutil.Process().children()
    with in_process_dask() as client:
        assert client.submit(lambda x: x + 1, 1).result() == 2
        assert client.submit(threading.get_ident, pure=False).result() != threading.get_ident()
        assert psutil.Process().children() == before
        assert str(client.scheduler.address).startswith("inproc://")


def test_what_listens_is_on_this_machine_and_has_no_page() -> None:
    before = listening()
    with in_process_dask():
        doors = listening() - before
        assert {host for host, _ in doors} == {"127.0.0.1"}
        for _, port in doors:
            for page in ("", "info/main/workers.html", "status", "json/counts.json", "health", "metrics"):
                with pytest.raises(urllib.error.HTTPError, match="404"):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=30)
    assert listening() <= before


def test_what_cannot_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import distributed

    def fail(*arguments: object, **named: object) -> None:
        raise RuntimeError("Cluster failed to start: no address")

    monkeypatch.setattr(distributed, "SpecCluster", fail)
    with (
        pytest.raises(ClusterError, match=r"no Dask in this process: .* no address"),
        in_process.in_process_dask(),
    ):
        pass
