"""A stage that asks for workers gets jobs, hears of their end, and learns whose fault a lost worker is."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from distributed.scheduler import KilledWorker
from fake_queue import FIRST_ID, Site

from apogee_batch.errors import ClusterError
from apogee_batch.run.clusters import dask_crew, queue_crew
from apogee_batch.run.clusters.queue_crew import QueueCrew
from apogee_batch.run.clusters.scheduler_view import WorkerSeen
from apogee_batch.run.clusters.silence import Silence

A, B, C = (str(FIRST_ID + i) for i in range(3))


class View:
    """Shows the workers of a fake site."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.error: Exception | None = None

    def workers(self) -> Mapping[str, WorkerSeen]:
        if self.error is not None:
            raise self.error
        return dict(self.site.workers)


class Run:
    """A crew in a fake site."""

    def __init__(self, logs: Path, n_workers: int, n_processes: int) -> None:
        self.site = Site(logs, n_jobs=0, n_processes=n_processes)
        self.view = View(self.site)
        self.n_checked = 0
        self.crew = QueueCrew(
            None,
            n_workers,
            n_processes=n_processes,
            view=self.view,  # type: ignore[arg-type]
            supervisor=self.site.supervisor,
            roster=self.site.roster,
            silence=Silence(self.site.queue, self.site.said.append, 3600.0),
            walltime_s=1200.0,
            on_first=self.check_first,
        )

    def check_first(self) -> None:
        self.n_checked += 1

    def start_soon(self, job_id: str) -> None:
        """Let a job start once it is submitted."""

        def start() -> None:
            wait_until(lambda: job_id in self.site.queue.jobs)
            self.site.start(job_id)

        threading.Thread(target=start).start()

    def lose(self, worker: str) -> KilledWorker:
        """Let a worker process be gone; return what a task on it raises."""
        self.site.workers.pop(worker, None)
        last = SimpleNamespace(name=worker, server_id="Worker-0", host="n1")
        return KilledWorker("task", last, 0)  # type: ignore[arg-type]


def wait_until(is_so: Callable[[], object]) -> None:
    end = time.monotonic() + 5
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def new_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Run]]:
    monkeypatch.setattr(queue_crew, "INTERVAL_S", 0.01)
    monkeypatch.setattr(queue_crew, "JUDGE_S", 0.1)
    runs = list[Run]()

    def make(n_workers: int = 2, n_processes: int = 1) -> Run:
        runs.append(Run(tmp_path, n_workers, n_processes))
        return runs[-1]

    yield make
    for run in runs:
        run.crew.close()


@pytest.fixture
def run(new_run: Callable[..., Run]) -> Run:
    """Two workers, one of them there."""
    run = new_run()
    run.start_soon(A)
    run.crew.ask(None)
    return run


def test_the_first_worker_is_awaited_and_checked_once(run: Run) -> None:
    assert run.crew.count() == 1
    assert run.n_checked == 1
    run.site.start(B)
    wait_until(lambda: run.crew.count() == 2)
    run.crew.ask(1)
    run.crew.ask(2)
    assert run.n_checked == 1


def test_a_job_holds_several_workers_and_no_more_is_asked_for_than_configured(
    new_run: Callable[..., Run],
) -> None:
    run = new_run(5, 2)
    run.start_soon(A)
    run.crew.ask(100)
    assert len(run.site.queue.jobs) == 3
    run.crew.ask(3)
    wait_until(lambda: len(run.site.wanted()) == 2)


def test_what_is_given_back_leaves_the_queue(run: Run) -> None:
    run.crew.ask(0)
    wait_until(lambda: not run.site.queue.live())
    assert run.site.said == []


def test_at_the_end_all_jobs_are_cancelled_and_nobody_looks_any_more(run: Run) -> None:
    run.crew.close()
    assert run.site.queue.live() == []
    n_jobs = len(run.site.queue.jobs)
    time.sleep(0.05)
    assert len(run.site.queue.jobs) == n_jobs
    assert "jobs" not in {thread.name for thread in threading.enumerate()}


def test_the_queue_is_asked_less_often_when_nothing_changes(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_crew, "QUIET_S", 0.05)
    monkeypatch.setattr(queue_crew, "QUIET_INTERVAL_S", 3600.0)
    n_asked, ask = [0], run.site.queue.list

    def count(job_ids: Any) -> Any:
        n_asked[0] += 1
        return ask(job_ids)

    monkeypatch.setattr(run.site.queue, "list", count)
    time.sleep(0.2)
    quiet = n_asked[0]
    time.sleep(0.1)
    assert n_asked[0] == quiet
    run.site.start(B)
    wait_until(lambda: n_asked[0] > quiet)
    run.crew.ask(1)
    wait_until(lambda: len(run.site.wanted()) == 1)


def test_who_waits_for_several_workers_is_told_why_not_all_are_there(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.crew, "_silence", Silence(run.site.queue, run.site.said.append, 0.05))
    monkeypatch.setattr(run.crew, "addresses", lambda: list(run.site.workers))
    monkeypatch.setattr(dask_crew, "POLL_S", 0.01)
    monkeypatch.setattr(dask_crew, "DaskExecutor", lambda _, *, worker: worker)

    def start_late() -> None:
        wait_until(lambda: run.site.said)
        assert run.site.supervisor.n_needed == 2
        run.site.start(B)

    starter = threading.Thread(target=start_late)
    starter.start()
    assert run.crew.places(2) == ["w1", "w2"]
    starter.join()
    assert run.site.supervisor.n_needed == 1
    assert run.site.said[0].startswith("1 of 2 workers for 0 s: ")
    n_said = len(run.site.said)
    run.site.leave(B)
    time.sleep(0.1)
    assert not [text for text in run.site.said[n_said:] if "workers for" in text]


