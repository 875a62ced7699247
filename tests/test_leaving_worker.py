"""A training whose worker leaves writes nothing more: it goes on in another one, in the same folder."""

from types import SimpleNamespace

import pytest
from distributed import Status

from apogee_batch.errors import IncompleteRunError
from apogee_batch.network.recipe import load_recipe
from apogee_batch.run import train_task
from apogee_batch.run.clusters import is_leaving


@pytest.mark.parametrize(
    ("status", "leaves"),
    [
        (Status.running, False),
        (Status.paused, False),
        (Status.closing_gracefully, True),
        (Status.closing, True),
        (Status.closed, True),
    ],
)
def test_a_task_knows_whether_its_worker_leaves(
    monkeypatch: pytest.MonkeyPatch, status: Status, leaves: bool
) -> None:
    assert not is_leaving()
    monkeypatch.setattr("distributed.get_worker", lambda: SimpleNamespace(status=status))
    assert is_leaving() is leaves


def test_a_training_stands_still_where_its_worker_leaves_and_goes_on_where_it_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(train_task, "POLL_S", 0.001)
    answers = [True, True, False]
    monkeypatch.setattr(train_task, "is_leaving", lambda: answers.pop(0))
    train_task._OnWorker().check()
    assert answers == []
    monkeypatch.setattr(train_task, "LEAVE_S", 0.01)
    monkeypatch.setattr(train_task, "is_leaving", lambda: True)
    with pytest.raises(IncompleteRunError):
        train_task._OnWorker().check()


def test_a_training_asks_before_each_step_and_before_it_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setattr(train_task, "read_training_set", lambda _: None)
    monkeypatch.setattr(
        train_task,
        "train_in_folder",
        lambda *_, **options: seen.update(options) or SimpleNamespace(warnings=[]),
    )
    train_task.train_network("store", "out", load_recipe("robust").to_json(), 0, 1, "cpu")
    monkeypatch.setattr(train_task, "LEAVE_S", 0.0)
    monkeypatch.setattr(train_task, "is_leaving", lambda: True)
    with pytest.raises(IncompleteRunError):
        seen["on_step"](1, 2)
    with pytest.raises(IncompleteRunError):
        seen["ranks"].check()
