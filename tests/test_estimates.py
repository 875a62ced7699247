"""A star is alone: its labels depend on the run, its key and its spectrum."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apogee_batch.inference.engines import StarBatch
from apogee_batch.inference.estimates import LabelEstimates, estimate_labels
from apogee_batch.inference.noise import derive_noise_key, draw_normals
from apogee_batch.inference.realizations import cap_err
from apogee_batch.inference.torch_engine import MAX_ROWS_PER_FORWARD, TorchEngine
from apogee_batch.network.model import SpectrumNet
from apogee_batch.network.scaling import InputTransform, LabelScaler
from apogee_batch.survey.pixels import GAP_ERR, N_PIXELS

SCALER = LabelScaler((2.9, 4700.0, -0.2), (1.1, 700.0, 0.3))


@pytest.fixture(scope="module")
def engine() -> TorchEngine:
    torch.manual_seed(3)
    return TorchEngine(SpectrumNet(), InputTransform("contrast"), SCALER)


def spectra(n_stars: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    flux = (rng.uniform(50, 5000, (n_stars, 1)) * rng.normal(1, 0.05, (n_stars, N_PIXELS))).astype(np.float32)
    err = (flux.mean(axis=1, keepdims=True) * rng.uniform(0.005, 0.05, flux.shape)).astype(np.float32)
    flux[:, 3310:3546], err[:, 3310:3546] = 0, GAP_ERR
    return flux, err


@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
@settings(max_examples=5, deadline=None)
def test_a_star_does_not_depend_on_its_neighbours(engine: TorchEngine, seed: int, n_before: int) -> None:
    flux, err = spectra(n_before + 1, seed)
    keys = [f"star{i}" for i in range(n_before + 1)]
    together = estimate_labels(engine, keys, flux, err, n_realizations=3, run_seed=1)
    alone = estimate_labels(engine, keys[-1:], flux[-1:], err[-1:], n_realizations=3, run_seed=1)
    np.testing.assert_array_equal(together.mean[-1:], alone.mean)
    np.testing.assert_array_equal(together.std[-1:], alone.std)
    np.testing.assert_array_equal(together.clean[-1:], alone.clean)


def test_no_error_means_no_scatter_and_the_clean_prediction(engine: TorchEngine) -> None:
    flux, err = spectra(1, 5)
    found = estimate_labels(engine, ["a"], flux, np.zeros_like(err), n_realizations=4, run_seed=0)
    np.testing.assert_allclose(found.mean, found.clean, rtol=1e-6)
    assert (found.std < 1e-2 * np.array(SCALER.std)).all()


def test_seed_and_key_change_the_noise_and_nothing_else(engine: TorchEngine) -> None:
    flux, err = spectra(1, 6)
    base = estimate_labels(engine, ["a"], flux, err, n_realizations=3, run_seed=0)
    for keys, seed in ((["a"], 1), (["b"], 0)):
        other = estimate_labels(engine, keys, flux, err, n_realizations=3, run_seed=seed)
        assert (other.mean != base.mean).all()
        np.testing.assert_array_equal(other.clean, base.clean)


class Recorder:
    """An engine that takes some stars at once and remembers what it gave."""

    name, precision = "recorder", "exact"

    def __init__(self, engine: TorchEngine, stars_per_call: int) -> None:
        self.engine, self.stars_per_call = engine, stars_per_call
        self.given: list[np.ndarray] = []

    def predict(self, stars: StarBatch, n_realizations: int) -> np.ndarray:
        self.given.append(self.engine.predict(stars, n_realizations))
        return self.given[-1]


@pytest.mark.parametrize(("stars_per_call", "calls"), [(1, [1] * 5), (2, [2, 2, 1]), (8, [5])])
def test_mean_and_scatter_are_those_of_the_realizations(
    engine: TorchEngine, stars_per_call: int, calls: list[int]
) -> None:
    flux, err = spectra(5, 7)
    recorder = Recorder(engine, stars_per_call)
    found = estimate_labels(recorder, list("abcde"), flux, err, n_realizations=3, run_seed=0)
    assert [len(labels) for labels in recorder.given] == calls
    labels = np.concatenate(recorder.given)
    assert labels.shape == (5, 4, 3)
    np.testing.assert_array_equal(found.clean, labels[:, 0])
    np.testing.assert_allclose(found.mean, np.mean(labels[:, 1:], axis=1))
    np.testing.assert_allclose(found.std, np.std(labels[:, 1:], axis=1, ddof=1))
    alone = estimate_labels(engine, list("abcde"), flux, err, n_realizations=3, run_seed=0)
    for one, other in zip(vars(found).values(), vars(alone).values(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("n_realizations", [1, 5, MAX_ROWS_PER_FORWARD, 60])
def test_padding_does_not_show(engine: TorchEngine, n_realizations: int) -> None:
    flux, err = spectra(1, 8)
    stars = StarBatch(flux, np.zeros_like(err), (derive_noise_key(0, "a"),))
    labels = engine.predict(stars, n_realizations)
    assert labels.shape == (1, 1 + n_realizations, 3)
    np.testing.assert_allclose(labels, np.broadcast_to(labels[:, :1], labels.shape), rtol=1e-5)


@pytest.mark.parametrize("kind", ["raw", "contrast"])
def test_the_engine_agrees_with_the_network_applied_by_hand(kind: str) -> None:
    torch.manual_seed(4)
    model, transform = SpectrumNet().eval(), InputTransform(kind)
    flux, err = spectra(1, 9)
    capped, key = cap_err(err[0]), derive_noise_key(5, "a")
    copies = np.concatenate([flux, flux + capped * draw_normals(key, 3, N_PIXELS)])
    with torch.inference_mode():
        scale = transform.scale(torch.from_numpy(flux))
        by_hand = SCALER.to_physical(model(transform.apply(torch.from_numpy(copies), scale)))
    found = TorchEngine(model, transform, SCALER).predict(StarBatch(flux, capped[None], (key,)), 3)
    np.testing.assert_allclose(found[0], by_hand.numpy(), rtol=1e-5)


def test_a_batch_is_of_the_same_stars() -> None:
    flux, err = spectra(2, 9)
    with pytest.raises(ValueError, match="same stars"):
        StarBatch(flux, err, (derive_noise_key(0, "a"),))


def test_the_engine_turns_off_reduced_precision(engine: TorchEngine) -> None:
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_one_realization_has_no_scatter(engine: TorchEngine) -> None:
    flux, err = spectra(1, 1)
    with pytest.raises(ValueError, match="no standard deviation"):
        estimate_labels(engine, ["a"], flux, err, n_realizations=1, run_seed=0)


def test_estimates_have_one_shape() -> None:
    with pytest.raises(ValueError, match="shape"):
        LabelEstimates(np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((1, 3)))
