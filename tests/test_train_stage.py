"""The training stage tells at once what goes wrong, and goes on with the threads that it began with."""

import shutil
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from apogee_batch.errors import UsageError
from apogee_batch.network.checkpoint import load_checkpoint, load_tensors, save_checkpoint
from apogee_batch.network.header import CheckpointHeader
from apogee_batch.network.metrics import METRICS_FILE, append_metrics
from apogee_batch.network.recipe import load_recipe
from apogee_batch.network.state import EpochMetrics
from apogee_batch.run import train
from apogee_batch.run.clusters import SerialExecutor, Workers
from apogee_batch.run.config import RunConfig
from apogee_batch.run.job_settings import JobSettings
from apogee_batch.run.lock import hold_lock
from apogee_batch.run.plan import write_plan
from apogee_batch.run.progress import SilentView
from apogee_batch.run.train import plan_training, run_training


class Listener(SilentView):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.notes: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def advance(self, n: int, note: str = "") -> None:
        self.notes.append(note)


def add_epoch(folder: Path, epoch: int, dev_loss: float, warning: str | None = None) -> None:
    metrics = EpochMetrics(
        epoch=epoch,
        round_epoch=epoch,
        max_epochs=9,
        phase="main",
        round=0,
        n_spectra=1,
        n_steps=1,
        learning_rate=0.1,
        train_loss=dev_loss,
        dev_loss=dev_loss,
        dev_loss_by_type={},
        is_best=False,
        n_stale=0,
        patience=9,
        warning=warning,
    )
    append_metrics(folder / METRICS_FILE, metrics, seconds=0.1)


def follow(folder: Path) -> Listener:
    """Follow a training that writes three epochs and is over."""
    future = Future[Any]()

    class WritesThenEnds(Listener):
        def start(self, stage: str, total: int | None, unit: str, done: int = 0) -> None:
            add_epoch(folder, 2, float("nan"))
            add_epoch(folder, 3, 1.01, "learned nothing")
            add_epoch(folder, 4, 0.99, "learned nothing")
            future.set_result(None)

    view = WritesThenEnds()
    train._follow(future, folder, {"schedule": "plateau", "max_epochs": 9}, view, lambda: None)
    return view


def test_a_loss_that_is_no_number_is_shown_as_such(tmp_path: Path) -> None:
    add_epoch(tmp_path, 1, 1.0)
    assert follow(tmp_path).notes == ["dev loss not a number", "dev loss 1.0100", "dev loss 0.9900"]


def test_a_warning_is_said_once_and_one_of_an_earlier_attempt_again(tmp_path: Path) -> None:
    add_epoch(tmp_path, 1, 1.0, "labels are odd")
    said = [line for line in follow(tmp_path).lines if line.startswith("WARNING")]
    assert said == ["WARNING: labels are odd", "WARNING: learned nothing"]


