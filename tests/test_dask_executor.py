"""Every task ends for those who wait for it, and what goes wrong in a job says in which one."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor, Future, wait
from pathlib import Path
from typing import NoReturn

import pytest

from apogee_batch.errors import IntegrityError, describe_place
from apogee_batch.run.clusters.dask_executor import JOB_VARIABLES, LOGS_VARIABLE, tell_place
from apogee_batch.run.clusters.local import local_dask


def fail() -> None:
    raise IntegrityError("damaged")


def test_an_error_in_a_job_names_node_job_and_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv(LOGS_VARIABLE, "/run/logs")
    with pytest.raises(IntegrityError) as caught:
        tell_place(fail)
    assert describe_place(caught.value) == f" (on {socket.gethostname()}, job 7, log /run/logs/job-7.log)"


def test_an_error_outside_jobs_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in JOB_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(IntegrityError) as caught:
        tell_place(fail)
    assert describe_place(caught.value) == ""


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with local_dask(1, None) as workers:
        yield workers.executor


class LostOnTheWay:
    """What no worker can send: it dies of it."""

    def __reduce__(self) -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def lose_the_result_then_die(marker: Path) -> LostOnTheWay:
    if marker.exists():
        os.kill(os.getpid(), signal.SIGKILL)
    marker.touch()
    return LostOnTheWay()


def test_a_call_given_twice_is_made_twice(executor: Executor) -> None:
    assert executor.submit(time.monotonic_ns).result() != executor.submit(time.monotonic_ns).result()


def test_the_error_of_a_task_is_that_of_its_future(executor: Executor) -> None:
    assert str(executor.submit(fail).exception()) == "damaged"


def test_a_task_whose_result_and_then_whose_next_worker_is_lost_ends(
    executor: Executor, tmp_path: Path
) -> None:
    lost = executor.submit(lose_the_result_then_die, tmp_path / "tried")
    assert type(lost.exception(timeout=60)).__name__ == "KilledWorker"
    assert executor.submit(os.getpid).result(timeout=60) > 0


def test_a_cancelled_task_wakes_those_who_wait(executor: Executor) -> None:
    running, waiting = executor.submit(time.sleep, 1), executor.submit(time.sleep, 0)
    assert waiting.cancel()
    done, _ = wait([waiting], timeout=30)
    assert done == {waiting}
    with pytest.raises(CancelledError):
        waiting.result()
    assert running.result(timeout=30) is None


def test_tasks_of_a_cluster_that_ends_are_cancelled() -> None:
    with local_dask(1, None) as workers:
        left: Future[None] = workers.executor.submit(time.sleep, 1)
    with pytest.raises(CancelledError):
        left.result(timeout=30)
