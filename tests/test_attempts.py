"""A task whose worker dies is tried again, twice; what else ends it is told as it is."""

from collections.abc import Callable
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor
from typing import Any

import pytest
from dying_workers import DeathError, DyingExecutor, FakeCrew

from apogee_batch.errors import ClusterError, IncompleteRunError, IntegrityError
from apogee_batch.run import attempts
from apogee_batch.run.attempts import MAX_DEATHS, MAX_TAKEN_AWAY, run_alone, wait_for
from apogee_batch.run.clusters import Workers
from apogee_batch.run.progress import SilentView

WORKERS = Workers(DyingExecutor(), 1, "")


class Listener(SilentView):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def dies(times: int) -> Callable[[], str]:
    """Return a task that ends its worker some times, then says that it is over."""
    left = [times]

    def call() -> str:
        if left[0]:
            left[0] -= 1
            raise DeathError
        return "over"

    return call


@pytest.mark.parametrize("n_deaths", range(MAX_DEATHS))
def test_a_task_goes_on_after_the_deaths_of_its_workers(n_deaths: int) -> None:
    view, followed = Listener(), list[Future[Any]]()
    assert run_alone(WORKERS, dies(n_deaths), "the training", view, follow=followed.append) == "over"
    assert len(followed) == n_deaths + 1
    assert len(view.said) == n_deaths
    assert all(
        text.startswith("WARNING: the training: its worker on node07 died, most likely killed")
        and text.endswith("; it is tried again")
        for text in view.said
    )


def test_a_task_that_keeps_ending_workers_is_given_up_with_a_remedy() -> None:
    with pytest.raises(IncompleteRunError) as caught:
        run_alone(WORKERS, dies(MAX_DEATHS), "the training", SilentView())
    assert str(caught.value) == (
        "the training: its worker on node07 died, most likely killed for want of memory or with its job (it "
        "left no log); it has ended 3 workers: give it more memory or another node; what was finished is "
        "kept, the same command goes on"
    )


def test_an_error_of_the_task_itself_is_raised_at_once() -> None:
    def fail() -> None:
        raise IntegrityError("model.json: damaged")

    with pytest.raises(IntegrityError, match=r"^model\.json: damaged$"):
        run_alone(WORKERS, fail, "the training", SilentView())


def test_a_bug_names_what_was_worked_on() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run_alone(WORKERS, lambda: 1 // 0, "the training", SilentView())
    assert caught.value.__notes__ == ["in the training; what was finished is kept"]


def test_without_a_follower_the_end_is_awaited() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert (
            run_alone(Workers(pool, 1, ""), lambda: sum(range(100_000)), "a sum", SilentView()) == 4999950000
        )


def test_workers_that_were_taken_away_are_not_counted_as_deaths() -> None:
    view, n_times = Listener(), MAX_TAKEN_AWAY
    workers = Workers(DyingExecutor(), 1, "", crew=FakeCrew(verdicts=[True]))
    assert run_alone(workers, dies(n_times), "the training", view) == "over"
    assert len(view.said) == n_times
    assert all(text.endswith("; it goes on in another one") for text in view.said)


def test_a_task_that_loses_workers_for_ever_is_given_up_all_the_same() -> None:
    calls = list[int]()

    def die() -> None:
        calls.append(1)
        raise DeathError

    workers = Workers(DyingExecutor(), 1, "", crew=FakeCrew(verdicts=[True]))
    with pytest.raises(IncompleteRunError, match=r"21 workers in a row were taken away .*--walltime"):
        run_alone(workers, die, "the training", SilentView())
    assert len(calls) == MAX_TAKEN_AWAY + 1


def test_a_task_that_gets_on_may_lose_any_number_of_workers() -> None:
    n_calls = 0
    dying = dies(5 * MAX_TAKEN_AWAY)

    def get_on() -> str:
        nonlocal n_calls
        n_calls += 1
        return dying()

    workers = Workers(DyingExecutor(), 1, "", crew=FakeCrew(verdicts=[True]))
    done = lambda: n_calls // MAX_TAKEN_AWAY  # noqa: E731
    assert run_alone(workers, get_on, "the training", SilentView(), count_done=done) == "over"


def test_a_loss_that_cannot_be_judged_yet_is_asked_about_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "POLL_S", 0.001)
    crew = FakeCrew(verdicts=[None, None, True, None, False])
    view = Listener()
    assert run_alone(Workers(DyingExecutor(), 1, "", crew=crew), dies(2), "it", view) == "over"
    assert [text.rsplit("; ")[-1] for text in view.said] == [
        "it goes on in another one",
        "it is tried again",
    ]


def test_who_waits_hears_that_the_workers_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "POLL_S", 0.001)

    def fail() -> None:
        raise ClusterError("5 jobs in a row ended")

    workers = Workers(DyingExecutor(), 1, "", crew=FakeCrew(on_check=fail))
    for return_when in (ALL_COMPLETED, FIRST_COMPLETED):
        with pytest.raises(ClusterError, match="in a row"):
            wait_for(workers, [Future[None]()], return_when)
    with pytest.raises(ClusterError, match="in a row"):
        run_alone(
            Workers(DyingExecutor(), 1, "", crew=FakeCrew(verdicts=[None], on_check=fail)),
            dies(1),
            "it",
            Listener(),
        )


def test_the_first_of_several_futures_is_not_awaited_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "POLL_S", 0.001)
    done, pending = Future[int](), Future[int]()
    done.set_result(1)
    assert wait_for(WORKERS, [done, pending], FIRST_COMPLETED) == [done]
    assert wait_for(WORKERS, [pending], FIRST_COMPLETED) == []
    assert wait_for(WORKERS, [], FIRST_COMPLETED) == []
    assert wait_for(WORKERS, [done]) == [done]
