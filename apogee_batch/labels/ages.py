"""Ages and masses of stars from (Teff, log g), by interpolation on isochrones.

Where the isochrones fold, a star lies in several of their cells: it is given the youngest age, that of a star
which still contracts towards the main sequence, and a flag.
"""

from dataclasses import dataclass

import numpy as np

from apogee_batch.labels.age_mesh import AgeMesh, is_above, locate
from apogee_batch.schema import DoubleArray, IntArray

AMBIGUOUS_DEX = 0.05  # of log age, between the youngest and the oldest cell that a star is in
MIN_WEIGHT_INSIDE = 0.95
AGE_FLAGS = {
    "AGE_OUTSIDE_GRID": (0, "No isochrones around the star; age and mass are null"),
    "AGE_AMBIGUOUS": (1, f"Several ages fit, more than {AMBIGUOUS_DEX} dex apart; the youngest is given"),
    "AGE_ERROR_TRUNCATED": (
        2,
        f"Less than {MIN_WEIGHT_INSIDE:.0%} of the star's error lies within the isochrones; "
        "e_log_age and e_mass are lower limits",
    ),
    "AGE_YOUNGER_THAN_GRID": (3, "Above the youngest isochrone: its log g at the star's Teff is higher"),
}
"""Bit and meaning of each flag of an age."""
_N_NODES = 7  # a side, of the quadrature over the errors: exact for polynomials of degree 13
_PIECE_STARS = 4096  # 200,000 points of the quadrature at once: some 100 MB


@dataclass(frozen=True)
class AgeEstimates:
    """Ages and masses of stars; NaN where unknown.

    Attributes
    ----------
    log_age, e_log_age : ndarray, shape (n_stars,)
        log10 of years; standard deviation over the errors of Teff and log g.
    mass, e_mass : ndarray, shape (n_stars,)
        Initial mass in solar masses, likewise.
    flags : ndarray of int32, shape (n_stars,)
        Bits of `AGE_FLAGS`.
    """

    log_age: DoubleArray
    e_log_age: DoubleArray
    mass: DoubleArray
    e_mass: DoubleArray
    flags: IntArray


def estimate_ages(
    mesh: AgeMesh, teff: DoubleArray, logg: DoubleArray, e_teff: DoubleArray, e_logg: DoubleArray
) -> AgeEstimates:
    """Return age and mass of each star, with errors.

    An error is the standard deviation of the result over the errors of Teff and log g, which are taken as
    normal and independent, by Gauss-Hermite quadrature: no random numbers. What lies beyond the isochrones
    is left out of it. A star's numbers do not depend on the other stars.

    Parameters
    ----------
    mesh : AgeMesh
    teff, logg : ndarray, shape (n_stars,)
        K; log10 of cm/s2. NaN gives no age.
    e_teff, e_logg : ndarray, shape (n_stars,)
        One sigma. NaN gives no error of the age.

    Returns
    -------
    AgeEstimates
    """
    pieces = [
        _estimate_piece(mesh, *(values[start : start + _PIECE_STARS].astype(np.float64) for values in stars))
        for stars in [(teff, logg, e_teff, e_logg)]
        for start in range(0, max(len(teff), 1), _PIECE_STARS)
    ]
    names = ("log_age", "e_log_age", "mass", "e_mass", "flags")
    return AgeEstimates(
        **{name: np.concatenate([getattr(piece, name) for piece in pieces]) for name in names}
    )


def _estimate_piece(
    mesh: AgeMesh, teff: DoubleArray, logg: DoubleArray, e_teff: DoubleArray, e_logg: DoubleArray
) -> AgeEstimates:
    """Do what `estimate_ages` does, for stars that fit into memory."""
    log_age, oldest, log_mass = locate(mesh, _log10(teff), logg)
    is_inside = np.isfinite(log_age)
    e_log_age, e_mass, is_truncated = (np.full(teff.shape, np.nan) for _ in range(3))
    has_errors = is_inside & (e_teff >= 0) & (e_logg >= 0) & np.isfinite(e_teff) & np.isfinite(e_logg)
    at = np.flatnonzero(has_errors)
    x, y, weight = _nodes()
    nodes_teff = teff[at, None] + e_teff[at, None] * x
    nodes_logg = logg[at, None] + e_logg[at, None] * y
    ages, _, masses = locate(mesh, _log10(nodes_teff).ravel(), nodes_logg.ravel())
    ages, masses = ages.reshape(nodes_teff.shape), masses.reshape(nodes_teff.shape)
    weights = np.where(np.isfinite(ages), weight, 0.0)
    e_log_age[at] = _spread(ages, weights)
    e_mass[at] = _spread(10**masses, weights)
    is_truncated[at] = weights.sum(axis=1) < MIN_WEIGHT_INSIDE
    is_given = np.isfinite(teff) & np.isfinite(logg)
    is_set = {
        "AGE_OUTSIDE_GRID": ~is_inside,
        "AGE_AMBIGUOUS": is_inside & (oldest - log_age > AMBIGUOUS_DEX),
        "AGE_ERROR_TRUNCATED": is_truncated == 1,
        "AGE_YOUNGER_THAN_GRID": ~is_inside & is_given & is_above(mesh.youngest, _log10(teff), logg),
    }
    flags = np.zeros(teff.shape, np.int32)
    for name, where in is_set.items():
        flags |= np.where(where, np.int32(1 << AGE_FLAGS[name][0]), np.int32(0))
    return AgeEstimates(log_age, e_log_age, 10**log_mass, e_mass, flags)


def _nodes() -> tuple[DoubleArray, DoubleArray, DoubleArray]:
    """Return nodes and weights of the quadrature over two standard normal errors."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_N_NODES)
    weights = weights / weights.sum()
    x, y = np.meshgrid(nodes, nodes, indexing="ij")
    return x.ravel(), y.ravel(), np.outer(weights, weights).ravel()


def _spread(values: DoubleArray, weights: DoubleArray) -> DoubleArray:
    """Return the weighted standard deviation of each row; values without a weight may be NaN."""
    known = np.where(weights > 0, values, 0.0)
    total = weights.sum(axis=1)
    mean = (weights * known).sum(axis=1) / total
    spread: DoubleArray = np.sqrt((weights * (known - mean[:, None]) ** 2).sum(axis=1) / total)
    return spread


def _log10(teff: DoubleArray) -> DoubleArray:
    """Return log10, NaN where there is none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(teff > 0, np.log10(teff), np.nan)
