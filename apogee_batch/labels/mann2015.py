"""Temperature, radius, mass and log g of M dwarfs by the empirical relations of Mann et al. (2015).

Coefficients are those of Mann et al. 2015, ApJ 804, 64, with the erratum of 2016 (ApJ 819, 87). All relations
were calibrated on one sample of stars; outside its range they are not used.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.polynomial import Polynomial

from apogee_batch.schema import BoolArray, DoubleArray

VALID_TEFF_K = (2700.0, 4100.0)
VALID_FE_H = (-0.6, 0.5)
VALID_M_K = (4.6, 9.8)
TEFF_SCALE_K = 3500.0
SYSTEMATIC_TEFF_K = 60.0  # of the temperature scale itself; added in quadrature to a relation's scatter
LOGG_SUN = 4.438

RADIUS_OF_TEFF = (16.7700, -54.3210, 57.6627, -19.6994)
RADIUS_OF_TEFF_FE_H = 0.4565
RADIUS_OF_M_K = (1.9305, -0.3466, 0.01647)
RADIUS_OF_M_K_FE_H = 0.04458
MASS_OF_M_K = (0.585825902, 0.387151019, -0.121729937, 0.0105529583, -2.72615872e-4)
MASS_OF_RADIUS = (0.0078368671, 0.48699518, 1.6777663, -1.2430190)


@dataclass(frozen=True)
class ColorTemperature:
    """A relation of colour, and of [Fe/H] in some, to temperature.

    Attributes
    ----------
    bands : tuple of str
        The bluer and the redder band of the colour.
    coefficients : tuple of float
        Of Teff / 3500 K, by powers of the colour.
    fe_h_coefficient : float
        Of [Fe/H]; 0 where the relation does without.
    scatter_k : float
        Scatter of the calibrating stars, K.
    """

    bands: tuple[str, str]
    coefficients: tuple[float, ...]
    scatter_k: float
    fe_h_coefficient: float = 0.0

    def temperature(self, color: DoubleArray, fe_h: DoubleArray) -> DoubleArray:
        """Return Teff in K, in and outside the valid range; arrays of one shape."""
        return TEFF_SCALE_K * (_polynomial(self.coefficients, color) + self.fe_h_coefficient * fe_h)

    @cached_property
    def reddest_color(self) -> float:
        """Colour at which the polynomial turns: a redder star would come out hotter again."""
        turns = np.asarray(Polynomial(self.coefficients).deriv().roots(), dtype=np.complex128)
        return float(turns.real[np.abs(turns.imag) < 1e-9].min())

    @property
    def error_k(self) -> float:
        """One-sigma error of a temperature by this relation, photometry aside."""
        return float(np.hypot(self.scatter_k, SYSTEMATIC_TEFF_K))


TEFF_RELATIONS = {
    "v-j+fe_h": ColorTemperature(("v", "j"), (2.515, -1.054, 0.2965, -0.04150, 0.002245), 42.0, 0.05262),
    "bp-rp+fe_h": ColorTemperature(("bp", "rp"), (2.835, -1.893, 0.7860, -0.1594, 0.01243), 45.0, 0.04417),
    "r-j+fe_h": ColorTemperature(("r", "j"), (2.532, -1.319, 0.4449, -0.07151, 0.004333), 47.0, 0.05629),
    "r-z+fe_h": ColorTemperature(("r", "z"), (1.572, -0.7220, 0.3560, -0.09221, 0.009071), 50.0, 0.05220),
    "bp-rp": ColorTemperature(("bp", "rp"), (3.245, -2.4309, 1.043, -0.2127, 0.01649), 52.0),
    "r-z": ColorTemperature(("r", "z"), (1.547, -0.7053, 0.3656, -0.1008, 0.01046), 58.0),
    "r-j": ColorTemperature(("r", "j"), (2.445, -1.2578, 0.4340, -0.0720, 0.004502), 58.0),
}
"""The relations by name, those of the smallest scatter first: the order in which they are preferred."""


def radius_from_teff(teff: DoubleArray, fe_h: DoubleArray) -> DoubleArray:
    """Return the radius in solar radii from Teff in K and [Fe/H], in and outside the valid range."""
    return _polynomial(RADIUS_OF_TEFF, teff / TEFF_SCALE_K) * (1 + RADIUS_OF_TEFF_FE_H * fe_h)


def radius_from_m_k(m_k: DoubleArray, fe_h: DoubleArray) -> DoubleArray:
    """Return the radius in solar radii from absolute K magnitude and [Fe/H]."""
    return _polynomial(RADIUS_OF_M_K, m_k) * (1 + RADIUS_OF_M_K_FE_H * fe_h)


def mass_from_radius(radius: DoubleArray) -> DoubleArray:
    """Return the mass in solar masses from the radius in solar radii."""
    return _polynomial(MASS_OF_RADIUS, radius)


def mass_from_m_k(m_k: DoubleArray) -> DoubleArray:
    """Return the mass in solar masses from the absolute K magnitude."""
    return _polynomial(MASS_OF_M_K, m_k)


def surface_gravity(mass: DoubleArray, radius: DoubleArray) -> DoubleArray:
    """Return log10 of g in cm/s2 from mass and radius in solar units; NaN where one is not positive."""
    is_star = (mass > 0) & (radius > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(is_star, LOGG_SUN + np.log10(mass) - 2 * np.log10(radius), np.nan)


def mann2015_logg(teff: DoubleArray, fe_h: DoubleArray) -> DoubleArray:
    """Return log g of M dwarfs from their temperature and metallicity.

    The radius follows from Teff and [Fe/H], the mass from the radius. This is how the labels of the
    printed stars of Olney et al. (2020), Table 4, come out.

    Parameters
    ----------
    teff : ndarray of float64
        K.
    fe_h : ndarray of float64
        Dex; a shape that broadcasts with that of `teff`.

    Returns
    -------
    ndarray of float64
        log10 of cm/s2; NaN outside 2700 < Teff < 4100 K and -0.6 < [Fe/H] < 0.5.
    """
    teff, fe_h = np.broadcast_arrays(np.asarray(teff, dtype=np.float64), np.asarray(fe_h, dtype=np.float64))
    is_valid = is_inside(teff, VALID_TEFF_K) & is_inside(fe_h, VALID_FE_H)
    radius = radius_from_teff(np.where(is_valid, teff, np.nan), np.where(is_valid, fe_h, np.nan))
    return surface_gravity(mass_from_radius(radius), radius)


def is_inside(values: DoubleArray, limits: tuple[float, float]) -> BoolArray:
    """Tell which values lie between two limits; the limits themselves, and NaN, do not."""
    with np.errstate(invalid="ignore"):
        return np.asarray((values > limits[0]) & (values < limits[1]))


def _polynomial(coefficients: tuple[float, ...], x: DoubleArray) -> DoubleArray:
    """Return the polynomial of ascending powers."""
    total = np.zeros_like(x)
    for coefficient in reversed(coefficients):
        total = total * x + coefficient
    return total
