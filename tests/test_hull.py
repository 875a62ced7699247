import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apogee_batch.errors import IntegrityError
from apogee_batch.network.hull import LEAST_LABELS, LabelHull, fit_hull
from apogee_batch.schema import DoubleArray

SCALE = np.array([1.2, 700.0, 0.3])
MIDDLE = np.array([3.0, 4800.0, -0.2])
GIANT, DWARF, BETWEEN = [1.5, 4300.0, -0.2], [4.6, 5200.0, 0.0], [4.3, 4150.0, -0.2]


def _labels(n_stars: int, seed: int) -> DoubleArray:
    """Return labels of giants along one line and of dwarfs along another, with nothing between them."""
    rng = np.random.default_rng(seed)
    along, is_giant = rng.uniform(0, 1, n_stars), rng.uniform(0, 1, n_stars) < 0.6
    logg = np.where(is_giant, 0.5 + 3 * along, 4.7 - 0.5 * along)
    teff = np.where(is_giant, 3800 + 1200 * along, 4800 + 1600 * along)
    around = rng.normal(0, [0.05, 40, 0.02], (n_stars, 3))
    return np.stack([logg, teff, rng.uniform(-0.8, 0.3, n_stars)], axis=1) + around


def _fit(labels: DoubleArray, predicted: DoubleArray | None = None) -> LabelHull:
    hull = fit_hull(labels, predicted)
    assert hull is not None
    return hull


@pytest.fixture(scope="module")
def hull() -> LabelHull:
    return _fit(_labels(3000, 1))


@st.composite
def label_sets(draw: st.DrawFn) -> DoubleArray:
    """Labels of 100 stars and more: one cloud or two, wide or narrow, with or without stars far away."""
    n_stars = draw(st.integers(LEAST_LABELS, 400))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cloud = rng.normal(size=(n_stars, 3)) + draw(st.floats(0, 20)) * (rng.uniform(size=(n_stars, 1)) < 0.3)
    cloud[: draw(st.integers(0, 3))] *= draw(st.floats(1, 1e4))
    size = 10 ** draw(st.floats(-3, 3))
    return np.asarray(MIDDLE + size * SCALE * cloud)


@given(labels=label_sets())
@settings(max_examples=30, deadline=None)
def test_the_training_labels_are_inside(labels: DoubleArray) -> None:
    assert _fit(labels).contains(labels).all()


@given(labels=label_sets(), direction=st.integers(0, 5), factor=st.floats(1, 1e12))
@settings(max_examples=30, deadline=None)
def test_what_is_far_from_all_labels_is_outside(labels: DoubleArray, direction: int, factor: float) -> None:
    reach = np.zeros(3)
    reach[direction % 3] = 6 * labels.std(axis=0)[direction % 3] * factor * (1 if direction < 3 else -1)
    beyond = (labels.max(axis=0) if direction < 3 else labels.min(axis=0)) + reach
    assert not _fit(labels).contains(beyond[None]).any()


@given(labels=label_sets(), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_neither_order_nor_repetition_changes_anything(labels: DoubleArray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(labels)), rng.integers(0, len(labels), 50)])
    first, second = _fit(labels), _fit(labels[order])
    assert first.to_json() == second.to_json()
    np.testing.assert_array_equal(first.occupied, second.occupied)


@given(labels=label_sets())
@settings(max_examples=30, deadline=None)
def test_a_hull_is_the_same_after_it_was_written_and_read(labels: DoubleArray) -> None:
    hull = _fit(labels)
    again = LabelHull.from_parts(json.loads(json.dumps(hull.to_json())), hull.tensors())
    asked = labels + np.random.default_rng(1).normal(size=labels.shape) * labels.std(axis=0)
    np.testing.assert_array_equal(again.contains(asked), hull.contains(asked))


def test_the_space_between_giants_and_dwarfs_is_outside(hull: LabelHull) -> None:
    np.testing.assert_array_equal(hull.contains(np.array([GIANT, DWARF, BETWEEN])), [True, True, False])


