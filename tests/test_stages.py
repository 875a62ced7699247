"""A stage commits each shard as it ends, survives what kills workers, and stops at the first that fails."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from dying_workers import CrowdedExecutor, DyingExecutor, FakeTask

from apogee_batch.errors import (
    ClusterError,
    IncompleteRunError,
    IntegrityError,
    TooManyBadInputsError,
    UsageError,
)
from apogee_batch.files import write_text
from apogee_batch.run.clusters import Crew, SerialExecutor, Workers, available_cores, open_workers
from apogee_batch.run.config import ClusterSettings
from apogee_batch.run.deadly import MAX_DEADLY
from apogee_batch.run.ledger import Ledger, ShardReport, relative_digest
from apogee_batch.run.progress import Facts, SilentView
from apogee_batch.run.stages import run_shards


def write_part(
    folder: str,
    bad: int | None,
    shard: int,
    *,
    excluded: Sequence[int] = (),
    only: Sequence[int] | None = None,
) -> ShardReport:
    """Stand for a task: write a file and report it."""
    if shard == bad:
        raise IntegrityError(f"shard {shard} is damaged")
    written = write_text(Path(folder) / f"part-{shard}", str(shard))
    return ShardReport(shard, 1, 1, 0, (relative_digest(written, Path(folder)),), 0.0, str(os.getpid()), {})


def fail(shard: int, *, excluded: Sequence[int] = (), only: Sequence[int] | None = None) -> ShardReport:
    raise ZeroDivisionError(f"shard {shard}")


def shards(n: int) -> dict[int, int]:
    return dict.fromkeys(range(n), 1)


class CountingView(SilentView):
    def __init__(self) -> None:
        self.n_done = 0
        self.said: list[str] = []

    def advance(self, n: int, note: str = "") -> None:
        self.n_done += n

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger", tmp_path, "k")


@pytest.fixture
def crowd() -> Iterator[CrowdedExecutor]:
    with CrowdedExecutor() as executor:
        yield executor


def run_fake(
    task: FakeTask, ledger: Ledger, *, n_shards: int = 6, executor: Executor | None = None, **options: Any
) -> CountingView:
    view = CountingView()
    workers = Workers(executor or DyingExecutor(), 1, "")
    run_shards(workers, task, dict.fromkeys(range(n_shards), task.n_inputs), ledger, view, **options)
    return view


class _LateCrew(Crew):
    """No worker is there when it is asked for some, and then there are two."""

    def __init__(self) -> None:
        self._n_now = 0

    def ask(self, n_workers: int | None) -> None:
        self._n_now = 2

    def count(self) -> int:
        return self._n_now


class _FactsKept(CountingView):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int | None, int | None]] = []

    def show(self, facts: Facts) -> None:
        self.seen.append((facts.workers, facts.wanted))


def test_workers_are_shown_while_the_first_is_waited_for(tmp_path: Path, ledger: Ledger) -> None:
    view = _FactsKept()
    with ThreadPoolExecutor(2) as pool:
        workers = Workers(pool, 2, "", crew=_LateCrew())
        run_shards(workers, partial(write_part, str(tmp_path), None), shards(3), ledger, view)
    assert view.seen[0] == (0, 2)
    assert view.seen[-1] == (2, 2)


@pytest.mark.parametrize("n_workers", [1, 3])
def test_every_shard_is_done_once(tmp_path: Path, ledger: Ledger, n_workers: int) -> None:
    view, reported = CountingView(), list[int]()
    with ThreadPoolExecutor(n_workers) as pool:
        run_shards(
            Workers(pool, n_workers, ""),
            partial(write_part, str(tmp_path), None),
            shards(9),
            ledger,
            view,
            on_report=lambda report: reported.append(report.shard),
        )
    assert set(ledger.done()) == set(range(9))
    assert sorted(reported) == list(range(9))
    assert view.n_done == 9


def test_the_serial_executor_commits_each_shard_before_the_next(tmp_path: Path, ledger: Ledger) -> None:
    def task(shard: int, *, excluded: Sequence[int] = (), only: Sequence[int] | None = None) -> ShardReport:
        assert len(ledger.entries()) == shard
        return write_part(str(tmp_path), None, shard)

    run_shards(Workers(SerialExecutor(), 1, ""), task, shards(4), ledger, SilentView())


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_failure_is_raised_after_the_shards_in_flight_are_committed(
    tmp_path: Path, ledger: Ledger, n_workers: int
) -> None:
    task = partial(write_part, str(tmp_path), 3)
    with ThreadPoolExecutor(n_workers) as pool, pytest.raises(IntegrityError, match="shard 3 is damaged"):
        run_shards(Workers(pool, n_workers, ""), task, shards(50), ledger, SilentView())
    done = set(ledger.done())
    assert {0, 1, 2} <= done
    assert 3 not in done
    assert len(done) < 12


def test_a_bug_keeps_its_type_and_names_its_shard(ledger: Ledger) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run_shards(Workers(SerialExecutor(), 1, ""), fail, shards(1), ledger, SilentView())
    assert caught.value.__notes__ == ["in shard 0; what was finished is kept"]


@pytest.mark.parametrize("n_workers", [1, 2])
def test_an_error_on_a_report_is_raised_after_the_shards_in_flight_are_committed(
    tmp_path: Path, ledger: Ledger, n_workers: int
) -> None:
    reported = list[int]()

    def stop(report: ShardReport) -> None:
        assert report.shard in ledger.done()
        reported.append(report.shard)
        if len(reported) == 2:
            raise TooManyBadInputsError("2 of 2 are bad")

    task = partial(write_part, str(tmp_path), None)
    with (
        ThreadPoolExecutor(n_workers) as pool,
        pytest.raises(TooManyBadInputsError, match=r"^2 of 2 are bad$"),
    ):
        run_shards(Workers(pool, n_workers, ""), task, shards(50), ledger, SilentView(), on_report=stop)
    assert set(ledger.done()) == set(reported)
    assert 2 <= len(reported) < 10


def test_an_error_on_the_report_of_a_suspect_shard_is_raised_too(ledger: Ledger) -> None:
    def stop(report: ShardReport) -> None:
        if report.n_rejected:
            raise TooManyBadInputsError("1 of 16 is bad")

    with pytest.raises(TooManyBadInputsError):
        run_fake(FakeTask(deadly=[(1, 3), (2, 3)]), ledger, on_report=stop)
    assert set(ledger.done()) == {0, 1, 3, 4, 5}


@pytest.mark.parametrize("n_accidents", [1, 2])
def test_a_shard_whose_worker_was_killed_from_outside_is_done_whole(ledger: Ledger, n_accidents: int) -> None:
    task = FakeTask(n_accidents={1: n_accidents})
    view = run_fake(task, ledger)
    assert [report.n_rejected for report in ledger.entries()] == [0] * 6
    assert len(task.calls) == 6 + n_accidents
    assert view.n_done == 6 * 16
    assert len(view.said) == n_accidents
    assert view.said[0] == (
        "WARNING: shard 1: its worker on node07 died, most likely killed for want of memory or with its job "
        "(it left no log); it is tried again"
    )


def test_a_suspect_shard_waits_until_the_others_are_done(ledger: Ledger) -> None:
    task = FakeTask(n_accidents={0: 2})
    run_fake(task, ledger, n_shards=4)
    assert [shard for shard, _, _ in task.calls] == [0, 1, 2, 3, 0, 0]


@pytest.mark.parametrize(
    "positions", [[0], [15], [7, 8], [0, 5, 15], list(range(MAX_DEADLY))], ids=lambda p: f"{len(p)}-{p[0]}"
)
def test_inputs_that_end_every_worker_are_left_out_and_nothing_else(
    ledger: Ledger, positions: list[int]
) -> None:
    task = FakeTask(deadly=[(2, i) for i in positions])
    view = run_fake(task, ledger)
    for report in ledger.entries():
        assert report.extra["excluded"] == (positions if report.shard == 2 else [])
        assert report.n_stars == 16 - len(report.extra["excluded"])
    assert len(ledger.done()) == 6
    assert task.calls[-1] == (2, tuple(positions), None)
    assert view.n_done == 6 * 16
    listed = ", ".join(map(str, positions))
    assert (
        f"those at {listed} end every worker that takes them and are rejected as WORKER_KILLED"
        in view.said[-1]
    )


def test_a_rehearsal_is_not_committed(ledger: Ledger) -> None:
    reports = list[ShardReport]()
    run_fake(FakeTask(deadly=[(2, 4)]), ledger, on_report=reports.append)
    assert sorted(report.shard for report in reports) == list(range(6))


def test_bystanders_lose_nothing(ledger: Ledger, crowd: CrowdedExecutor) -> None:
    task = FakeTask(deadly=[(1, 3), (3, 0), (3, 9)])
    run_fake(task, ledger, executor=crowd)
    assert crowd.n_bystanders
    assert [report.extra["excluded"] for report in ledger.entries()] == [[], [3], [], [0, 9], [], []]


def test_too_many_deadly_inputs_end_the_stage(ledger: Ledger) -> None:
    with pytest.raises(IncompleteRunError) as caught:
        run_fake(FakeTask(deadly=[(1, i) for i in range(MAX_DEADLY + 1)]), ledger)
    assert "shard 1: more than 8 of its inputs end their worker each by itself" in str(caught.value)
    assert "the installation or the node (its worker on node07 died" in str(caught.value)
    assert caught.value.exit_code == 75
    assert set(ledger.done()) == {0, 2, 3, 4, 5}


def test_where_every_shard_ends_its_worker_the_stage_stops_soon(ledger: Ledger) -> None:
    task = FakeTask(deadly=[(shard, i) for shard in range(200) for i in range(16)])
    with pytest.raises(IncompleteRunError, match="the installation or the node"):
        run_fake(task, ledger, n_shards=200)
    assert task.n_deaths < 300


def test_a_shard_too_large_for_memory_ends_the_stage_with_a_remedy(ledger: Ledger) -> None:
    task = FakeTask(capacity=9)
    with pytest.raises(
        IncompleteRunError, match=r"shard 0: ends its worker, though each part .*--shard-stars"
    ):
        run_fake(task, ledger, n_shards=1)
    assert ledger.entries() == []
    assert [call for call in task.calls if call[2] is None] == [(0, (), None)] * 4


def test_a_shard_too_large_for_memory_is_not_taken_for_one_with_a_deadly_input(ledger: Ledger) -> None:
    with pytest.raises(IncompleteRunError, match="shard 0: ends its worker without the inputs at 3, though"):
        run_fake(FakeTask(capacity=9, deadly=[(0, 3)]), ledger, n_shards=1)


def test_three_workers_killed_from_outside_blame_no_input(ledger: Ledger) -> None:
    run_fake(FakeTask(n_accidents={0: 3}), ledger, n_shards=1)
    assert ledger.entries()[0].n_stars == 16


def test_a_bug_that_shows_in_a_rehearsal_is_raised(ledger: Ledger) -> None:
    class Buggy(FakeTask):
        def __call__(
            self, shard: int, *, excluded: Sequence[int] = (), only: Sequence[int] | None = None
        ) -> ShardReport:
            if only is not None:
                raise ZeroDivisionError
            return super().__call__(shard, excluded=excluded, only=only)

    with pytest.raises(ZeroDivisionError) as caught:
        run_fake(Buggy(deadly=[(0, 0)]), ledger)
    assert caught.value.__notes__ == ["in shard 0; what was finished is kept"]


def test_a_lost_cluster_leaves_a_run_to_resume(ledger: Ledger) -> None:
    class Gone(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.cancel()
            future.set_running_or_notify_cancel()
            return future

    with pytest.raises(
        IncompleteRunError, match=r"shard 0: its workers were lost \(CancelledError\)"
    ) as caught:
        run_fake(FakeTask(), ledger, executor=Gone())
    assert caught.value.exit_code == 75


def test_an_interrupt_leaves_at_once_without_half_of_a_shard(ledger: Ledger) -> None:
    class Interrupted(FakeTask):
        def __call__(self, shard: int, **options: Any) -> ShardReport:
            if shard == 2:
                raise KeyboardInterrupt
            return super().__call__(shard, **options)

    task = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        run_fake(task, ledger)
    assert set(ledger.done()) == {0, 1}
    assert len(task.calls) == 2


def die_once(
    folder: str, shard: int, *, excluded: Sequence[int] = (), only: Sequence[int] | None = None
) -> ShardReport:
    mark = Path(folder) / f"died-{shard}"
    if shard == 1 and not mark.exists():
        mark.touch()
        os._exit(1)
    return write_part(folder, None, shard)


def test_a_lost_worker_of_a_local_cluster_costs_nothing(
    tmp_path: Path, ledger: Ledger, capfd: pytest.CaptureFixture[str]
) -> None:
    view = CountingView()
    with open_workers(ClusterSettings(kind="local", workers=1), logs=tmp_path / "logs") as workers:
        run_shards(workers, partial(die_once, str(tmp_path)), shards(3), ledger, view)
    assert set(ledger.done()) == {0, 1, 2}
    (log,) = (tmp_path / "logs").iterdir()
    assert any(f"shard 1: its worker on {os.uname().nodename} died" in text for text in view.said)
    assert all(f"({log} tells of no crash); it is tried again" in text for text in view.said)
    assert capfd.readouterr() == ("", "")


def test_workers_share_all_memory_since_one_of_them_trains() -> None:
    with open_workers(ClusterSettings(kind="local", workers=2)) as workers:
        limits = workers.executor.submit(read_memory_limit).result()
    assert limits > 0.9 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def read_memory_limit() -> int:
    from distributed import get_worker

    return int(get_worker().memory_manager.memory_limit)


def test_a_local_cluster_works_in_other_processes(tmp_path: Path, ledger: Ledger) -> None:
    with open_workers(ClusterSettings(kind="local", workers=2)) as workers:
        assert workers.n_workers == 2
        run_shards(workers, partial(write_part, str(tmp_path), None), shards(6), ledger, SilentView())
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
    monkeypatch.setattr("apogee_batch.run.clusters.address.CONNECT_TIMEOUT_S", 0.5)
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
