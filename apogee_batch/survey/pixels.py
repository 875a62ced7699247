"""The pixel grid that all apStar spectra share, and the meaning of the bits in its masks."""

from enum import IntFlag

import numpy as np

from apogee_batch.schema import DoubleArray

N_PIXELS = 8575
LOG10_WAVELENGTH_0 = 4.179  # log10 of Angstrom, CRVAL1 of every apStar file
LOG10_WAVELENGTH_STEP = 6e-6  # CDELT1

BAD_PIXEL_ERR = 1e9  # an error as large as this says that there is no measurement
GAP_ERR = 1e10  # the error that the APOGEE pipeline gives to a pixel it cannot measure
GAP_FLUX = 0.0  # and its flux
MISSING_MAGNITUDE = 99.0  # 2MASS magnitude of a star that has none (99.99 and 99.999 are also written)


class PixelMask(IntFlag):
    """APOGEE_PIXMASK: what happened to one pixel (HDU3 of apStar)."""

    BADPIX = 1 << 0
    CRPIX = 1 << 1
    SATPIX = 1 << 2
    UNFIXABLE = 1 << 3
    BADDARK = 1 << 4
    BADFLAT = 1 << 5
    BADERR = 1 << 6
    NOSKY = 1 << 7
    LITTROW_GHOST = 1 << 8
    PERSIST_HIGH = 1 << 9
    PERSIST_MED = 1 << 10
    PERSIST_LOW = 1 << 11
    SIG_SKYLINE = 1 << 12
    SIG_TELLURIC = 1 << 13
    NOT_ENOUGH_PSF = 1 << 14


BAD_PIXEL_BITS = PixelMask(0b0100_0000_1111_1111)  # bits 0-7 and 14, the survey's own list: 16639


class StarFlag(IntFlag):
    """APOGEE_STARFLAG: what happened to a whole star; only the bits that this package tests."""

    BAD_PIXELS = 1 << 0
    VERY_BRIGHT_NEIGHBOR = 1 << 3
    LOW_SNR = 1 << 4
    BAD_RV_COMBINATION = 1 << 18
    RV_FAIL = 1 << 22


BAD_STARFLAG_BITS = (
    StarFlag.BAD_PIXELS | StarFlag.VERY_BRIGHT_NEIGHBOR | StarFlag.BAD_RV_COMBINATION | StarFlag.RV_FAIL
)


def wavelength() -> DoubleArray:
    """Return the wavelength of each pixel in the star's rest frame.

    Returns
    -------
    ndarray of float64, shape (n_pixels,)
        Angstrom, in vacuum: 15100.80 to 16999.81.
    """
    steps = np.arange(N_PIXELS, dtype=np.float64)
    return np.power(10.0, LOG10_WAVELENGTH_0 + LOG10_WAVELENGTH_STEP * steps, dtype=np.float64)
