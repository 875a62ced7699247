"""Spectra that no training star has: what a survey may hand to a network that knows cool stars only.

Each builder takes observed spectra (so that gaps, bad pixels and the noise are those of the survey), and
gives the flux that the same exposures would have shown of something else. None is a model atmosphere: a
hot star is a smooth continuum with broad hydrogen lines at the wavelengths of the Rydberg formula.
"""

from collections.abc import Callable

import numpy as np

from apogee_batch.schema import DoubleArray, FloatArray
from apogee_batch.survey.pixels import BAD_PIXEL_ERR, N_PIXELS, wavelength

RYDBERG_OF_HYDROGEN = 109_677.583  # 1/cm, for the mass of the proton
BRACKETT_UPPER_LEVELS = range(11, 31)  # the level 10 lies beyond the red end of the grid
PIVOT = 16_000.0  # Angstrom
HOT_TEFF = (8_000.0, 20_000.0)  # K

Builder = Callable[[FloatArray, FloatArray, np.random.Generator], FloatArray]


def brackett_wavelengths() -> DoubleArray:
    """Return the vacuum wavelengths (Angstrom) of the hydrogen lines from level 11 and up to level 4."""
    upper = np.array(BRACKETT_UPPER_LEVELS, dtype=np.float64)
    return np.asarray(1e8 / (RYDBERG_OF_HYDROGEN * (1 / 16 - 1 / upper**2)))


def brightness(flux: FloatArray) -> DoubleArray:
    """Return the median of the measured pixels of each spectrum, shape (n, 1)."""
    return np.asarray(np.nanmedian(np.where(flux == 0, np.nan, flux), axis=1, keepdims=True), np.float64)


def expose(shape: DoubleArray, flux: FloatArray, err: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Observe spectra of median one as bright as `flux`, with its errors and its gaps."""
    noise = err.clip(max=5 * np.median(err, axis=1, keepdims=True)) * rng.standard_normal(flux.shape)
    seen = shape * brightness(flux) + noise
    return np.where((err >= BAD_PIXEL_ERR) | (flux == 0), 0.0, seen).astype(np.float32)


def degraded(
    flux: FloatArray, err: FloatArray, factor: DoubleArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Add noise until the errors are `factor` (shape (n, 1), 1 or more) times what they were."""
    added = err.clip(max=5 * np.median(err, axis=1, keepdims=True)) * np.sqrt(factor**2 - 1)
    noisy = flux + added * rng.standard_normal(flux.shape)
    is_gap = (err >= BAD_PIXEL_ERR) | (flux == 0)
    return (
        np.where(is_gap, 0.0, noisy).astype(np.float32),
        np.where(is_gap, err, err * factor).astype(np.float32),
    )


def smooth_continuum(slope: DoubleArray) -> DoubleArray:
    """Return wavelength to a power each, shape (n, n_pixels), one at the middle of the grid."""
    return np.asarray((wavelength() / PIVOT) ** slope[:, None])


def hot_star(flux: FloatArray, err: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A star of 8,000 to 20,000 K: lines weaken and narrow with temperature and towards the series limit."""
    teff = rng.uniform(*HOT_TEFF, len(flux))
    depth = 0.25 * (HOT_TEFF[0] / teff) ** 1.2
    width = 32.0 * (HOT_TEFF[0] / teff) ** 0.5 * rng.uniform(0.5, 1.2, len(flux))
    shape = smooth_continuum(np.full(len(flux), -3.8))
    for level, line in zip(BRACKETT_UPPER_LEVELS, brackett_wavelengths(), strict=True):
        fade = (BRACKETT_UPPER_LEVELS[0] / level) ** 2
        offset = (wavelength() - line) / (width[:, None] * fade**0.5)
        profile = 0.5 * np.exp(-0.5 * offset**2) + 0.5 / (1 + offset**2)
        shape = shape * (1 - depth[:, None] * fade * profile)
    return expose(shape / np.median(shape, axis=1, keepdims=True), flux, err, rng)


def featureless(flux: FloatArray, err: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A smooth continuum of any slope without a line, as of a galaxy's stars smeared by their motion."""
    return expose(smooth_continuum(rng.uniform(-4, 2, len(flux))), flux, err, rng)


def only_noise(flux: FloatArray, err: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Nothing but noise."""
    return expose(np.zeros(flux.shape), flux, err, rng)


def shifted(n_pixels: int) -> Builder:
    """Return the builder of spectra on a grid that is off by some pixels (one is 4.1 km/s)."""

    def shift(flux: FloatArray, err: FloatArray, rng: np.random.Generator) -> FloatArray:
        return np.roll(flux, n_pixels, axis=1)

    return shift


def reversed_in_wavelength(flux: FloatArray, err: FloatArray, rng: np.random.Generator) -> FloatArray:
    """The pixels from red to blue, as the visits' files have them."""
    return np.ascontiguousarray(flux[:, ::-1])


def with_sky_lines(flux: FloatArray, err: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A star under 60 emission lines of the sky that were not taken away: up to three times the continuum."""
    pixels = np.arange(N_PIXELS)
    added = np.zeros(flux.shape)
    for star in range(len(flux)):
        for line in rng.integers(0, N_PIXELS, 60):
            near = slice(max(line - 6, 0), line + 7)
            added[star, near] += rng.uniform(0.3, 3.0) * np.exp(-0.5 * ((pixels[near] - line) / 1.3) ** 2)
    return np.where(flux == 0, 0, flux + added * brightness(flux)).astype(np.float32)


def blended(flux: FloatArray, err: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Two different stars of one brightness in one fibre, 20 to 100 km/s apart."""
    order = rng.permutation(len(flux))
    scale = brightness(flux)
    shift = rng.integers(5, 25, len(flux))
    second = np.stack([np.roll(each, s) for each, s in zip(flux[order], shift, strict=True)])
    filled = np.where(second == 0, scale[order], second)
    both = 0.5 * flux + 0.5 * filled * scale / scale[order]
    return np.where(flux == 0, 0, both).astype(np.float32)


def normalised(flux: FloatArray, err: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A spectrum that someone divided by its continuum."""
    logarithm = np.log(np.where(flux > 0, flux, brightness(flux)))
    x = np.linspace(-1, 1, N_PIXELS)
    fit = np.polynomial.legendre.legfit(x, logarithm.T, 4)
    continuum = np.exp(np.polynomial.legendre.legval(x, fit))
    return (flux / continuum).astype(np.float32)


def negative(flux: FloatArray, err: FloatArray, rng: np.random.Generator) -> FloatArray:
    """The sign turned round, as where more sky was taken away than there was."""
    return -flux


def without_blue_chip(flux: FloatArray, err: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A third of the spectrum is lost."""
    return np.where(np.arange(N_PIXELS) < 3_400, 0, flux).astype(np.float32)


STRANGE: dict[str, Builder] = {
    "hot star": hot_star,
    "featureless": featureless,
    "only noise": only_noise,
    "shift 5 pixels": shifted(5),
    "shift 20 pixels": shifted(20),
    "shift 100 pixels": shifted(100),
    "wavelength reversed": reversed_in_wavelength,
    "sky lines": with_sky_lines,
    "two stars": blended,
    "normalised": normalised,
    "blue chip lost": without_blue_chip,
    "negative": negative,
}
