"""What is drawn for an epoch follows from the seed alone, and holds what it should."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_sets import make_training_set, tiny_recipe

from apogee_batch.network.draws import draw_adaptation_rows, draw_batches

TRAINING_SET = make_training_set()
PAYNE = TRAINING_SET.rows("train", "payne")
FOCUS = TRAINING_SET.rows("train", "mstar", "yso")


@pytest.mark.parametrize(
    ("fraction", "floor", "n_drawn"),
    [
        (0.5, 0.0, len(PAYNE) // 2),
        (0.05, 0.5, len(FOCUS) // 2),
        (0.5, 0.1, len(PAYNE) // 2),
        (0.05, 9.0, len(PAYNE)),
    ],
)
def test_a_round_holds_all_m_dwarfs_and_ysos_and_enough_payne_stars(
    fraction: float, floor: float, n_drawn: int
) -> None:
    recipe = tiny_recipe(adaptation_payne_fraction=fraction, adaptation_payne_floor=floor)
    rows = draw_adaptation_rows(TRAINING_SET, recipe, seed=1, round_=1)
    assert set(FOCUS) <= set(rows)
    assert set(rows) <= set(FOCUS) | set(PAYNE)
    assert len(rows) == len(set(rows)) == len(FOCUS) + n_drawn


def test_every_round_has_payne_stars_of_its_own_and_repeats_them() -> None:
    recipe = tiny_recipe()
    first, again, second = (
        draw_adaptation_rows(TRAINING_SET, recipe, seed=1, round_=round_) for round_ in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(second)


@given(st.integers(1, 40), st.integers(1, 16), st.integers(0, 9), st.integers(0, 2**31), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_an_epoch_passes_over_all_rows_as_often_as_it_says(
    n_rows: int, batch_size: int, min_steps: int, seed: int, epoch: int
) -> None:
    rows = np.arange(100, 100 + n_rows)
    batches = draw_batches(rows, batch_size, min_steps=min_steps, seed=seed, epoch=epoch)
    assert len(batches) >= max(1, min_steps)
    counts = np.bincount(np.concatenate(batches) - 100, minlength=n_rows)
    assert counts.min() == counts.max() >= 1
    assert max(len(batch) for batch in batches) <= batch_size
