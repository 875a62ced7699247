"""A stage whose workers come and go: what a queue takes away is done again, and nobody waits for the dead."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest
from dying_workers import DyingExecutor, FakeCrew, FakeTask, end_of

from apogee_batch.errors import ClusterError, IncompleteRunError
from apogee_batch.run import attempts
from apogee_batch.run.clusters import Workers
from apogee_batch.run.deadly import MAX_DEADLY
from apogee_batch.run.ledger import Ledger
from apogee_batch.run.progress import SilentView
from apogee_batch.run.stages import IN_FLIGHT_PER_WORKER, MAX_TAKEN_AWAY, run_shards


class Listener(SilentView):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


class PatientExecutor(Executor):
    """Takes tasks, and does one when it is told to."""

    def __init__(self) -> None:
        self.tasks: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.tasks.append((future, lambda: fn(*args, **kwargs)))
        return future

    def do_one(self) -> None:
        future, call = self.tasks.pop(0)
        future.set_result(end_of(call).result())


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setattr(attempts, "POLL_S", 0.001)
    return Ledger(tmp_path / "ledger", tmp_path, "k")


def run(
    task: FakeTask,
    ledger: Ledger,
    crew: FakeCrew,
    *,
    n_shards: int = 6,
    n_workers: int = 3,
    executor: Executor | None = None,
) -> Listener:
    view = Listener()
    workers = Workers(executor or DyingExecutor(), n_workers, "", crew=crew)
    run_shards(workers, task, dict.fromkeys(range(n_shards), task.n_inputs), ledger, view)
    return view


def test_workers_that_were_taken_away_are_no_fault_of_their_shards(ledger: Ledger) -> None:
    n_times = {1: MAX_TAKEN_AWAY, 4: MAX_TAKEN_AWAY}
    task = FakeTask(n_accidents=n_times)
    view = run(task, ledger, FakeCrew(verdicts=[True]))
    assert view.said == []
    assert len(task.calls) == 6 + 2 * MAX_TAKEN_AWAY
    assert {report.shard: report.n_rejected for report in ledger.entries()} == dict.fromkeys(range(6), 0)


def test_a_shard_whose_workers_are_always_taken_away_is_left_for_the_next_time(ledger: Ledger) -> None:
    task = FakeTask(n_accidents={2: 10**6})
    with pytest.raises(IncompleteRunError, match=r"shard 2: .* took away 11 workers .*--walltime"):
        run(task, ledger, FakeCrew(verdicts=[True]))
    assert sorted(ledger.done()) == [0, 1, 3, 4, 5]
    assert len(task.calls) == 5 + MAX_TAKEN_AWAY + 1
    assert all(only is None for _, _, only in task.calls), "no input was suspected"


def test_no_input_is_blamed_for_workers_that_are_taken_away_while_deadly_ones_are_sought(
    ledger: Ledger,
) -> None:
    task = FakeTask(n_accidents={0: 10**6})
    with pytest.raises(IncompleteRunError, match="took away 11 workers"):
        run(task, ledger, FakeCrew(verdicts=[False, False, False, True]), n_shards=1)
    assert list(ledger.entries()) == []


def test_a_worker_that_is_taken_away_in_a_rehearsal_blames_no_input(ledger: Ledger) -> None:
    task = FakeTask(n_accidents={0: 5})
    run(task, ledger, FakeCrew(verdicts=[False, False, True, True, True]), n_shards=1)
    assert [report.extra["excluded"] for report in ledger.entries()] == [[]]


def test_without_workers_to_blame_everything_is_done_alone_in_the_end(ledger: Ledger) -> None:
    task = FakeTask(deadly=[(0, i) for i in range(MAX_DEADLY + 1)])
    with pytest.raises(IncompleteRunError, match="the installation or the node"):
        run(task, ledger, FakeCrew(verdicts=[False]))


def test_a_loss_that_cannot_be_judged_yet_holds_up_no_other_shard(ledger: Ledger) -> None:
    task = FakeTask(n_accidents={0: 1})
    view = run(task, ledger, FakeCrew(verdicts=[None] * 5 + [True]))
    assert [shard for shard, _, _ in task.calls][:2] == [0, 1]
    assert task.calls[-1][0] == 0 or len(task.calls) == 7
    assert sorted(ledger.done()) == list(range(6))
    assert view.said == []


def test_a_loss_is_judged_also_when_it_is_the_last_thing_to_do(ledger: Ledger) -> None:
    crew = FakeCrew(verdicts=[None, None, None, False])
    view = run(FakeTask(n_accidents={0: 1}), ledger, crew, n_shards=1)
    assert sorted(ledger.done()) == [0]
    assert [text.rsplit("; ")[-1] for text in view.said] == ["it is tried again"]


def test_as_many_shards_are_in_flight_as_the_workers_of_the_moment_take(ledger: Ledger) -> None:
    executor, n_seen = PatientExecutor(), list[tuple[int, int]]()

    def look() -> None:
        n_seen.append((crew.n_workers, len(executor.tasks)))
        crew.n_workers = min(crew.n_workers + 1, 3)
        executor.do_one()

    crew = FakeCrew(0, on_check=look)
    run(FakeTask(), ledger, crew, n_shards=20, executor=executor)
    assert n_seen[:3] == [(n, IN_FLIGHT_PER_WORKER * max(n, 1)) for n in range(3)]
    assert max(n for _, n in n_seen) == 3 * IN_FLIGHT_PER_WORKER
    assert len(ledger.done()) == 20


def test_at_the_tail_no_more_workers_are_asked_for_than_there_are_shards(ledger: Ledger) -> None:
    executor = PatientExecutor()
    crew = FakeCrew(2, on_check=executor.do_one)
    run(FakeTask(), ledger, crew, n_shards=10, executor=executor)
    assert crew.asked[0] == 10
    assert 0 not in crew.asked
    assert list(dict.fromkeys(crew.asked[1:])) == [4, 3, 2, 1]


def test_a_shard_that_is_lost_at_the_tail_keeps_its_worker(ledger: Ledger) -> None:
    crew = FakeCrew(verdicts=[None, None, True])
    run(FakeTask(n_accidents={5: 1}), ledger, crew)
    assert 0 not in crew.asked


def test_a_stage_ends_when_its_workers_are_gone_for_good(ledger: Ledger) -> None:
    def fail() -> None:
        raise ClusterError("5 jobs in a row ended")

    executor = PatientExecutor()
    with pytest.raises(ClusterError, match="in a row"):
        run(FakeTask(), ledger, FakeCrew(on_check=fail), executor=executor)
    with pytest.raises(ClusterError, match="in a row"):  # while it waits for a verdict
        run(FakeTask(n_accidents={0: 1}), ledger, FakeCrew(verdicts=[None], on_check=fail), n_shards=1)


def test_of_shards_that_take_over_a_quarter_of_the_walltime_the_first_is_told(ledger: Ledger) -> None:
    seconds = [5.0, 99.0, 100.0, 101.0, 50.0, 300.0]
    crew = FakeCrew(longest_s=100.0)
    view = run(FakeTask(seconds=seconds), ledger, crew)
    assert crew.noted == seconds
    (text,) = view.said
    assert text.startswith("WARNING: shard 3 took 101 s on node07, over a quarter of the walltime of its job")
    assert "--walltime" in text


def test_where_workers_stay_no_shard_is_too_long(ledger: Ledger) -> None:
    assert run(FakeTask(seconds=[1e6] * 6), ledger, FakeCrew()).said == []
