"""What is measured of residuals and sigmas: worked out by hand, and by laws."""

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_catalogs import ORIGIN, make_catalog, validate_catalog

from apogee_batch.report.labelled import (
    CALIBRATED,
    REALIZATIONS,
    VALIDATION_COLUMNS,
    LabelledStars,
    gather_labelled,
)
from apogee_batch.report.measures import PULL_EDGES, exact_sum, measure_pulls, measure_residuals
from apogee_batch.report.tables import ALL_TYPES
from apogee_batch.report.validation import SNR_EDGES, TEFF_EDGES
from apogee_batch.schema import DATA_SETS, DATA_TYPES, LABEL_NAMES


def test_residuals_worked_out_by_hand() -> None:
    found = measure_residuals(np.array([1.0, 2.0, 3.0, 4.0, 100.0]))
    assert found.rms == pytest.approx(math.sqrt((1 + 4 + 9 + 16 + 10_000) / 5))
    assert found.bias == 3.0
    assert found.scatter == pytest.approx(1.4826)  # deviations 2, 1, 0, 1, 97: their median is 1
    assert found.n_outliers == 1
    assert found.outlier_fraction == 0.2


def test_a_slope_worked_out_by_hand() -> None:
    labels = np.array([1.0, 2.0, 3.0, 6.0])  # distances from their mean: -2, -1, 0, 3
    found = measure_residuals(np.array([1.0, -1.0, 0.0, -1.0]), labels)
    assert found.slope == pytest.approx((-2 + 1 - 3) / 14)  # residuals less their mean of -0.25, and 14 for x
    assert found.to_json()["slope"] == found.slope


def test_predictions_that_are_all_the_same_have_a_slope_of_minus_one() -> None:
    labels = np.array([4000.0, 4100.0, 5200.0])
    assert measure_residuals(4500.0 - labels, labels).slope == -1
    assert measure_residuals(np.full(3, 70.0), labels).slope == 0


def test_a_slope_needs_three_stars_of_different_labels() -> None:
    assert measure_residuals(np.array([1.0, 2.0]), np.array([3.0, 4.0])).slope is None
    assert measure_residuals(np.array([1.0, 2.0, 3.0]), np.full(3, 0.1)).slope is None
    assert measure_residuals(np.array([1.0, 2.0, 4.0])).slope is None


def test_whole_groups_have_a_slope_and_bins_have_none() -> None:
    group = validate_catalog(make_catalog(60)).get(ALL_TYPES, "test")
    assert all(found.residuals.slope is not None for found in group.measures.values())
    for cell in (*group.by_snr, *group.by_teff):
        assert all(found.residuals.slope is None for found in cell.measures.values())


def test_an_outlier_lies_beyond_five_robust_scatters() -> None:
    limit = 5 * 1.4826
    inside = measure_residuals(np.array([-1.0, -1.0, 0.0, 1.0, 1.0, limit * 0.999]) * 1.0)
    assert inside.n_outliers == 0
    assert measure_residuals(np.array([-1.0, -1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 8.0, -1.0, 1.0])).n_outliers == 1


def test_pulls_worked_out_by_hand() -> None:
    residuals = np.array([-6.0, -1.0, 0.0, 1.0, 3.0, 7.0, 5.0])
    sigmas = np.array([1.0, 1.0, 1.0, 2.0, 1.0, np.nan, 0.0], np.float32)
    found = measure_pulls(residuals, sigmas)  # pulls -6, -1, 0, 0.5, 3
    assert (found.n_stars, found.n_without) == (5, 2)
    assert (found.median_sigma, found.median) == (1.0, 0.0)
    assert found.width == pytest.approx(1.4826)  # deviations 6, 1, 0, 0.5, 3
    assert (found.within_1, found.within_2) == (0.6, 0.6)  # the pull of -1 lies within
    assert found.factor == pytest.approx(1 + (0.6827 * 4 - 2) * 2)  # between 1 and 3 of 0, 0.5, 1, 3, 6
    assert found.within_1_chance == pytest.approx(math.sqrt(0.6827 * 0.3173 / 5))
    counts = {PULL_EDGES[i - 1] if i else None: n for i, n in enumerate(found.histogram) if n}
    assert counts == {None: 1, -1.0: 1, 0.0: 1, 0.5: 1, 3.0: 1}
    assert len(found.histogram) == len(PULL_EDGES) + 1


def test_the_width_of_pulls_is_about_their_median() -> None:
    found = measure_pulls(np.array([1.0, 2.0, 3.0, 4.0, 10.0]), np.ones(5, np.float32))
    assert (found.median, found.width) == (3.0, pytest.approx(1.4826))


