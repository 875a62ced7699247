"""What is measured of residuals and of pulls: numbers that no order of the stars can change.

Sums are exact before they are rounded once (`math.fsum`), and all else is by rank.
"""

import math
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from apogee_batch.schema import DoubleArray, FloatArray

MAD_TO_SIGMA = 1.4826  # of a Gaussian
OUTLIER_SCATTERS = 5.0
WITHIN_1, WITHIN_2 = 0.6827, 0.9545  # fractions of a Gaussian inside 1 and 2 sigma
PULL_EDGES = tuple(-5 + i / 2 for i in range(21))
FEWEST_OF_SLOPE = 3  # stars: through two of them any line fits
_SUM_BLOCK = 1 << 16


@dataclass(frozen=True)
class Residuals:
    """Prediction minus label of some stars, in native units.

    Attributes
    ----------
    n_stars : int
    rms : float or None
        Root mean square; None without stars.
    bias : float or None
        Median; None without stars.
    scatter : float or None
        Robust scatter: 1.4826 times the median absolute deviation from the bias, which is the standard
        deviation of a Gaussian. None with fewer than two stars.
    n_outliers : int or None
        Stars further than `OUTLIER_SCATTERS` robust scatters from the bias. None as the scatter.
    slope : float or None
        Of the straight line that fits the residuals on the labels best, by least squares: 0 for a network
        that treats high and low labels alike, -1 for one that says the same of all stars. None where it was
        not asked for, with fewer than `FEWEST_OF_SLOPE` stars, and where all labels are the same.
    """

    n_stars: int
    rms: float | None = None
    bias: float | None = None
    scatter: float | None = None
    n_outliers: int | None = None
    slope: float | None = None

    @property
    def outlier_fraction(self) -> float | None:
        """Part of the stars that are outliers."""
        return None if self.n_outliers is None else self.n_outliers / self.n_stars

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON values; one that does not exist is null."""
        return {
            "n_stars": self.n_stars,
            "rms": self.rms,
            "bias": self.bias,
            "scatter": self.scatter,
            "n_outliers": self.n_outliers,
            "outlier_fraction": self.outlier_fraction,
            "slope": self.slope,
        }


@dataclass(frozen=True)
class Pulls:
    """Residuals over their sigmas.

    Attributes
    ----------
    n_stars, n_without : int
        Stars with a sigma above 0, and those without.
    median_sigma : float or None
        Median of the sigmas, native units. This and the rest are None without stars.
    median, width : float or None
        Median of the pulls, and their robust scatter (None with fewer than two stars).
    within_1, within_2 : float or None
        Part of the stars that lie within one and two sigmas of their label.
    factor : float or None
        By how much sigmas are too small: times this, 68.27 % of the stars lie within one of them.
    histogram : tuple of int
        Stars below the first of `PULL_EDGES`, between two of them (the lower included), from the last on.
    """

    n_stars: int
    n_without: int
    median_sigma: float | None = None
    median: float | None = None
    width: float | None = None
    within_1: float | None = None
    within_2: float | None = None
    factor: float | None = None
    histogram: tuple[int, ...] = (0,) * (len(PULL_EDGES) + 1)

    @property
    def within_1_chance(self) -> float | None:
        """Return how far `within_1` of honest sigmas is from 0.6827 by chance: its standard deviation."""
        return math.sqrt(WITHIN_1 * (1 - WITHIN_1) / self.n_stars) if self.n_stars else None

    def to_json(self, *, has_histogram: bool) -> dict[str, Any]:
        """Return the numbers as JSON values; one that does not exist is null."""
        numbers = {
            "n_stars": self.n_stars,
            "n_without_sigma": self.n_without,
            "median_sigma": self.median_sigma,
            "median": self.median,
            "width": self.width,
            "within_1_sigma": self.within_1,
            "within_1_sigma_by_chance": self.within_1_chance,
            "within_2_sigma": self.within_2,
            "sigma_too_small_by": self.factor,
        }
        return numbers | ({"histogram": list(self.histogram)} if has_histogram else {})


def exact_sum(values: DoubleArray) -> float:
    """Return the sum of finite numbers, shape (n,), rounded once: the same in any order."""
    blocks = (values[start : start + _SUM_BLOCK].tolist() for start in range(0, len(values), _SUM_BLOCK))
    return math.fsum(chain.from_iterable(blocks))


def measure_residuals(residuals: DoubleArray, labels: DoubleArray | None = None) -> Residuals:
    """Measure prediction minus label.

    Parameters
    ----------
    residuals : ndarray of float64, shape (n_stars,)
        Finite.
    labels : ndarray of float64, shape (n_stars,), optional
        What was subtracted; without it there is no slope.
    """
    n_stars = len(residuals)
    if n_stars == 0:
        return Residuals(0)
    rms = math.sqrt(exact_sum(np.square(residuals)) / n_stars)
    bias = float(np.median(residuals))
    if n_stars == 1:
        return Residuals(1, rms, bias)
    distances = np.abs(residuals - bias)
    scatter = MAD_TO_SIGMA * float(np.median(distances))
    is_outlier = distances > OUTLIER_SCATTERS * scatter
    slope = None if labels is None else _fit_slope(labels, residuals)
    return Residuals(n_stars, rms, bias, scatter, int(is_outlier.sum()), slope)


def _fit_slope(x: DoubleArray, y: DoubleArray) -> float | None:
    """Return the slope of the line of least squares through points; both of shape (n,)."""
    if len(x) < FEWEST_OF_SLOPE or x.min() == x.max():
        return None
    away = x - exact_sum(x) / len(x)
    return exact_sum(away * (y - exact_sum(y) / len(y))) / exact_sum(np.square(away))


def measure_pulls(residuals: DoubleArray, sigmas: FloatArray) -> Pulls:
    """Measure residuals over sigmas; a sigma that is not above 0 counts as none.

    Parameters
    ----------
    residuals : ndarray of float64, shape (n_stars,)
        Prediction minus label, finite.
    sigmas : ndarray of float32, shape (n_stars,)
        In the same unit; NaN where there is none.
    """
    has_sigma = np.isfinite(sigmas) & (sigmas > 0)
    n_stars = int(has_sigma.sum())
    if n_stars == 0:
        return Pulls(0, len(residuals))
    used = sigmas[has_sigma].astype(np.float64)
    pulls = residuals[has_sigma] / used
    sizes = np.abs(pulls)
    median = float(np.median(pulls))
    width = MAD_TO_SIGMA * float(np.median(np.abs(pulls - median))) if n_stars > 1 else None
    counts = np.bincount(np.searchsorted(PULL_EDGES, pulls, side="right"), minlength=len(PULL_EDGES) + 1)
    return Pulls(
        n_stars=n_stars,
        n_without=len(residuals) - n_stars,
        median_sigma=float(np.median(used)),
        median=median,
        width=width,
        within_1=float((sizes <= 1).mean()),
        within_2=float((sizes <= 2).mean()),
        factor=float(np.quantile(sizes, WITHIN_1)),
        histogram=tuple(counts.tolist()),
    )
