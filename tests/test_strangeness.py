import json

import numpy as np
import pytest
import torch
from strange_spectra import STRANGE, brackett_wavelengths, brightness
from training_sets import make_training_set

from apogee_batch.errors import IntegrityError
from apogee_batch.inference.gate_spectra import simulate_spectra, train_stand_in
from apogee_batch.network.features import N_ACTIVATIONS, features_of
from apogee_batch.network.model import SpectrumNet, initialise_kaiming
from apogee_batch.network.scaling import InputTransform
from apogee_batch.network.strangeness import (
    FALSE_RATE,
    LEAST_DEV_STARS,
    LEAST_TRAINING_STARS,
    MAX_RANK,
    STARS_PER_DIRECTION,
    Metric,
    Strangeness,
    fit_strangeness,
)
from apogee_batch.schema import DoubleArray, FloatArray
from apogee_batch.survey.pixels import GAP_ERR, wavelength

N_FEATURES, N_VARYING = 48, 5
MIX = np.random.default_rng(99).normal(size=(N_VARYING, N_FEATURES))


def _stars(n_stars: int, seed: int, *, noise: float | DoubleArray = 0.05) -> FloatArray:
    """Return features that vary along a few directions, with noise along all."""
    rng = np.random.default_rng(seed)
    along = rng.normal(size=(n_stars, N_VARYING)) @ MIX
    around = np.reshape(noise, (-1, 1)) * rng.normal(size=(n_stars, N_FEATURES))
    return (7 + along + around).astype(np.float32)


def _snr(n_stars: int, seed: int) -> DoubleArray:
    return np.random.default_rng(seed).uniform(20, 500, n_stars)


def _fit(train: FloatArray, dev: FloatArray, snr: DoubleArray) -> Strangeness:
    fitted = fit_strangeness(train, dev, snr)
    assert fitted is not None
    return fitted


@pytest.fixture(scope="module")
def strangeness() -> Strangeness:
    return _fit(_stars(1000, 1), _stars(800, 2), _snr(800, 3))


def _share_of_strange(strangeness: Strangeness, features: FloatArray, snr: DoubleArray) -> float:
    return float(strangeness.is_strange(strangeness.score(features, snr)).mean())


def test_one_good_star_in_two_hundred_is_flagged(strangeness: Strangeness) -> None:
    assert _share_of_strange(strangeness, _stars(800, 2), _snr(800, 3)) <= FALSE_RATE
    share = _share_of_strange(strangeness, _stars(20_000, 4), _snr(20_000, 5))
    assert 0.2 * FALSE_RATE < share < 3 * FALSE_RATE


def test_what_is_far_along_a_known_direction_is_strange(strangeness: Strangeness) -> None:
    far = 7 + 15 * np.eye(N_VARYING) @ MIX
    assert _share_of_strange(strangeness, far.astype(np.float32), _snr(N_VARYING, 6)) == 1


def test_a_small_step_across_all_known_directions_is_strange(strangeness: Strangeness) -> None:
    across = np.linalg.qr(np.vstack([MIX, np.ones(N_FEATURES)]).T)[0][:, -1]
    stepped = _stars(50, 7) + (1.5 * across).astype(np.float32)  # a third of what is usual along the others
    assert _share_of_strange(strangeness, stepped, _snr(50, 8)) == 1


def test_the_distance_is_in_units_of_the_scatter_along_and_across_the_directions() -> None:
    turned = np.linalg.qr(np.random.default_rng(43).normal(size=(4, 4)))[0]
    center = np.array([1, 2, 3, 4])
    precision = [1 / 3**2, 1 / 0.5**2, 1 / 0.1**2]  # scatter 3 and 0.5 along two directions, 0.1 elsewhere
    metric = Metric(*(np.array(a, np.float32) for a in (center, turned[:, :2], precision)))
    steps = np.diag([6.0, 1.5, 0.4, 0.0]) @ turned.T
    features = (center + steps).astype(np.float32)
    np.testing.assert_allclose(metric.distance(features), np.array([2, 3, 4, 0]) / 2, rtol=1e-4, atol=1e-4)


