"""What Dask's own loops may take of the cores that compute."""

import logging
import os
import sys
import time

import dask
import distributed  # noqa: F401  the settings are its own
import psutil
import pytest

from apogee_batch.run.clusters.dask_policy import OF_WORKERS, SELDOM
from apogee_batch.run.clusters.local import local_dask


def told() -> dict[str, object]:
    """Return what this process has been told."""
    return {key: dask.config.get(key) for key in OF_WORKERS}


def wakings(n_seconds: float, pid: int) -> float:
    """Return how often a second a process wakes."""
    process = psutil.Process(pid)
    before = process.num_ctx_switches().voluntary
    time.sleep(n_seconds)
    return (process.num_ctx_switches().voluntary - before) / n_seconds


def test_local_workers_look_after_themselves_seldom() -> None:
    before = told()
    assert not before.items() & SELDOM.items()
    with local_dask(1, None) as workers:
        assert workers.executor.submit(told).result() == OF_WORKERS
        main_thread = workers.executor.submit(os.getpid).result()
        assert wakings(2, main_thread) < 40  # 102 with what Dask does unasked, 4 without
    assert told() == before


def speak() -> None:
    """Say what Dask says when its own silence is over, as in a worker that is closed while it starts."""
    for handler in logging.getLogger("distributed").handlers:
        handler.setLevel(logging.NOTSET)
    logging.getLogger("distributed.worker").error("closed while it started")
    sys.stderr.flush()


def test_a_local_worker_never_speaks_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with local_dask(1, None) as workers:
        workers.executor.submit(speak).result()
    assert capfd.readouterr() == ("", "")


def test_what_local_workers_are_told_is_forgotten_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    with local_dask(1, None) as workers:
        assert "DASK_LOGGING__DISTRIBUTED" in os.environ
        assert workers.executor.submit(os.environ.get, "PYTHONWARNINGS").result() == "error"  # of the user
    assert "DASK_LOGGING__DISTRIBUTED" not in os.environ
    assert os.environ["PYTHONWARNINGS"] == "error"
