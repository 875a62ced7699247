"""How much noise the realizations of a spectrum get (paper, section 3.5)."""

from enum import StrEnum

import numpy as np

from apogee_batch.schema import FloatArray
from apogee_batch.survey.pixels import BAD_PIXEL_ERR

MAX_ERR_OVER_TYPICAL = 5.0


class ErrCap(StrEnum):
    """What the cap on errors is five times of.

    The paper says the mean; the authors' code takes the median. Beside each chip edge some ten
    pixels carry errors of up to a million times the median, so five times the mean is no cap.
    """

    MEDIAN = "median"
    MEAN = "mean"


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
    is_measured = (err < BAD_PIXEL_ERR) & (err > -np.inf)  # neither is NaN
    values = err[is_measured]
    if not values.size:
        return np.zeros_like(err)
    typical = _median(values) if cap is ErrCap.MEDIAN else float(np.mean(values.astype(np.float64)))
    capped = np.minimum(err, np.float32(MAX_ERR_OVER_TYPICAL * typical))
    np.copyto(capped, np.float32(0), where=~is_measured)
    return capped.astype(np.float32, copy=False)


def _median(values: FloatArray) -> float:
    """Return what `np.median` gives for the same numbers in float64, in a quarter of its time."""
    middle = values.size // 2
    parted = np.partition(values, middle)
    upper = float(parted[middle])
    lower = upper if values.size % 2 else float(parted[:middle].max())
    return (lower + upper) / 2
