"""A training killed by SIGKILL, at any step of any commit or at random, ends with the same weights."""

import os
import random
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from crashing import KILLED, NAME_CALLS, choose, crash, fork, record, start, telling, telling_names, wait_for
from training_sets import make_training_set, tiny_recipe

from apogee_batch.network.metrics import METRICS_FILE, read_metrics
from apogee_batch.network.training_folder import train_in_folder
from apogee_batch.network.training_set import TrainingSet
from apogee_batch.run import commands
from apogee_batch.run.config import RunConfig
from apogee_batch.run.progress import SilentView

pytestmark = [pytest.mark.fault, pytest.mark.usefixtures("one_thread")]

MODEL = ("model.safetensors", "model.json")
N_KILLS = 3


@pytest.fixture(scope="module")
def stars() -> TrainingSet:
    """A training set of a few steps an epoch."""
    return make_training_set(20)


def train(stars: TrainingSet, folder: Path) -> None:
    """Train for an epoch, and another one in a round of adaptation."""
    recipe = tiny_recipe(max_epochs=1, adaptation_max_epochs=1, adaptation_max_rounds=1)
    train_in_folder(folder, stars, recipe, seed=1, n_threads=1)


def model_bytes(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in MODEL}


@pytest.fixture(scope="module")
def undisturbed(stars: TrainingSet, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A model folder that nobody disturbed, and the seconds it took."""
    folder = tmp_path_factory.mktemp("undisturbed") / "model"
    fork(partial(train, stars, folder.with_name("warm")))
    started = time.monotonic()
    assert fork(partial(train, stars, folder)) == 0
    return folder, time.monotonic() - started


def check_model(folder: Path, expected: Path) -> None:
    """Check that a training has ended as the undisturbed one, and has left nothing else."""
    assert model_bytes(folder) == model_bytes(expected)
    assert sorted(path.name for path in folder.iterdir()) == sorted(p.name for p in expected.iterdir())
    epochs = [line["epoch"] for line in read_metrics(folder / METRICS_FILE)]
    assert epochs == [line["epoch"] for line in read_metrics(expected / METRICS_FILE)]


@pytest.mark.parametrize("how", [telling, telling_names], ids=["commits", "names"])
def test_a_training_killed_at_any_step_of_any_commit_ends_with_the_same_weights(
    stars: TrainingSet, undisturbed: tuple[Path, float], tmp_path: Path, how: object
) -> None:
    folder = tmp_path / "first"
    points = record(partial(train, stars, folder), folder, how)
    assert {point.kind for point in points if point.step not in NAME_CALLS} or how is telling_names
    for point in choose(points):
        folder = tmp_path / f"model{point.number}"
        assert crash(partial(train, stars, folder), folder, point, how) == KILLED, point
        assert fork(partial(train, stars, folder)) == 0, point
        check_model(folder, undisturbed[0])
        shutil.rmtree(folder)


@pytest.mark.parametrize("seed", range(3))
def test_a_training_killed_at_random_moments_ends_with_the_same_weights(
    stars: TrainingSet, undisturbed: tuple[Path, float], tmp_path: Path, seed: int
) -> None:
    moments, folder = random.Random(seed), tmp_path / "model"
    for _ in range(N_KILLS):
        pid = start(partial(train, stars, folder))
        time.sleep(moments.uniform(0, undisturbed[1]))
        os.kill(pid, signal.SIGKILL)
        wait_for(pid)
    assert fork(partial(train, stars, folder)) == 0
    check_model(folder, undisturbed[0])


def test_a_training_command_killed_while_it_clears_up_leaves_nothing_more_than_the_model(
    labelled_store: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    recipe = tmp_path / "short.toml"
    short = Path(serial_config.training.recipe).read_text().replace("max_epochs = 2", "max_epochs = 1")
    recipe.write_text(short.replace("adaptation_max_rounds = 1", "adaptation_max_rounds = 0"))
    training = serial_config.training.model_copy(update={"recipe": str(recipe)})
    config = serial_config.model_copy(update={"training": training})

    def give(folder: Path) -> None:
        commands.train(labelled_store, folder, config=config, progress=SilentView())

    expected = tmp_path / "first"
    points = record(partial(give, expected), expected, telling_names)
    cleared = [point for point in points if point.step == "unlink" and "state" in point.kind]
    assert len(cleared) == 2
    for point in cleared:
        folder = tmp_path / f"model{point.number}"
        assert crash(partial(give, folder), folder, point, telling_names) == KILLED
        assert fork(partial(give, folder)) == 0
        check_model(folder, expected)
