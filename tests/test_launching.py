"""Batches that the engine of a GPU begins and others wait for, its steps computed on the CPU."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from training_sets import make_training_set

from apogee_batch.inference.cuda_engine import CALLS_AHEAD, CudaEngine
from apogee_batch.inference.engines import Precision, StarBatch
from apogee_batch.inference.estimates import estimate_batch
from apogee_batch.inference.launch_check import check_launching
from apogee_batch.inference.launching import LaunchingEngine
from apogee_batch.inference.noise import derive_noise_key
from apogee_batch.inference.torch_engine import TorchEngine
from apogee_batch.network.features import features_of
from apogee_batch.network.model import SpectrumNet, initialise_kaiming
from apogee_batch.network.scaling import OFFICIAL_SCALER, InputTransform

CONTRAST = InputTransform("contrast")
PRECISIONS: tuple[Precision, ...] = ("exact", "fast")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> SpectrumNet:
    model = SpectrumNet().eval().requires_grad_(False)
    initialise_kaiming(model, torch.Generator().manual_seed(5))
    return model


@pytest.fixture(scope="module")
def stars() -> StarBatch:
    flux = make_training_set().flux[:3]
    err = np.where(flux > 0, np.median(flux, axis=1, keepdims=True) / 50, 0).astype(np.float32)
    return StarBatch(flux, err, tuple(derive_noise_key(1, f"star {i}") for i in range(3)))


def on_cpu(model: SpectrumNet, precision: Precision, transform: InputTransform = CONTRAST) -> CudaEngine:
    return CudaEngine(model, transform, OFFICIAL_SCALER, precision=precision, device="cpu", batch_stars=2)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_begun_gives_the_estimates_of_all_its_labels(
    model: SpectrumNet, stars: StarBatch, precision: Precision
) -> None:
    engine = on_cpu(model, precision)
    found = engine.begin(stars, 3, with_features=False).result()
    wanted = estimate_batch(engine, stars, 3)
    assert found.features is None
    for name in ("mean", "std", "clean"):
        np.testing.assert_allclose(
            getattr(found.estimates, name), getattr(wanted, name), rtol=1e-9, atol=1e-12
        )
        assert getattr(found.estimates, name).flags.c_contiguous


@pytest.mark.parametrize("precision", PRECISIONS)
def test_features_are_those_of_the_clean_spectra(
    model: SpectrumNet, stars: StarBatch, precision: Precision
) -> None:
    found = on_cpu(model, precision).begin(stars, 2, with_features=True).result().features
    wanted = features_of(model, CONTRAST, stars.flux)
    assert found is not None
    assert (found.shape, found.dtype) == (wanted.shape, np.float32)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


def test_batches_may_be_waited_for_in_any_order(model: SpectrumNet, stars: StarBatch) -> None:
    engine = on_cpu(model, "exact")
    first, second = (engine.begin(stars.part(i, i + 2), 2, with_features=True) for i in (0, 1))
    late, early = second.result(), first.result()
    again = engine.begin(stars.part(0, 2), 2, with_features=True).result()
    np.testing.assert_array_equal(early.estimates.mean, again.estimates.mean)
    np.testing.assert_array_equal(early.features, again.features)
    np.testing.assert_allclose(late.estimates.mean[0], early.estimates.mean[1], rtol=1e-4)


def test_a_star_whose_differences_overflow_is_computed_exactly(model: SpectrumNet, stars: StarBatch) -> None:
    steep = SpectrumNet().requires_grad_(False)
    steep.load_state_dict(model.state_dict())
    for name in ("conv1", "conv2", "conv3"):
        steep.get_submodule(name).weight *= 100
    quiet = StarBatch(stars.flux, stars.err * np.float32([[0], [1], [0]]), stars.keys)
    fast = on_cpu(steep, "fast").begin(quiet, 2, with_features=True).result()
    exact = on_cpu(steep, "exact").begin(quiet.part(1, 2), 2, with_features=False).result()
    for name in ("mean", "std", "clean"):
        estimates = getattr(fast.estimates, name)
        assert np.isfinite(estimates).all()
        np.testing.assert_array_equal(estimates[1:2], getattr(exact.estimates, name))
    assert (fast.estimates.std[[0, 2]] == 0).all()


def test_a_star_that_has_no_prediction_is_not_tried_for_ever(model: SpectrumNet, stars: StarBatch) -> None:
    wild = StarBatch(np.full_like(stars.flux, np.inf), stars.err, stars.keys)
    for precision in PRECISIONS:
        found = on_cpu(model, precision, InputTransform("raw")).begin(wild, 2, with_features=False).result()
        assert not np.isfinite(found.estimates.mean).any()


def test_one_realization_has_no_scatter(model: SpectrumNet, stars: StarBatch) -> None:
    with pytest.raises(ValueError, match="ask for 2 or more"):
        on_cpu(model, "exact").begin(stars, 1, with_features=False)


def test_an_engine_tells_whether_it_can_be_left_alone(model: SpectrumNet) -> None:
    engine = on_cpu(model, "fast")
    assert isinstance(engine, LaunchingEngine)
    assert engine.batches_ahead == CALLS_AHEAD
    assert not isinstance(TorchEngine(model, CONTRAST, OFFICIAL_SCALER), LaunchingEngine)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_gpu_estimates_what_it_predicts(model: SpectrumNet, stars: StarBatch, precision: Precision) -> None:
    engine = CudaEngine(model, CONTRAST, OFFICIAL_SCALER, precision=precision)
    check_launching(engine, n_realizations=20, pinned=True)
    begun = [engine.begin(stars, 20, with_features=True) for _ in range(4)]
    wanted = estimate_batch(engine, stars, 20)
    results = [pending.result() for pending in begun]
    for found in results:
        np.testing.assert_allclose(found.estimates.mean, wanted.mean, rtol=1e-9)
        np.testing.assert_allclose(found.estimates.std, wanted.std, rtol=1e-9)
        np.testing.assert_array_equal(found.features, results[0].features)
