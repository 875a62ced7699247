"""Flags: each bit is set where its description in the schema says, and nowhere else."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_rows import star_table

from apogee_batch.catalog.flags import compute_flags, has_prediction, mark_duplicates
from apogee_batch.schema import LABEL_NAMES, catalog_flags
from apogee_batch.survey.pixels import StarFlag

CLEAN = {"logg": 4.0, "teff": 5000.0, "fe_h": 0.0}
SMALL = {"logg": 0.01, "teff": 20.0, "fe_h": 0.01}
RANGE = {"logg": (0.0, 5.5), "teff": (3000.0, 7000.0), "fe_h": (-2.0, 0.5)}


def names_of(flags: int) -> set[str]:
    return {flag.name for flag in catalog_flags().values() if flags & (1 << flag.bit)}


def flags_of_one(
    *,
    mean: dict[str, float] | None = None,
    std: dict[str, float] | None = None,
    label_range: dict[str, tuple[float, float]] | None = None,
    **columns: Any,
) -> set[str]:
    """Return the flags of a clean star with some things changed."""
    means = np.array([[(CLEAN | (mean or {}))[name] for name in LABEL_NAMES]], dtype=np.float32)
    stds = np.array([[(SMALL | (std or {}))[name] for name in LABEL_NAMES]], dtype=np.float32)
    is_predicted = has_prediction(means, stds, means, n_realizations=100)
    stars = star_table(1, **{name: [value] for name, value in columns.items()})
    flags = compute_flags(stars, mean=means, std=stds, is_predicted=is_predicted, label_range=label_range)
    assert flags.dtype == np.int32
    return names_of(int(flags[0]))


def test_a_clean_star_has_no_flag() -> None:
    assert flags_of_one(label_range=RANGE) == set()


@pytest.mark.parametrize(
    ("snr", "is_low"), [(20.0, False), (19.99, True), (np.nan, True), (None, True), (-1, True)]
)
def test_low_snr(snr: float | None, is_low: bool) -> None:
    assert ("LOW_SNR" in flags_of_one(snr=snr, snr_header=snr)) is is_low


@pytest.mark.parametrize(
    ("snr", "card", "differs"),
    [
        (100.0, 100.9, False),
        (100.0, 99.5, False),
        (100.0, 102.0, True),
        (100.0, 98.0, True),
        (100.0, None, False),
        (100.0, np.nan, False),
        (None, 100.0, True),
        (30.0, 0.0, True),
    ],
)
def test_snr_mismatch(snr: float | None, card: float | None, differs: bool) -> None:
    assert ("SNR_MISMATCH" in flags_of_one(snr=snr, snr_header=card)) is differs


@pytest.mark.parametrize(("teff", "is_edge"), [(6700.0, False), (6700.5, True), (3000.0, False)])
def test_teff_edge(teff: float, is_edge: bool) -> None:
    assert ("TEFF_EDGE" in flags_of_one(mean={"teff": teff})) is is_edge


@pytest.mark.parametrize("label", LABEL_NAMES)
def test_outside_training(label: str) -> None:
    low, high = RANGE[label]
    for value, is_outside in ((low, False), (high, False), (low - 0.5, True), (high + 0.5, True)):
        assert ("OUTSIDE_TRAINING" in flags_of_one(mean={label: value}, label_range=RANGE)) is is_outside
        assert "OUTSIDE_TRAINING" not in flags_of_one(mean={label: value}, label_range=None)


def test_limits_are_those_of_float32() -> None:
    # the largest label of the training set is no outlier, though float32 rounds it up
    highest = 4.0001
    assert float(np.float32(highest)) > highest
    tight = RANGE | {"logg": (0.0, highest)}
    assert flags_of_one(mean={"logg": highest}, label_range=tight) == set()
    assert flags_of_one(std={"logg": 0.2, "fe_h": 0.1, "teff": 200.0}) == set()


@pytest.mark.parametrize(("label", "above"), [("teff", 200.1), ("logg", 0.201), ("fe_h", 0.101)])
def test_high_scatter(label: str, above: float) -> None:
    assert flags_of_one(std={label: above}) == {"HIGH_SCATTER"}


@pytest.mark.parametrize("is_outside", [True, False])
@pytest.mark.parametrize("is_strange", [True, False])
def test_what_a_calibration_says_wins_over_the_range(is_outside: bool, is_strange: bool) -> None:
    far = np.array([[9.0, 9000.0, 2.0]], dtype=np.float32)
    for mean, is_predicted in ((far, True), (far / 3, True), (far, False)):
        flags = compute_flags(
            star_table(1),
            mean=mean,
            std=mean * np.float32(0.001),
            is_predicted=np.array([is_predicted]),
            label_range=RANGE,
            is_outside=np.array([is_outside]),
            is_strange=np.array([is_strange]),
        )
        names = names_of(int(flags[0]))
        assert ("OUTSIDE_TRAINING" in names) is (is_outside and is_predicted)
        assert ("STRANGE_SPECTRUM" in names) is (is_strange and is_predicted)


@pytest.mark.parametrize(("n_bad_pixels", "is_many"), [(1715, False), (1716, True)])
def test_many_bad_pixels(n_bad_pixels: int, is_many: bool) -> None:
    assert ("MANY_BAD_PIXELS" in flags_of_one(n_bad_pixels=n_bad_pixels)) is is_many


@pytest.mark.parametrize("bit", range(32))
def test_starflag_bad_is_set_by_its_four_bits_only(bit: int) -> None:
    bad = [StarFlag.BAD_PIXELS, StarFlag.VERY_BRIGHT_NEIGHBOR, StarFlag.BAD_RV_COMBINATION, StarFlag.RV_FAIL]
    assert ("STARFLAG_BAD" in flags_of_one(starflag=1 << bit)) is ((1 << bit) in [int(b) for b in bad])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_prediction_sets_no_other_flag_of_the_prediction(value: float) -> None:
    assert flags_of_one(mean={"teff": value}, label_range=RANGE) == {"NO_PREDICTION"}
    assert flags_of_one(std={"teff": value}, label_range=RANGE) == {"NO_PREDICTION"}


def test_one_realization_has_no_scatter_and_is_a_prediction_all_the_same() -> None:
    mean = np.ones((1, 3), dtype=np.float32)
    nothing = np.full((1, 3), np.nan, dtype=np.float32)
    assert has_prediction(mean, nothing, mean, n_realizations=1).tolist() == [True]
    assert has_prediction(mean, nothing, mean, n_realizations=2).tolist() == [False]
    assert has_prediction(mean, mean, nothing, n_realizations=1).tolist() == [False]


def catalog_of(names: list[tuple[str, str]], flags: list[int]) -> pa.Table:
    columns = {"apstar_id": [a for a, _ in names], "apogee_id": [b for _, b in names], "flags": flags}
    types = {"apstar_id": pa.string(), "apogee_id": pa.string(), "flags": pa.int32()}
    return pa.table(columns, schema=pa.schema(types))


def test_duplicates_are_other_spectra_of_the_star_but_not_other_visits() -> None:
    names = [("r8.A", "A"), ("r5.A", "A"), ("r8.B.visit01", "B"), ("r8.B.visit02", "B"), ("r8.C", "C")]
    marked = mark_duplicates(catalog_of(names, [1, 0, 0, 0, 4]))
    bit = 1 << catalog_flags()["DUPLICATE"].bit
    assert marked["flags"].to_pylist() == [1 | bit, bit, 0, 0, 4]
    assert marked.schema.field("flags").type == pa.int32()


@given(st.lists(st.tuples(st.sampled_from(["f", "g", "f.visit1"]), st.sampled_from("ABC")), unique=True))
@settings(max_examples=50, deadline=None)
def test_marking_duplicates_twice_is_marking_once(rows: list[tuple[str, str]]) -> None:
    names = [(f"{a.split('.')[0]}.{b}{a[1:]}", b) for a, b in rows]
    once = mark_duplicates(catalog_of(names, [0] * len(names)))
    assert mark_duplicates(once).equals(once)
    cleared = mark_duplicates(once.slice(0, 1))  # alone, no star is a duplicate
    assert cleared["flags"].to_pylist() == [0] * cleared.num_rows
