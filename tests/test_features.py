import numpy as np
import pytest
import torch

from apogee_batch.network.features import N_ACTIVATIONS, ROWS_PER_FORWARD, features_of
from apogee_batch.network.model import HIDDEN_WIDTH, SpectrumNet, initialise_kaiming
from apogee_batch.network.scaling import InputTransform
from apogee_batch.schema import FloatArray
from apogee_batch.survey.pixels import N_PIXELS

CONTRAST = InputTransform()
N_STARS = ROWS_PER_FORWARD + 4  # the last batch is padded


@pytest.fixture(scope="module")
def model() -> SpectrumNet:
    net = SpectrumNet().requires_grad_(False).eval()
    initialise_kaiming(net, torch.Generator().manual_seed(1))
    return net


@pytest.fixture(scope="module")
def flux() -> FloatArray:
    rng = np.random.default_rng(2)
    spectra = rng.normal(1, 0.1, (N_STARS, N_PIXELS)) * 10 ** rng.uniform(1, 4, (N_STARS, 1))
    spectra[:, :200] = 0
    return spectra.astype(np.float32)


@pytest.fixture(scope="module")
def features(model: SpectrumNet, flux: FloatArray) -> FloatArray:
    return features_of(model, CONTRAST, flux)


def test_there_is_a_row_of_float32_for_each_star(features: FloatArray) -> None:
    assert features.shape == (N_STARS, N_ACTIVATIONS)
    assert features.dtype == np.float32


def test_no_star_has_no_features(model: SpectrumNet) -> None:
    assert features_of(model, CONTRAST, np.empty((0, N_PIXELS), np.float32)).shape == (0, N_ACTIVATIONS)


@pytest.mark.parametrize("kind", ["contrast", "raw"])
def test_the_labels_follow_from_the_second_half(model: SpectrumNet, flux: FloatArray, kind: str) -> None:
    transform = InputTransform(kind="contrast" if kind == "contrast" else "raw")
    spectra = torch.from_numpy(flux[:3])
    wanted = model(transform.apply(spectra, transform.scale(spectra)))
    second = torch.from_numpy(features_of(model, transform, flux[:3])[:, HIDDEN_WIDTH:])
    torch.testing.assert_close(model.fc3(second), wanted, rtol=1e-4, atol=1e-4)


def test_the_second_half_follows_from_the_first(model: SpectrumNet, features: FloatArray) -> None:
    first, second = torch.from_numpy(features).split(HIDDEN_WIDTH, dim=1)
    torch.testing.assert_close(model.fc2(first.relu()).relu(), second, rtol=1e-4, atol=1e-4)
    assert (first < 0).any(), "the first half is what fc1 gives before its ReLU"


def test_a_star_does_not_depend_on_its_neighbours(
    model: SpectrumNet, flux: FloatArray, features: FloatArray
) -> None:
    order = np.random.default_rng(3).permutation(N_STARS)
    np.testing.assert_array_equal(features_of(model, CONTRAST, flux[order]), features[order])
    np.testing.assert_array_equal(features_of(model, CONTRAST, flux[-1:]), features[-1:])


def test_a_spectrum_without_a_pixel_spoils_no_other(
    model: SpectrumNet, flux: FloatArray, features: FloatArray
) -> None:
    spoiled = flux[:4].copy()
    spoiled[1], spoiled[2] = 0, np.nan
    found = features_of(model, CONTRAST, spoiled)
    np.testing.assert_array_equal(found[[0, 3]], features[[0, 3]])
    assert np.isfinite(found[1]).all()


def test_brightness_says_nothing_to_a_network_that_reads_contrast(
    model: SpectrumNet, flux: FloatArray, features: FloatArray
) -> None:
    brighter = features_of(model, CONTRAST, flux * np.float32(2**20))
    np.testing.assert_allclose(brighter, features, rtol=1e-4, atol=1e-4)


def test_the_spectra_stay_as_they_are(model: SpectrumNet, flux: FloatArray) -> None:
    before = flux.copy()
    features_of(model, CONTRAST, flux)
    np.testing.assert_array_equal(flux, before)
