"""Small training sets from which a network can learn: lines whose depth follows the labels."""

import numpy as np

from apogee_batch.network.recipe import Recipe, load_recipe
from apogee_batch.network.training_set import TrainingSet
from apogee_batch.schema import DATA_SETS
from apogee_batch.survey.pixels import N_PIXELS

N_LINES = 300
SPLIT_PATTERN = ("train", "train", "dev", "train", "test")


def make_training_set(
    n_stars: int = 40, *, seed: int = 1, types: tuple[str, ...] = ("payne", "payne", "mstar", "yso")
) -> TrainingSet:
    """Return stars with gaps, brightnesses over three decades, and all splits of all types."""
    rng = np.random.default_rng(seed)
    labels = rng.normal([3.0, 4700.0, -0.2], [1.0, 700.0, 0.3], (n_stars, 3))
    standardised = (labels - labels.mean(axis=0)) / labels.std(axis=0)
    depth = 0.1 + 0.03 * standardised  # (n_stars, 3)
    flux = np.ones((n_stars, N_PIXELS))
    for k in range(3):
        flux[:, rng.integers(300, 8300, N_LINES)] -= depth[:, [k]]
    flux *= 10 ** rng.uniform(1, 4, (n_stars, 1))
    flux *= rng.normal(1, 0.005, flux.shape)
    for start, stop in ((0, 206), (3310, 3546), (6117, 6303), (8370, N_PIXELS)):
        flux[:, start:stop] = 0
    i = np.arange(n_stars)
    data_type = np.array(types)[i % len(types)]
    data_set = np.array(SPLIT_PATTERN)[i // len(types) % len(SPLIT_PATTERN)]
    assert set(data_set) == set(DATA_SETS)
    return TrainingSet(flux.astype(np.float32), labels, data_type, data_set)


def tiny_recipe(**changes: object) -> Recipe:
    """Return the robust recipe, cut down to a few steps."""
    small = {"batch_size": 8, "max_epochs": 2, "min_steps_per_epoch": 0, "patience": 2}
    rounds = {
        "adaptation_max_epochs": 2,
        "adaptation_max_rounds": 2,
        "adaptation_payne_fraction": 0.5,
        "adaptation_payne_floor": 0.0,
    }
    return Recipe.model_validate(load_recipe("robust").to_json() | small | rounds | changes)