def test_a_trained_model_repeats_what_it_has_against_itself(
    labelled_store: Path, finished_run: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(finished_run / "model", model)
    header = CheckpointHeader.from_json(load_checkpoint(model).header.to_json() | {"warnings": ["odd"]})
    save_checkpoint(model, load_tensors(model / "model.safetensors"), header)
    view = Listener()
    with hold_lock(model / "lock", model) as lock:
        run_training(labelled_store, model, serial_config, Workers(SerialExecutor(), 1, ""), view, lock=lock)
    assert view.lines[:2] == [f"train: {model} is trained already", "WARNING: odd"]
    assert "5 dev stars are too few to calibrate" in view.lines[2]


def threads(store: Path, out: Path, config: RunConfig, wanted: int | None = None) -> int:
    training = config.training.model_copy(update={"threads": wanted})
    config = config.model_copy(update={"training": training})
    return int(plan_training(store, out, config, load_recipe(config.training.recipe))["threads"])


def test_threads_are_those_that_were_begun_or_planned(
    labelled_store: Path, serial_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "available_cores", lambda: 64)
    run = tmp_path / "run"
    assert threads(labelled_store, run / "model", serial_config) == 64
    write_plan(run, {"kind": "run-catalog", "model": {"given": "0"}})
    assert threads(labelled_store, run / "model", serial_config) == 64
    write_plan(run, {"kind": "run-catalog", "model": {"trained": {"threads": 3}}})
    assert threads(labelled_store, run / "model", serial_config) == 3
    write_plan(run / "model", {"kind": "train", "threads": 5})
    assert threads(labelled_store, run / "model", serial_config) == 5
    assert threads(labelled_store, run / "model", serial_config, wanted=7) == 7


def ranks(store: Path, out: Path, config: RunConfig, wanted: int | None = None) -> int | None:
    """The number of ranks in the plan; None where there is none."""
    said = {} if wanted is None else {"workers": wanted}
    config = config.model_copy(update={"training": config.training.model_copy(update=said)})
    found = plan_training(store, out, config, load_recipe(config.training.recipe)).get("workers")
    return None if found is None else int(found)


def test_the_number_of_ranks_is_part_of_the_plan_only_where_there_are_several(
    labelled_store: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    model = tmp_path / "run" / "model"
    assert ranks(labelled_store, model, serial_config) is None
    assert ranks(labelled_store, model, serial_config, 1) is None
    assert ranks(labelled_store, model, serial_config, 3) == 3
    write_plan(model, {"kind": "train", "threads": 5})
    assert ranks(labelled_store, model, serial_config) is None


def test_a_training_goes_on_with_the_ranks_that_it_began_with(
    labelled_store: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    run, model = tmp_path / "run", tmp_path / "run" / "model"
    write_plan(run, {"kind": "run-catalog", "model": {"trained": {"threads": 3, "workers": 4}}})
    assert ranks(labelled_store, model, serial_config) == 4
    write_plan(model, {"kind": "train", "threads": 5, "workers": 2})
    assert ranks(labelled_store, model, serial_config) == 2
    assert ranks(labelled_store, model, serial_config, 1) is None


def test_a_training_with_other_ranks_than_it_began_with_is_refused(
    labelled_store: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    for n_ranks in (2, 3):
        training = serial_config.training.model_copy(update={"workers": n_ranks})
        config = serial_config.model_copy(update={"training": training})
        if n_ranks == 2:
            train.begin_training(labelled_store, tmp_path / "model", config)
            continue
        with pytest.raises(UsageError, match="workers"):
            train.begin_training(labelled_store, tmp_path / "model", config)


def test_ranks_share_the_cores_of_this_machine(
    labelled_store: Path, serial_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "available_cores", lambda: 64)
    for kind, expected in (("serial", 21), ("local", 21), ("slurm", 3)):
        job = JobSettings(cores=12, processes=4)
        cluster = serial_config.cluster.model_copy(update={"kind": kind, "gpu": job})
        training = serial_config.training.model_copy(update={"workers": 3, "threads": None})
        config = serial_config.model_copy(update={"training": training, "cluster": cluster})
        plan = plan_training(labelled_store, tmp_path / kind, config, load_recipe(config.training.recipe))
        assert plan["threads"] == expected


def test_a_resumed_training_is_shown_from_where_it_stopped(tmp_path: Path) -> None:
    class Starts(Listener):
        def start(self, stage: str, total: int | None, unit: str, done: int = 0) -> None:
            self.notes.append(f"{stage}: {done} of {total}")

    add_epoch(tmp_path, 1, 0.5)
    add_epoch(tmp_path, 2, 0.4)
    future, view = Future[Any](), Starts()
    future.set_result([])
    train._follow(future, tmp_path, load_recipe("robust").to_json(), view, lambda: None)
    assert view.lines == ["train: going on after epoch 2"]
    assert view.notes == ["train: 2 of 20"]