@pytest.mark.parametrize("n_stars", [300, 1000, 5000])
def test_few_good_stars_lie_outside(n_stars: int) -> None:
    assert (~_fit(_labels(n_stars, 2)).contains(_labels(5000, 3))).mean() < 0.02


def test_more_labels_make_smaller_cells() -> None:
    few, many = _fit(_labels(300, 4)), _fit(_labels(10_000, 5))
    assert many.grid.width[1] < 0.5 * few.grid.width[1]


def test_predictions_that_scatter_find_room(hull: LabelHull) -> None:
    def predict(seed: int) -> DoubleArray:
        return _labels(2000, seed) + np.random.default_rng(seed).normal(0, [0.2, 150, 0.1], (2000, 3))

    assert (~hull.contains(predict(7))).mean() > 0.02, "they are outside of what labels alone ask for"
    assert (~_fit(_labels(3000, 1), predict(6)).contains(predict(7))).mean() < 0.01


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf, 1e300])
def test_a_label_that_is_no_number_is_outside(hull: LabelHull, broken: float) -> None:
    labels = np.array([GIANT, DWARF])
    labels[0, 1] = broken
    np.testing.assert_array_equal(hull.contains(labels), [False, True])


def test_labels_of_the_catalogue_may_be_float32(hull: LabelHull) -> None:
    labels = _labels(200, 8)
    np.testing.assert_array_equal(hull.contains(labels.astype(np.float32)), hull.contains(labels))


def test_no_star_is_nowhere(hull: LabelHull) -> None:
    assert hull.contains(np.empty((0, 3))).shape == (0,)


@pytest.mark.parametrize("n_stars", [0, 1, 48, LEAST_LABELS - 1])
def test_too_few_labels_have_no_hull(n_stars: int) -> None:
    assert fit_hull(_labels(n_stars, 9)) is None


def test_one_label_many_times_has_no_hull() -> None:
    assert fit_hull(np.repeat(_labels(5, 10), 100, axis=0)) is None


def test_a_label_of_one_value_only_has_no_hull() -> None:
    labels = _labels(500, 11)
    labels[:, 2] = 0
    assert fit_hull(labels) is None


def test_rows_that_are_no_numbers_do_not_count(hull: LabelHull) -> None:
    labels = np.vstack([[[np.nan, 4000, 0]], _labels(3000, 1)])
    assert _fit(labels).to_json() == hull.to_json()


def test_two_hundred_thousand_labels_take_less_than_a_megabyte() -> None:
    rng = np.random.default_rng(12)
    filled = _fit(rng.uniform(size=(200_000, 3)) * SCALE)
    assert filled.occupied.nbytes < 1e6
    assert len(json.dumps(filled.to_json())) < 1000


@pytest.mark.parametrize("wrong", [-9999.0, 1e7, 1e15])
def test_labels_that_are_wrong_by_far_do_not_widen_the_cells_of_the_others(
    hull: LabelHull, wrong: float
) -> None:
    labels = _labels(3000, 1)
    labels[:4] = wrong
    fitted = _fit(labels)
    assert fitted.contains(labels).all()
    if wrong == -9999:
        np.testing.assert_allclose(fitted.grid.width, hull.grid.width, rtol=0.01)


@pytest.mark.parametrize(
    "change",
    [{"origin": None}, {"origin": [0, 1]}, {"width": [1, 0, 1]}, {"shape": [3, 3, 2]}, {"n_labels": None}],
)
def test_what_was_changed_is_not_read(hull: LabelHull, change: dict[str, object]) -> None:
    with pytest.raises(IntegrityError, match="hull of the training labels is incomplete"):
        LabelHull.from_parts(hull.to_json() | change, hull.tensors())


@pytest.mark.parametrize("cells", [[], [3, 2], [2, 2]])
def test_cells_that_do_not_ascend_are_not_read(hull: LabelHull, cells: list[int]) -> None:
    with pytest.raises(IntegrityError):
        LabelHull.from_parts(hull.to_json(), {"occupied": np.array(cells, np.int64)})
    with pytest.raises(IntegrityError):
        LabelHull.from_parts(hull.to_json(), {})
