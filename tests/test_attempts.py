"""A task whose worker dies is tried again, twice; what else ends it is told as it is."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from dying_workers import DeathError, DyingExecutor

from apogee_batch.errors import IncompleteRunError, IntegrityError
from apogee_batch.run.attempts import MAX_DEATHS, run_alone
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