def test_a_job_that_is_refused_at_first_ends_the_run_at_once(new_run: Callable[..., Run]) -> None:
    run = new_run()
    run.site.queue.refusal = "Invalid account"
    with pytest.raises(ClusterError, match="Invalid account"):
        run.crew.ask(1)


def test_jobs_that_keep_dying_are_heard_of_while_waiting(new_run: Callable[..., Run]) -> None:
    run = new_run(1)
    run.site.endings.n_in_a_row = 4

    def kill() -> None:
        wait_until(run.site.queue.live)
        run.site.queue.put(A, "RUNNING")
        time.sleep(0.05)
        run.site.end(A)

    threading.Thread(target=kill).start()
    with pytest.raises(ClusterError, match="5 jobs in a row"):
        run.crew.ask(1)
    with pytest.raises(ClusterError):
        run.crew.check()


def test_one_look_that_fails_is_not_the_last(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    run.view.error = ZeroDivisionError()
    wait_until(lambda: "a look at the jobs failed" in caplog.text)
    run.view.error = None
    run.site.start(B)
    wait_until(lambda: run.crew.count() == 2)


def judge(run: Run, error: KilledWorker) -> bool | None:
    """Ask until there is an answer."""
    answers = list[bool | None]()

    def is_answered() -> bool:
        answers.append(run.crew.is_taken_away(error))
        return answers[-1] is not None

    wait_until(is_answered)
    return answers[-1]


def test_a_worker_that_does_not_come_back_was_taken_away(run: Run) -> None:
    error = run.lose("w1")
    assert run.crew.is_taken_away(error) is None
    assert judge(run, error) is True


def test_a_worker_that_comes_back_died_of_its_task(run: Run) -> None:
    error = run.lose("w1")
    assert run.crew.is_taken_away(error) is None
    run.site.start(A)
    assert run.crew.is_taken_away(error) is False


@pytest.mark.parametrize(
    ("state", "is_taken"), [("TIMEOUT", True), ("PREEMPTED", True), ("OUT_OF_MEMORY", False)]
)
def test_the_end_of_its_job_tells_why_a_worker_was_lost(
    run: Run, monkeypatch: pytest.MonkeyPatch, state: str, is_taken: bool
) -> None:
    monkeypatch.setattr(queue_crew, "JUDGE_S", 60.0)
    error = run.lose("w1")
    wait_until(lambda: run.site.roster.active[A].state == "RUNNING")
    run.site.end(A, state)
    assert judge(run, error) is is_taken


def test_a_job_that_was_ended_for_its_stuck_task_was_not_taken_away(run: Run) -> None:
    error = run.lose("w1")
    run.site.supervisor._end(run.site.roster.active[A], "a task of it lasts", 0.0, is_innocent=False)
    assert run.crew.is_taken_away(error) is False
    assert "was lost (ended by this run: a task of it lasts; log " in str(run.crew.describe_loss(error))


def test_a_worker_of_a_job_that_was_given_back_or_is_unknown_was_taken_away(run: Run) -> None:
    assert run.crew.is_taken_away(run.lose("w99")) is True
    run.crew.ask(0)
    wait_until(lambda: not run.site.queue.live())
    assert run.crew.is_taken_away(run.lose("w1")) is True


def test_a_lost_worker_is_described_by_job_node_and_log(run: Run) -> None:
    wait_until(lambda: run.site.roster.active[A].node)
    assert run.crew.describe_loss(run.lose("w1")) == (
        f"its worker in job {A} on n1 was lost (log {run.site.logs}/job-{A}.log)"
    )
    assert run.crew.describe_loss(run.lose("w99")) is None


def test_a_task_may_last_a_quarter_of_the_walltime(run: Run) -> None:
    assert run.crew.longest_task_s() == 300
    for seconds in (3.0, 7.0, 5.0):
        run.crew.note_task(seconds)
    assert run.site.supervisor.longest_task_s == 7.0


def test_a_stage_that_leaves_during_a_submission_leaves_no_job(
    new_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, is_asked, goes_on = new_run(30), threading.Event(), threading.Event()
    submit = run.site.queue.submit

    def slow(script: str, *, folder: Path) -> str:
        is_asked.set()
        assert goes_on.wait(5)
        return submit(script, folder=folder)

    monkeypatch.setattr(run.site.queue, "submit", slow)
    asking = threading.Thread(target=leave_quietly, args=(run.crew.ask, None))
    asking.start()
    assert is_asked.wait(5)
    closing = threading.Thread(target=run.crew.close)
    closing.start()
    goes_on.set()
    closing.join(5)
    assert not closing.is_alive()
    assert run.site.queue.live() == []
    run.view.error = None
    run.crew._failure = ClusterError("over")  # lets the one that asks go
    asking.join(5)
    assert not asking.is_alive()


def leave_quietly(call: Callable[..., Any], *args: Any) -> None:
    try:
        call(*args)
    except ClusterError:
        return
