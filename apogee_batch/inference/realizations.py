"""Noisy copies of a spectrum: how errors are capped and how noise is drawn (paper, section 3.5)."""

from enum import StrEnum
from hashlib import blake2b

import numpy as np

from apogee_batch.schema import FloatArray
from apogee_batch.survey.pixels import BAD_PIXEL_ERR

MAX_ERR_OVER_TYPICAL = 5.0
SEED_BYTES = 16


class ErrCap(StrEnum):
    """What the cap on errors is five times of.

    The paper says the mean; the authors' code takes the median. Beside each chip edge some ten
    pixels carry errors of up to a million times the median, so five times the mean is no cap.
    """

    MEDIAN = "median"
    MEAN = "mean"


def star_seed(run_seed: int, star_key: str) -> int:
    """Return the random seed of one star, 128 bits.

    It depends on the run and on the star only, so a star's realizations do not change with the
    shards, the worker, or a retry.
    """
    digest = blake2b(f"{run_seed}\0{star_key}".encode(), digest_size=SEED_BYTES)
    return int.from_bytes(digest.digest(), "little")


def cap_err(err: FloatArray, cap: ErrCap = ErrCap.MEDIAN) -> FloatArray:
    """Limit errors to five times the typical error of their spectrum.

    Pixels without a measurement (err >= 1e9 or not finite) get no noise, since their flux is a
    filler, and do not count in the typical error.

    Parameters
    ----------
    err : ndarray of float32, shape (n_pixels,)
        One-sigma errors of the flux.
    cap : ErrCap
        Median (default) or mean of the measured pixels as the typical error.

    Returns
    -------
    ndarray of float32, shape (n_pixels,)
    """
    measured = np.isfinite(err) & (err < BAD_PIXEL_ERR)
    if not measured.any():
        return np.zeros_like(err)
    values = err[measured].astype(np.float64)
    typical = np.median(values) if cap is ErrCap.MEDIAN else np.mean(values)
    limit = np.float32(MAX_ERR_OVER_TYPICAL * typical)
    return np.where(measured, np.minimum(err, limit), np.float32(0)).astype(np.float32)


def draw_realizations(
    flux: FloatArray, err: FloatArray, *, n_realizations: int, seed: int, cap: ErrCap = ErrCap.MEDIAN
) -> FloatArray:
    """Draw noisy copies flux + err * N(0, 1) of one spectrum.

    Parameters
    ----------
    flux, err : ndarray of float32, shape (n_pixels,)
        The spectrum as stored.
    n_realizations : int
        How many copies.
    seed : int
        From `star_seed`.
    cap : ErrCap
        See `cap_err`.

    Returns
    -------
    ndarray of float32, shape (n_realizations, n_pixels)
        The first rows do not change when more are asked for.
    """
    generator = np.random.Generator(np.random.SFC64(seed))
    noise = generator.standard_normal((n_realizations, flux.size), dtype=np.float32)
    noise *= cap_err(err, cap)
    noise += flux
    return noise