def test_a_star_does_not_depend_on_its_neighbours_nor_on_where_it_stands(strangeness: Strangeness) -> None:
    features, snr = _stars(150, 9), _snr(150, 10)
    together = strangeness.score(features, snr)
    order = np.random.default_rng(11).permutation(150)
    np.testing.assert_array_equal(strangeness.score(features[order], snr[order]), together[order])
    np.testing.assert_array_equal(strangeness.score(features[-1:], snr[-1:]), together[-1:])


def test_no_star_has_no_score(strangeness: Strangeness) -> None:
    assert strangeness.score(np.empty((0, N_FEATURES), np.float32), np.empty(0)).shape == (0,)


def test_the_order_of_the_stars_it_was_fitted_to_does_not_matter(strangeness: Strangeness) -> None:
    rng = np.random.default_rng(12)
    first, second = rng.permutation(1000), rng.permutation(800)
    again = _fit(_stars(1000, 1)[first], _stars(800, 2)[second], _snr(800, 3)[second])
    features, snr = _stars(20, 13), _snr(20, 14)
    np.testing.assert_allclose(again.score(features, snr), strangeness.score(features, snr), rtol=1e-5)


def test_the_same_stars_give_the_same_bytes(strangeness: Strangeness) -> None:
    again = _fit(_stars(1000, 1), _stars(800, 2), _snr(800, 3))
    assert again.to_json() == strangeness.to_json()
    for name, values in again.tensors().items():
        np.testing.assert_array_equal(values, strangeness.tensors()[name])


def test_faint_stars_are_flagged_no_more_often_than_bright_ones() -> None:
    def noisy(n_stars: int, seed: int) -> tuple[FloatArray, DoubleArray]:
        snr = np.exp(np.random.default_rng(seed).uniform(np.log(20), np.log(500), n_stars))
        return _stars(n_stars, seed, noise=20 / snr), snr

    dev, dev_snr = noisy(2000, 15)
    fitted = _fit(_stars(1000, 16, noise=0.1), dev, dev_snr)
    features, snr = noisy(8000, 17)
    faint = snr < 60
    assert _share_of_strange(fitted, features[faint], snr[faint]) < 3 * FALSE_RATE
    pretended = np.full(int(faint.sum()), 500.0)
    assert _share_of_strange(fitted, features[faint], pretended) > 0.5, "their noise would flag them"
    assert np.all(np.diff(fitted.knot_limit) < 0)


@pytest.mark.parametrize("unknown", [np.nan, 0.0, -3.0, -np.inf])
def test_an_snr_that_is_no_positive_number_counts_as_the_lowest(
    strangeness: Strangeness, unknown: float
) -> None:
    lowest = np.array([strangeness.knot_snr[0]])
    np.testing.assert_array_equal(strangeness.limit(np.array([unknown])), strangeness.limit(lowest))


def test_the_limit_is_constant_beyond_the_knots(strangeness: Strangeness) -> None:
    limits = strangeness.limit(np.array([0.1, strangeness.knot_snr[0], strangeness.knot_snr[-1], np.inf]))
    np.testing.assert_allclose(limits, np.repeat([strangeness.knot_limit[0], strangeness.knot_limit[-1]], 2))


def test_features_that_are_no_numbers_have_no_score(strangeness: Strangeness) -> None:
    features = _stars(3, 18)
    features[1, 4] = np.inf
    score = strangeness.score(features, _snr(3, 19))
    np.testing.assert_array_equal(np.isnan(score), [False, True, False])
    assert not strangeness.is_strange(score)[1]


@pytest.mark.parametrize(
    ("n_train", "n_dev"), [(LEAST_TRAINING_STARS - 1, 200), (400, LEAST_DEV_STARS - 1), (0, 0), (48, 10)]
)
def test_too_few_stars_give_no_score(n_train: int, n_dev: int) -> None:
    assert fit_strangeness(_stars(n_train, 20), _stars(n_dev, 21), _snr(n_dev, 22)) is None


