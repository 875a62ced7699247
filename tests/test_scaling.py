import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from apogee_batch.errors import UsageError
from apogee_batch.network.scaling import OFFICIAL_SCALER, InputTransform, LabelScaler
from apogee_batch.schema import DoubleArray, FloatArray
from apogee_batch.survey.pixels import N_PIXELS

CONTRAST = InputTransform("contrast")
N_SHORT = 64  # the transform does not know how long a spectrum is

labels = arrays(
    np.float64,
    st.tuples(st.integers(1, 20), st.just(3)),
    elements=st.floats(-1e5, 1e5, allow_subnormal=False),
)
fluxes = arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.just(N_SHORT)),
    elements=st.one_of(st.just(0.0), st.floats(-100.0, 60_000.0, width=32, allow_subnormal=False)),
)


@given(labels)
@settings(max_examples=50, deadline=None)
def test_standardised_labels_come_back(values: DoubleArray) -> None:
    tensor = torch.from_numpy(values)
    back = OFFICIAL_SCALER.to_physical(OFFICIAL_SCALER.standardise(tensor))
    torch.testing.assert_close(back, tensor, rtol=1e-12, atol=1e-9)


def test_a_training_set_standardises_to_mean_zero_and_spread_one() -> None:
    values = np.random.default_rng(1).normal([3.0, 4700.0, -0.2], [1.0, 700.0, 0.3], (500, 3))
    standardised = LabelScaler.from_labels(values).standardise(torch.from_numpy(values))
    torch.testing.assert_close(standardised.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-10, rtol=0)
    torch.testing.assert_close(
        standardised.std(0, correction=0), torch.ones(3, dtype=torch.float64), atol=1e-10, rtol=0
    )


def test_float32_outputs_become_float64_labels() -> None:
    assert OFFICIAL_SCALER.to_physical(torch.zeros(2, 3)).dtype == torch.float64
    assert OFFICIAL_SCALER.to_physical(torch.zeros(3)).tolist() == list(OFFICIAL_SCALER.mean)


def test_a_label_with_one_value_only_is_refused() -> None:
    with pytest.raises(UsageError, match=r"all fe_h labels .* are -0\.1"):
        LabelScaler.from_labels(np.array([[4.0, 5000.0, -0.1], [3.0, 4000.0, -0.1]]))
    with pytest.raises(UsageError, match="empty"):
        LabelScaler.from_labels(np.empty((0, 3)))


@pytest.mark.parametrize(
    "values", [((0, 0, 0), (1, 0, 1)), ((0, 0), (1, 1)), ((0, float("nan"), 0), (1, 1, 1))]
)
def test_an_impossible_scaler_cannot_be_built(values: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
    with pytest.raises(ValueError, match="label scaler"):
        LabelScaler(*values)


@given(fluxes)
@settings(max_examples=100, deadline=None)
def test_the_scale_is_positive_whatever_the_flux(flux: FloatArray) -> None:
    scale = CONTRAST.scale(torch.from_numpy(flux))
    assert scale.shape == (len(flux), 1)
    assert bool((scale > 0).all())
    assert bool(torch.isfinite(scale).all())


@given(fluxes)
@settings(max_examples=100, deadline=None)
def test_gaps_stay_zero_and_inputs_stay_within_their_limit(flux: FloatArray) -> None:
    tensor = torch.from_numpy(flux)
    inputs = CONTRAST.apply(tensor, CONTRAST.scale(tensor))
    assert bool((inputs[tensor == 0] == 0).all())
    assert bool((inputs.abs() <= CONTRAST.clip * CONTRAST.gain).all())


@given(st.integers(0, 2**31), st.floats(0.5, 50_000.0))
@settings(max_examples=30, deadline=None)
def test_additive_noise_stays_additive(seed: int, level: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    flux = level * (1 + 0.2 * torch.rand(2, N_SHORT, generator=generator))
    flux[:, 10:20] = 0
    noise = torch.where(flux == 0, 0.0, 0.02 * level * torch.randn(5, 2, N_SHORT, generator=generator))
    scale = CONTRAST.scale(flux)
    difference = CONTRAST.apply(flux + noise, scale) - CONTRAST.apply(flux, scale)
    torch.testing.assert_close(difference, CONTRAST.gain * noise / scale, rtol=1e-3, atol=1e-5)


@given(st.integers(0, 2**31), st.floats(0.01, 1000.0))
@settings(max_examples=30, deadline=None)
def test_contrast_does_not_know_how_bright_a_star_is(seed: int, factor: float) -> None:
    flux = 100 * torch.rand(2, N_SHORT, generator=torch.Generator().manual_seed(seed)) + 1
    one = CONTRAST.apply(flux, CONTRAST.scale(flux))
    other = CONTRAST.apply(factor * flux, CONTRAST.scale(factor * flux))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_the_median_is_that_of_the_good_pixels() -> None:
    flux = torch.zeros(1, N_PIXELS)
    flux[0, :101] = torch.arange(1.0, 102.0)
    assert CONTRAST.scale(flux).item() == 51.0


def test_spectra_without_a_usable_median_are_scaled_all_the_same() -> None:
    mostly_negative = torch.tensor([[-3.0, -2.0, -1.0, 4.0, 0.0]])
    assert CONTRAST.scale(mostly_negative).item() == 2.0
    assert CONTRAST.scale(torch.zeros(1, 5)).item() == 1.0
    assert bool(torch.isfinite(CONTRAST.apply(torch.zeros(1, 5), torch.ones(1, 1))).all())


def test_raw_input_is_the_flux_itself() -> None:
    raw = InputTransform("raw")
    flux = torch.tensor([[0.0, -5.0, 36_342.0]])
    assert torch.equal(raw.apply(flux, raw.scale(flux)), flux)


@pytest.mark.parametrize("scaler", [OFFICIAL_SCALER, LabelScaler((0.1, 2.0, 3.0), (1.0, 1e-3, 7.0))])
def test_scaler_and_transform_survive_json(scaler: LabelScaler) -> None:
    assert LabelScaler.from_json(scaler.to_json()) == scaler
    transform = InputTransform("contrast", 0.7, 3.0)
    assert InputTransform.from_json(transform.to_json()) == transform


def test_an_impossible_transform_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="no input transform 'median'"):
        InputTransform("median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="positive"):
        InputTransform("contrast", clip=0.0)
