"""The pixel grid and the bits of the masks."""

import numpy as np

from apogee_batch.survey.pixels import (
    BAD_PIXEL_BITS,
    BAD_PIXEL_ERR,
    BAD_STARFLAG_BITS,
    GAP_ERR,
    N_PIXELS,
    PixelMask,
    StarFlag,
    wavelength,
)


def test_the_grid_is_that_of_apstar_files() -> None:
    grid = wavelength()
    assert grid.shape == (N_PIXELS,)
    assert grid.dtype == np.float64
    np.testing.assert_allclose(grid[[0, -1]], [15100.80, 16999.81], atol=0.005)
    np.testing.assert_allclose(np.diff(np.log10(grid)), 6e-6, atol=1e-14)


def test_bad_pixels_are_bits_0_to_7_and_14() -> None:
    assert BAD_PIXEL_BITS == 16639
    assert {bit.name for bit in PixelMask if bit not in BAD_PIXEL_BITS} == {
        "LITTROW_GHOST",
        "PERSIST_HIGH",
        "PERSIST_MED",
        "PERSIST_LOW",
        "SIG_SKYLINE",
        "SIG_TELLURIC",
    }


def test_low_snr_alone_does_not_make_a_star_bad() -> None:
    assert StarFlag.LOW_SNR not in BAD_STARFLAG_BITS
    assert BAD_STARFLAG_BITS == 1 + (1 << 3) + (1 << 18) + (1 << 22)


def test_the_error_of_a_gap_is_a_bad_error_in_float32_too() -> None:
    assert np.float32(GAP_ERR) == GAP_ERR
    assert np.float32(GAP_ERR) >= BAD_PIXEL_ERR