def test_the_fewest_stars_allowed_give_a_score_of_few_directions() -> None:
    train, dev = _stars(LEAST_TRAINING_STARS, 23), _stars(LEAST_DEV_STARS, 24)
    fitted = _fit(train, dev, _snr(LEAST_DEV_STARS, 25))
    assert fitted.metric.directions.shape == (N_FEATURES, LEAST_TRAINING_STARS // STARS_PER_DIRECTION)
    assert len(fitted.knot_snr) == 2, "a median of a few stars would be none"
    assert _share_of_strange(fitted, _stars(2000, 26), _snr(2000, 27)) < 0.05


def test_rows_that_are_no_numbers_do_not_count(strangeness: Strangeness) -> None:
    hole = np.full((1, N_FEATURES), np.nan, np.float32)
    train, dev = np.vstack([hole, _stars(1000, 1)]), np.vstack([_stars(800, 2), hole, _stars(1, 28)])
    fitted = _fit(train, dev, np.append(_snr(800, 3), [100, np.nan]))
    assert (fitted.n_train, fitted.n_dev) == (1000, 800)
    assert fitted.to_json() == strangeness.to_json()


def test_features_without_any_scatter_give_no_score() -> None:
    same = np.ones((500, N_FEATURES), np.float32)
    assert fit_strangeness(same, same, _snr(500, 29)) is None


def test_a_rare_type_of_star_is_no_stranger_than_it_must_be() -> None:
    rng = np.random.default_rng(30)
    own_way = rng.normal(size=(1, N_FEATURES))

    def kind(n_stars: int, seed: int) -> FloatArray:
        depth = np.random.default_rng(seed).uniform(0, 4, (n_stars, 1))
        return _stars(n_stars, seed) + (depth * own_way).astype(np.float32)

    train = np.vstack([_stars(2000, 31), kind(10, 32)])
    dev = np.vstack([_stars(800, 33), kind(5, 34)])
    fitted = _fit(train, dev, np.full(len(dev), 100.0))
    ordinary, rare = (fitted.metric.distance(f) for f in (_stars(500, 35), kind(500, 36)))
    assert np.median(rare) < 1.5 * np.median(ordinary), "with equal weights 1.9 times"


def test_it_is_the_same_after_it_was_written_and_read(strangeness: Strangeness) -> None:
    values = json.loads(json.dumps(strangeness.to_json()))
    again = Strangeness.from_parts(values, strangeness.tensors())
    features, snr = _stars(30, 37), _snr(30, 38)
    np.testing.assert_array_equal(again.score(features, snr), strangeness.score(features, snr))
    assert again.to_json() == strangeness.to_json()


@pytest.mark.parametrize(
    "change",
    [
        {"knot_snr": None},
        {"knot_snr": [100.0, 50.0], "knot_limit": [1.0, 1.0]},
        {"knot_snr": [50.0, 100.0], "knot_limit": [1.0, 0.0]},
        {"knot_snr": [50.0, 100.0], "knot_limit": [1.0]},
        {"knot_snr": [], "knot_limit": []},
        {"n_dev": "many"},
    ],
)
def test_what_was_changed_is_not_read(strangeness: Strangeness, change: dict[str, object]) -> None:
    with pytest.raises(IntegrityError, match="strangeness score is incomplete"):
        Strangeness.from_parts(strangeness.to_json() | change, strangeness.tensors())


@pytest.mark.parametrize("name", ["center", "directions", "precision"])
def test_arrays_that_do_not_fit_together_are_not_read(strangeness: Strangeness, name: str) -> None:
    tensors = strangeness.tensors()
    with pytest.raises(IntegrityError):
        Strangeness.from_parts(strangeness.to_json(), tensors | {name: tensors[name][:-1]})
    del tensors[name]
    with pytest.raises(IntegrityError):
        Strangeness.from_parts(strangeness.to_json(), tensors)


def test_it_takes_little_room() -> None:
    shapes = (N_ACTIVATIONS,), (N_ACTIVATIONS, MAX_RANK), (MAX_RANK + 1,)
    metric = Metric(*(np.ones(shape, np.float32) for shape in shapes))
    tensors = Strangeness(metric, (100.0,), (1.0,), 1000, 100).tensors()
    assert sum(values.nbytes for values in tensors.values()) < 1.1e6


class _Judge:
    """A network, and the score that is fitted to its features of some spectra."""

    def __init__(self, model: SpectrumNet, flux: FloatArray, err: FloatArray, *, n_train: int) -> None:
        self._model = model
        features = features_of(model, InputTransform(), flux)
        snr = np.median(flux / err, axis=1)
        self._strangeness = _fit(features[:n_train], features[n_train:], snr[n_train:])

    def share(self, flux: FloatArray, err: FloatArray) -> float:
        features = features_of(self._model, InputTransform(), flux)
        return _share_of_strange(self._strangeness, features, np.median(flux / err, axis=1))


@pytest.fixture(scope="module")
def toy_stars() -> tuple[FloatArray, FloatArray]:
    """Flux and error of stars with lines whose depth follows from their labels."""
    flux = make_training_set(320).flux
    err = np.where(flux == 0, GAP_ERR, 0.005 * brightness(flux)).astype(np.float32)
    return flux, err


@pytest.fixture(scope="module")
def judge_of_toys(toy_stars: tuple[FloatArray, FloatArray]) -> _Judge:
    model = SpectrumNet().requires_grad_(False).eval()
    initialise_kaiming(model, torch.Generator().manual_seed(1))
    flux, err = toy_stars
    return _Judge(model, flux[:300], err[:300], n_train=LEAST_TRAINING_STARS)


def test_stars_of_the_kind_it_knows_are_not_flagged(
    judge_of_toys: _Judge, toy_stars: tuple[FloatArray, FloatArray]
) -> None:
    flux, err = toy_stars
    assert judge_of_toys.share(flux[300:], err[300:]) <= 0.05


@pytest.mark.parametrize("kind", sorted(STRANGE))
def test_a_strange_spectrum_has_the_gaps_of_the_star_it_was_made_of(
    kind: str, toy_stars: tuple[FloatArray, FloatArray]
) -> None:
    flux, err = (plane[300:304] for plane in toy_stars)
    strange = STRANGE[kind](flux, err, np.random.default_rng(41))
    assert strange.shape == flux.shape
    assert strange.dtype == np.float32
    assert np.isfinite(strange).all()
    assert not np.array_equal(strange, flux)
    if not kind.startswith(("shift", "wavelength")):
        assert (strange[flux == 0] == 0).all()


def test_the_brackett_lines_lie_where_they_are_known_to() -> None:
    known = [16811.1, 16411.7, 16113.7, 15884.9, 15705.0]  # Angstrom in vacuum, of levels 11 to 15
    np.testing.assert_allclose(brackett_wavelengths()[:5], known, atol=0.2)


def test_a_hot_star_has_broad_lines_and_no_others(toy_stars: tuple[FloatArray, FloatArray]) -> None:
    flux, err = (plane[300:310] for plane in toy_stars)
    seen = STRANGE["hot star"](flux, err, np.random.default_rng(42)) / brightness(flux)
    at = [int(np.abs(wavelength() - line).argmin()) for line in (16811.1, 16411.7, 16600.0)]
    first, second, between = (seen[:, p - 10 : p + 11].mean(axis=1) for p in at)
    assert ((first < between) & (second < between)).all()


@pytest.mark.slow
def test_a_network_that_has_learned_sees_hot_stars_noise_and_a_shifted_grid() -> None:
    stars = simulate_spectra(400)
    order = np.random.default_rng(3).permutation(400)
    flux, err = stars.flux[order], stars.err[order]
    judge = _Judge(train_stand_in(n_threads=1)[0], flux[:360], err[:360], n_train=280)
    assert judge.share(flux[360:], err[360:]) <= 0.1
    for kind in ("hot star", "only noise", "shift 100 pixels", "wavelength reversed", "sky lines"):
        strange = STRANGE[kind](flux[360:], err[360:], np.random.default_rng(1))
        assert judge.share(strange, err[360:]) >= 0.9, kind