def test_a_pull_on_the_last_edge_is_counted_above_it() -> None:
    found = measure_pulls(np.array([5.0, 99.0, -5.0]), np.ones(3, np.float32))
    assert (found.histogram[0], found.histogram[1], found.histogram[-1]) == (0, 1, 2)


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_no_order_changes_a_sum(values: list[float], seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(values)
    assert exact_sum(np.array(values)) == exact_sum(shuffled)


def test_a_sum_longer_than_a_block_is_exact() -> None:
    values = np.tile([1e16, 1.0, -1e16], 50_000)
    assert exact_sum(values) == 50_000


def test_perfect_predictions_have_neither_bias_nor_scatter_nor_outliers() -> None:
    catalog = make_catalog(60)
    same = {name: catalog[f"{name}_label"].to_pylist() for name in LABEL_NAMES}
    found = validate_catalog(make_catalog(60, **same))
    for group in found.groups:
        for measure in group.measures.values():
            if group.n_stars:
                residuals = measure.residuals
                assert (residuals.rms, residuals.bias, residuals.scatter) == (0.0, 0.0, 0.0)
                assert residuals.n_outliers == 0
                assert measure.pulls[CALIBRATED].factor == 0.0
                assert measure.pulls[CALIBRATED].within_1 == 1.0


def test_right_sigmas_give_pulls_of_width_one_and_cover_what_they_should() -> None:
    found = validate_catalog(make_catalog(30_000)).get(ALL_TYPES, "test")
    for measure in found.measures.values():
        honest, small = measure.pulls[CALIBRATED], measure.pulls[REALIZATIONS]
        assert honest.width == pytest.approx(1, abs=0.03)
        assert honest.factor == pytest.approx(1, abs=0.03)
        assert honest.within_1 == pytest.approx(0.6827, abs=0.012)
        assert honest.within_2 == pytest.approx(0.9545, abs=0.006)
        assert sum(honest.histogram) == honest.n_stars == 30_000
        assert small.factor == pytest.approx(4 * (honest.factor or 0), rel=1e-6)
        assert small.width == pytest.approx(4, abs=0.12)


@pytest.mark.parametrize("size", [1, 7, 50, 200])
def test_neither_order_nor_pieces_of_the_catalogue_change_a_digit(size: int) -> None:
    catalog = make_catalog(200)
    told = validate_catalog(catalog)
    shuffled = catalog.take(np.random.default_rng(1).permutation(200))
    assert validate_catalog(*(shuffled.slice(i, size) for i in range(0, 200, size))) == told


def test_every_star_is_in_one_bin_of_snr_and_one_of_teff() -> None:
    snr = np.linspace(5, 600, 90).tolist()
    snr[::9] = [None] * 10
    teff = np.linspace(2500, 7500, 90)
    found = validate_catalog(make_catalog(90, snr=snr, teff_label=teff, teff=teff))
    for group in found.groups:
        assert sum(cell.n_stars for cell in group.by_snr) == group.n_stars
        assert sum(cell.n_stars for cell in group.by_teff) == group.n_stars
        assert (len(group.by_snr), len(group.by_teff)) == (len(SNR_EDGES) + 2, len(TEFF_EDGES) + 2)
    last = found.get(ALL_TYPES, "test").by_snr[-1]
    assert (last.name, last.low, last.high, last.n_stars) == ("unknown", None, None, 10)


def test_a_bin_holds_its_lower_edge_and_only_its_stars() -> None:
    catalog = make_catalog(
        4,
        snr=[9.99, 10.0, 19.99, 20.0],
        data_type=["yso"] * 4,
        logg_label=[1.0] * 4,
        logg=[1.5, 2.0, 4.0, 9.0],
    )
    below, first, second, *_ = validate_catalog(catalog).get("yso", "test").by_snr
    assert [(cell.name, cell.n_stars) for cell in (below, first, second)] == [
        ("<10", 1),
        ("10-20", 2),
        ("20-50", 1),
    ]
    assert first.measures["logg"].residuals.rms == pytest.approx(math.sqrt((1 + 9) / 2))
    assert first.measures["logg"].residuals.bias == pytest.approx(2.0)
    assert below.measures["logg"].residuals.scatter is None


def test_bins_of_teff_are_those_of_the_label() -> None:
    catalog = make_catalog(2, data_type=["yso"] * 2, teff_label=[2999.0, 3000.0], teff=[7000.0, 7000.0])
    counts = {cell.name: cell.n_stars for cell in validate_catalog(catalog).get("yso", "test").by_teff}
    assert {name: n for name, n in counts.items() if n} == {"<3000": 1, "3000-3500": 1}


def test_groups_are_of_one_type_and_one_set() -> None:
    words = [(data_type, data_set) for data_type in DATA_TYPES for data_set in DATA_SETS]
    residual = {word: float(i + 1) for i, word in enumerate(words)}
    catalog = make_catalog(
        9,
        data_type=[word[0] for word in words],
        data_set=[word[1] for word in words],
        teff_label=[4000.0] * 9,
        teff=[4000.0 + residual[word] for word in words],
    )
    found = validate_catalog(catalog)
    for word in words:
        assert found.get(*word).measures["teff"].residuals.bias == residual[word]
    assert found.get(ALL_TYPES, "dev").measures["teff"].residuals.bias == 5.0


@pytest.mark.parametrize("column", ["teff", "fe_h_label"])
def test_a_star_that_lacks_a_number_is_counted_and_left_out(column: str) -> None:
    catalog = make_catalog(9)
    values = catalog[column].to_pylist()
    values[0], values[4] = None, math.nan
    found = validate_catalog(make_catalog(9, **{column: values}))
    assert (found.get(ALL_TYPES, "test").n_stars, found.get(ALL_TYPES, "test").n_left_out) == (7, 2)
    assert found.results.get(ALL_TYPES, "test").n_left_out == 2


def test_unlabelled_stars_are_counted_and_not_kept() -> None:
    none = [None] * 6
    catalog = make_catalog(6, data_type=none, data_set=["test"] * 6)
    stars = gather_labelled([catalog, make_catalog(3), make_catalog(6, data_set=none)])
    assert (len(stars), stars.n_catalog) == (3, 15)


@pytest.mark.parametrize("n_stars", [0, 1])
def test_a_catalogue_of_no_star_or_one_has_numbers_or_nulls(n_stars: int) -> None:
    found = validate_catalog(make_catalog(n_stars))
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert told == found.to_json()
    group = next(g for g in told["groups"] if (g["data_type"], g["data_set"]) == ("payne", "test"))
    assert group["n_stars"] == n_stars
    residuals = group["labels"]["teff"]["residuals"]
    assert (residuals["rms"] is None) == (n_stars == 0)
    assert residuals["scatter"] is residuals["outlier_fraction"] is None


def test_no_piece_at_all_is_an_empty_catalogue() -> None:
    found = validate_catalog()
    assert (found.n_catalog, found.n_labelled) == (0, 0)


def keys_of(value: Any) -> Any:
    """Return the keys of JSON values at every depth; lists by their first entry."""
    if isinstance(value, dict):
        return {key: keys_of(entry) for key, entry in value.items()}
    return [keys_of(value[0])] if isinstance(value, list) and value else None


def test_the_keys_of_the_json_are_the_same_for_any_catalogue() -> None:
    full, empty = validate_catalog(make_catalog(50)).to_json(), validate_catalog().to_json()
    assert keys_of(full) == keys_of(empty)
    assert (full["format"], full["version"]) == ("apogee-batch validation", 1)
    assert full["origin"]["run_id"] == ORIGIN.run_id
    assert set(full["groups"][0]["labels"]) == set(LABEL_NAMES)


@pytest.mark.parametrize("way", ["null", "absent"])
def test_a_catalogue_without_calibrated_sigmas_has_nulls_in_their_place(way: str) -> None:
    names = [f"e_{name}_total" for name in LABEL_NAMES]
    catalog = make_catalog(30, **{name: [None] * 30 for name in names})
    found = validate_catalog(catalog if way == "null" else catalog.drop_columns(names))
    assert found.has_sigmas(REALIZATIONS)
    assert not found.has_sigmas(CALIBRATED)
    pulls = found.get(ALL_TYPES, "test").measures["teff"].pulls[CALIBRATED].to_json(has_histogram=True)
    assert (pulls["n_stars"], pulls["n_without_sigma"]) == (0, 30)
    assert pulls["sigma_too_small_by"] is pulls["within_1_sigma"] is None


def test_types_without_any_word_are_no_labelled_stars() -> None:
    columns = {name: pa.nulls(4) for name in VALIDATION_COLUMNS}
    assert len(gather_labelled([pa.table(columns)])) == 0


def test_stars_whose_arrays_do_not_fit_cannot_be_built() -> None:
    codes, floats = np.zeros(2, np.int8), np.zeros((3, 2), np.float32)
    with pytest.raises(ValueError, match="one value for each star"):
        LabelledStars(codes[:1], codes, floats[0], floats, floats, {REALIZATIONS: floats}, 2)
    with pytest.raises(ValueError, match=r"shape \(3, 2\)"):
        LabelledStars(codes, codes, floats[0], floats, floats, {REALIZATIONS: floats[:, :1]}, 2)
