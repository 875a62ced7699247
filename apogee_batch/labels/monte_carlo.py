"""Draws of one star's measurements, and the errors that follow from them."""

import hashlib
from dataclasses import dataclass

import numpy as np

from apogee_batch.schema import DoubleArray

ONE_SIGMA = (0.158655253931457, 0.841344746068543)  # between them lie 68.27 % of a normal distribution


@dataclass(frozen=True)
class StarDraws:
    """Random numbers of one star: its own, whatever the other stars, and one series for each source of error.

    Every array has `n_realizations + 1` values, of which the first is the value without noise.

    Attributes
    ----------
    seed : int
        Seed of the whole table.
    key : str
        Name of the star.
    n_realizations : int
        Number of noisy values.
    """

    seed: int
    key: str
    n_realizations: int

    def normal(self, source: str) -> DoubleArray:
        """Return 0 and then standard normal numbers; the same for the same seed, star and source."""
        text = "\0".join((str(self.seed), source, self.key))
        digest = hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()
        generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))
        noise = np.zeros(self.n_realizations + 1)
        noise[1:] = generator.standard_normal(self.n_realizations)
        return noise

    def around(self, value: float, error: float, source: str) -> DoubleArray:
        """Return a measured value, and draws of it with its error."""
        return value + error * self.normal(source)


def half_interval(draws: DoubleArray) -> float:
    """Return half the width of the central 68.27 % of a star's draws.

    For a normal distribution that is its standard deviation; a few wild draws, where a polynomial leaves
    its range, do not spoil it. Draws without a value count as infinitely far.

    Parameters
    ----------
    draws : ndarray of float64, shape (n_realizations + 1,)
        The first one, without noise, is left out.

    Returns
    -------
    float
        NaN if more than a sixth of the draws have no value.
    """
    noisy = np.where(np.isfinite(draws[1:]), draws[1:], np.inf)
    with np.errstate(invalid="ignore"):
        low, high = np.quantile(noisy, ONE_SIGMA)
    return float(high - low) / 2 if np.isfinite(high) else float("nan")
