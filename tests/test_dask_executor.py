"""Every task ends for those who wait for it, and what goes wrong in a job says in which one."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor, Future, wait
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest

from apogee_batch.errors import ClusterError, IntegrityError, describe_place
from apogee_batch.run.clusters import dask_executor, is_lost_cluster
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


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), CancelledError(), asyncio.CancelledError()]
)
def test_a_task_that_gives_itself_up_is_no_lost_worker(executor: Executor, error: BaseException) -> None:
    pid = executor.submit(os.getpid).result(timeout=60)
    found = executor.submit(throw, error).exception(timeout=60)
    assert isinstance(found, RuntimeError)
    assert type(error).__name__ in str(found)
    assert executor.submit(os.getpid).result(timeout=60) == pid


def throw(error: BaseException) -> NoReturn:
    raise error


def test_nothing_is_left_of_tasks_that_are_over() -> None:
    with local_dask(1, None) as workers:
        client = workers.crew._client
        for call in (os.getpid, fail, partial(throw, CancelledError())):
            wait([workers.executor.submit(call)], timeout=60)
        until = time.monotonic() + 30
        while (left := list(client.futures)) and time.monotonic() < until:
            time.sleep(0.05)
        assert left == []


def test_a_task_for_a_cluster_that_is_gone_is_cancelled() -> None:
    with local_dask(1, None) as workers:
        pass
    with pytest.raises(CancelledError) as caught:
        workers.executor.submit(os.getpid).result(timeout=30)
    assert is_lost_cluster(caught.value)


class OutOfReach:
    """A task that is finished on a worker whom nobody can call."""

    status = "finished"
    is_released = False

    def __await__(self) -> Iterator[None]:
        while True:
            yield from asyncio.sleep(0.01).__await__()

    def cancelled(self) -> bool:
        return False

    def release(self) -> None:
        self.is_released = True


def test_a_result_that_cannot_be_had_is_an_error_that_says_what_may_be_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dask_executor, "LOOK_S", 0.01)
    task, handed = OutOfReach(), Future[None]()
    asyncio.run(dask_executor._hand_over(task, handed))
    with pytest.raises(ClusterError, match="must be able to connect to the workers' nodes; try --interface"):
        handed.result(timeout=1)
    assert task.is_released


def test_a_task_that_lasts_long_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_executor, "LOOK_S", 0.001)
    task, handed = OutOfReach(), Future[None]()
    task.status = "pending"

    async def look_for_a_while() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(dask_executor._hand_over(task, handed), 1)

    asyncio.run(look_for_a_while())
    assert handed.cancelled()
