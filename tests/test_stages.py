"""A stage commits each shard as it ends, on any executor, and stops at the first that fails."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from apogee_batch.errors import ClusterError, IncompleteRunError, IntegrityError, UsageError
from apogee_batch.run.clusters import SerialExecutor, Workers, available_cores, open_workers
from apogee_batch.run.config import ClusterSettings
from apogee_batch.run.ledger import Ledger, ShardReport, describe_file
from apogee_batch.run.progress import SilentView
from apogee_batch.run.stages import run_shards


def write_part(folder: str, bad: int | None, shard: int) -> ShardReport:
    """Stand for a task: write a file and report it."""
    if shard == bad:
        raise IntegrityError(f"shard {shard} is damaged")
    path = Path(folder) / f"part-{shard}"
    path.write_text(str(shard))
    return ShardReport(shard, 1, 1, 0, (describe_file(path, Path(folder)),), 0.0, str(os.getpid()), {})


def fail(shard: int) -> ShardReport:
    raise ZeroDivisionError(f"shard {shard}")


class CountingView(SilentView):
    def __init__(self) -> None:
        self.n_done = 0

    def advance(self, n: int, note: str = "") -> None:
        self.n_done += n


@pytest.mark.parametrize("n_workers", [1, 3])
def test_every_shard_is_done_once(tmp_path: Path, n_workers: int) -> None:
    ledger, view = Ledger(tmp_path / "ledger", tmp_path, "k"), CountingView()
    with ThreadPoolExecutor(n_workers) as pool:
        run_shards(
            Workers(pool, n_workers, ""), partial(write_part, str(tmp_path), None), range(9), ledger, view
        )
    assert set(ledger.done()) == set(range(9))
    assert view.n_done == 9


def test_the_serial_executor_commits_each_shard_before_the_next(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", tmp_path, "k")

    def task(shard: int) -> ShardReport:
        assert len(ledger.entries()) == shard
        return write_part(str(tmp_path), None, shard)

    run_shards(Workers(SerialExecutor(), 1, ""), task, range(4), ledger, SilentView())


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_failure_is_raised_after_the_shards_in_flight_are_committed(tmp_path: Path, n_workers: int) -> None:
    ledger = Ledger(tmp_path / "ledger", tmp_path, "k")
    task = partial(write_part, str(tmp_path), 3)
    with ThreadPoolExecutor(n_workers) as pool, pytest.raises(IntegrityError, match="shard 3 is damaged"):
        run_shards(Workers(pool, n_workers, ""), task, range(50), ledger, SilentView())
    done = set(ledger.done())
    assert {0, 1, 2} <= done
    assert 3 not in done
    assert len(done) < 12


def test_a_bug_keeps_its_type_and_names_its_shard(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", tmp_path, "k")
    with pytest.raises(ZeroDivisionError) as caught:
        run_shards(Workers(SerialExecutor(), 1, ""), fail, [0], ledger, SilentView())
    assert caught.value.__notes__ == ["in shard 0; what was finished is kept"]


def kill_worker(folder: str, always: bool, shard: int) -> ShardReport:
    """Stand for a task that dies with its worker: once, or every time."""
    mark = Path(folder) / f"died-{shard}"
    if shard == 1 and (always or not mark.exists()):
        mark.touch()
        os._exit(1)
    return write_part(folder, None, shard)


def test_a_lost_worker_costs_nothing_once_and_leaves_a_run_to_resume_in_the_end(tmp_path: Path) -> None:
    with open_workers(ClusterSettings(kind="local", workers=1)) as workers:
        ledger = Ledger(tmp_path / "ledger", tmp_path, "k")
        run_shards(workers, partial(kill_worker, str(tmp_path), False), range(3), ledger, SilentView())
        assert set(ledger.done()) == {0, 1, 2}
        task = partial(kill_worker, str(tmp_path), True)
        with pytest.raises(
            IncompleteRunError, match=r"shard 1: its worker was lost \(KilledWorker\)"
        ) as caught:
            run_shards(workers, task, [1], Ledger(tmp_path / "other", tmp_path, "k"), SilentView())
        assert caught.value.exit_code == 75


def test_workers_share_all_memory_since_one_of_them_trains() -> None:
    with open_workers(ClusterSettings(kind="local", workers=2)) as workers:
        limits = workers.executor.submit(read_memory_limit).result()
    assert limits > 0.9 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def read_memory_limit() -> int:
    from distributed import get_worker

    return int(get_worker().memory_manager.memory_limit)


def test_a_local_cluster_works_in_other_processes(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", tmp_path, "k")
    with open_workers(ClusterSettings(kind="local", workers=2)) as workers:
        assert workers.n_workers == 2
        run_shards(workers, partial(write_part, str(tmp_path), None), range(6), ledger, SilentView())
    reports = ledger.done()
    assert set(reports) == set(range(6))
    assert str(os.getpid()) not in {entry.host for entry in reports.values()}


def test_a_running_scheduler_is_reached_by_its_address() -> None:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1,
        processes=False,
        threads_per_worker=1,
        host="127.0.0.1",
        protocol="tcp://",
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        settings = ClusterSettings(kind="address", address=cluster.scheduler_address)
        with open_workers(settings) as workers:
            assert workers.n_workers == 1
            assert workers.executor.submit(abs, -3).result() == 3


def test_wrong_cluster_settings_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apogee_batch.run.clusters.CONNECT_TIMEOUT_S", 0.5)
    with pytest.raises(UsageError, match="needs --address"), open_workers(ClusterSettings(kind="address")):
        pass
    with (
        pytest.raises(UsageError, match="goes with"),
        open_workers(ClusterSettings(kind="serial", address="x")),
    ):
        pass
    settings = ClusterSettings(kind="address", address="tcp://127.0.0.1:9")
    with pytest.raises(ClusterError, match="no Dask scheduler answers"), open_workers(settings):
        pass


def test_the_cores_are_those_that_this_process_may_use() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
