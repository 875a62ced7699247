"""Splits: a star's split is its own, and the fractions come out right."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apogee_batch.labels.splits import SPLIT_FRACTIONS, assign_split, uniform_of_name
from apogee_batch.schema import DATA_SETS, DATA_TYPES

NAMES = [f"2M{i:08d}+{7 * i % 10**7:07d}" for i in range(20_000)]


@pytest.mark.parametrize("data_type", DATA_TYPES)
def test_fractions_are_right_to_within_sampling(data_type: str) -> None:
    counts = Counter(assign_split(name, data_type) for name in NAMES)
    train, dev = SPLIT_FRACTIONS[data_type]
    for data_set, fraction in zip(DATA_SETS, (train, dev, 1 - train - dev), strict=True):
        five_sigma = 5 * (len(NAMES) * fraction * (1 - fraction)) ** 0.5
        assert abs(counts[data_set] - fraction * len(NAMES)) < five_sigma


@given(st.text(max_size=30), st.sampled_from(DATA_TYPES))
def test_any_name_has_one_split(name: str, data_type: str) -> None:
    split = assign_split(name, data_type)
    assert split in DATA_SETS
    assert assign_split(name, data_type) == split
    assert 0 <= uniform_of_name(name) < 1


def test_the_splits_of_published_checkpoints_do_not_move() -> None:
    # a change of the hash would put training stars into the test set of every model trained before
    names = ["2M00000032+5737103", "2M19390532+4027346", "2M03290406+3117075", "2M12241699+2453335"]
    assert [uniform_of_name(name) for name in names] == pytest.approx(
        [0.7574571347937642, 0.3900866091158228, 0.2529415735123699, 0.5467253901259461], abs=1e-12
    )


def test_training_stars_of_the_smaller_fraction_are_training_stars_of_the_larger() -> None:
    for name in NAMES[:2000]:
        if assign_split(name, "yso") == "train":
            assert assign_split(name, "payne") == "train"
