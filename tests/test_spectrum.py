"""What is measured on a spectrum, and the shapes it must have."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spectrum_checks import assert_well_formed
from strategies import make_values

from apogee_batch.errors import ApStarError, RejectReason
from apogee_batch.survey.pixels import N_PIXELS
from apogee_batch.survey.spectrum import UNKNOWN_STAR, Spectrum, Star, measure_spectrum

PATH = Path("a.fits")


def measure(flux: np.ndarray, err: np.ndarray, mask: np.ndarray | None = None) -> Spectrum:
    mask = np.zeros(N_PIXELS, np.int16) if mask is None else mask
    return measure_spectrum(PATH, UNKNOWN_STAR, flux, err, mask)


def test_a_spectrum_of_another_length_cannot_be_built() -> None:
    flux, err = np.ones((2, N_PIXELS), np.float32)
    mask = np.zeros(N_PIXELS - 1, np.int32)
    with pytest.raises(ValueError, match="mask has shape"):
        Spectrum(UNKNOWN_STAR, flux, err, mask)


@given(st.integers(0, 2**32 - 1), st.integers(0, 400), st.sampled_from(["<f4", ">f4", "<f8", ">f8"]))
@settings(max_examples=40, deadline=None)
def test_the_snr_is_the_median_of_flux_over_err(seed: int, n_absent: int, real: str) -> None:
    flux, err, _, _ = make_values(1, seed=seed)
    flux[0, 1000 : 1000 + n_absent] = np.nan
    expected = np.nanmedian(flux[0] / err[0])
    spectrum = measure(flux[0].astype(real), err[0].astype(real))
    assert spectrum.star.snr == pytest.approx(expected, rel=1e-6)
    assert_well_formed(spectrum)


def test_gaps_that_are_numbers_count_in_the_snr_and_others_do_not() -> None:
    flux, err = np.full(N_PIXELS, 10.0), np.ones(N_PIXELS)
    flux[:5000], err[:5000] = 0.0, 1e10
    assert measure(flux, err).star.snr == 0.0
    flux[:5000] = np.nan
    assert measure(flux, err).star.snr == 10.0


def test_the_values_of_the_caller_are_left_alone() -> None:
    flux, err, mask, _ = make_values(1, gap="nan")
    before = flux.copy(), err.copy(), mask.copy()
    measure(flux[0], err[0], mask[0])
    for array, old in zip((flux, err, mask), before, strict=True):
        np.testing.assert_array_equal(array, old)


def test_a_flux_too_large_for_float32_is_no_measurement() -> None:
    flux, err = np.full(N_PIXELS, 10.0), np.ones(N_PIXELS)
    flux[7] = 1e39
    spectrum = measure(flux, err)
    assert (spectrum.flux[7], spectrum.star.n_bad_pixels) == (0.0, 1)


def test_an_snr_that_is_no_number_is_nan() -> None:
    spectrum = measure(np.full(N_PIXELS, 1e38), np.full(N_PIXELS, 1e-30))
    assert math.isnan(spectrum.star.snr)
    assert spectrum.star.n_bad_pixels == 0


@pytest.mark.parametrize("value", [2**31 - 1, -(2**31)])
def test_a_mask_of_32_bits_is_kept(value: int) -> None:
    flux, err = np.ones((2, N_PIXELS))
    assert (measure(flux, err, np.full(N_PIXELS, value)).mask == value).all()


@pytest.mark.parametrize(
    "mask", [np.full(N_PIXELS, 2**31), np.full(N_PIXELS, 2**31, "u4"), np.zeros(N_PIXELS)]
)
def test_a_mask_that_needs_more_is_refused(mask: np.ndarray) -> None:
    flux, err = np.ones((2, N_PIXELS))
    with pytest.raises(ApStarError, match="do not fit 32 bits") as caught:
        measure(flux, err, mask)
    assert caught.value.reason is RejectReason.BAD_MASK


@pytest.mark.parametrize("err", [0.0, -1.0, 1e9, 1e300])
def test_no_good_pixel_is_a_reason(err: float) -> None:
    with pytest.raises(ApStarError, match="no pixel with a measurement") as caught:
        measure(np.ones(N_PIXELS), np.full(N_PIXELS, err))
    assert caught.value.reason is RejectReason.NO_GOOD_PIXELS


@pytest.mark.parametrize(("flux", "err"), [(1.0, np.nan), (1.0, np.inf), (np.nan, 1.0), (-np.inf, np.nan)])
def test_no_finite_pixel_is_another_reason(flux: float, err: float) -> None:
    with pytest.raises(ApStarError, match="no pixel whose flux and error are both finite") as caught:
        measure(np.full(N_PIXELS, flux), np.full(N_PIXELS, err))
    assert caught.value.reason is RejectReason.NON_FINITE


def test_nan_where_only_flux_or_only_err_is_finite_is_not_finite() -> None:
    flux, err = np.ones((2, N_PIXELS))
    flux[::2], err[1::2] = np.nan, np.inf
    with pytest.raises(ApStarError) as caught:
        measure(flux, err)
    assert caught.value.reason is RejectReason.NON_FINITE


def test_a_filler_among_nan_is_finite_and_no_measurement() -> None:
    flux, err = np.full((2, N_PIXELS), np.nan)
    flux[4000], err[4000] = 0.0, 1e10
    with pytest.raises(ApStarError) as caught:
        measure(flux, err)
    assert caught.value.reason is RejectReason.NO_GOOD_PIXELS


def test_one_measured_pixel_among_nan_is_a_spectrum() -> None:
    flux, err = np.full((2, N_PIXELS), np.nan)
    flux[4000], err[4000] = 5.0, 1.0
    spectrum = measure(flux, err)
    assert spectrum.star.n_bad_pixels == N_PIXELS - 1
    assert_well_formed(spectrum)


def test_a_star_made_of_its_values_is_the_one_that_is_built() -> None:
    values = vars(UNKNOWN_STAR) | {"apogee_id": "2M00000000+0000000", "ra": 1.0}
    made, built = Star.of(values), Star(**values)
    assert (repr(made), hash(made.file)) == (repr(built), hash(built.file))
    assert list(vars(made)) == list(vars(built))
