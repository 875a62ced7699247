"""Interstellar extinction in photometric bands, from the law of Cardelli, Clayton and Mathis (1989)."""

from collections.abc import Mapping
from functools import cache

import numpy as np

from apogee_batch.errors import UsageError
from apogee_batch.schema import DoubleArray

R_V = 3.1
WAVELENGTH_UM = {
    "j": 1.235,  # 2MASS: Cohen et al. (2003), isophotal wavelengths
    "h": 1.662,
    "k": 2.159,
    "g": 0.481,  # Pan-STARRS: Tonry et al. (2012), mean wavelengths
    "r": 0.617,
    "z": 0.866,
    "v": 0.549,  # at which the law is 1
}
"""Where a band that is narrow against the slope of the law is taken to lie."""
PASSBANDS = {
    "g_gaia": ((0.330, 0.0), (0.420, 0.80), (0.600, 1.0), (0.700, 0.93), (0.850, 0.62), (1.050, 0.0)),
    "bp": ((0.328, 0.0), (0.360, 0.70), (0.400, 0.85), (0.640, 1.0), (0.660, 0.90), (0.680, 0.0)),
    "rp": ((0.620, 0.0), (0.645, 0.97), (0.720, 1.0), (0.780, 0.94), (0.900, 0.60), (1.050, 0.0)),
}
"""Gaia's wide bands: wavelengths in micrometres and relative response to photons, in straight pieces. A
sketch of the curves of Evans et al. (2018). Up to A_V = 3 the extinctions agree with the coefficients that
the Gaia Collaboration (2018, A&A 616, A10) computed with another law within 4 % (G, BP) and 9 % (RP)."""
_OPTICAL_A = (1.0, 0.17699, -0.50447, -0.02427, 0.72085, 0.01979, -0.77530, 0.32999)  # equations 3a, 3b
_OPTICAL_B = (0.0, 1.41338, 2.28305, 1.07233, -5.38434, -0.62251, 5.30260, -2.09002)
_GRID_LOG_TEFF = np.linspace(3.3, 4.4, 12)
_GRID_A_V = np.linspace(0, 30, 61)
_SECOND_RADIATION_UM_K = 14387.77  # hc/k


def extinction_law(wavelength_um: DoubleArray, *, r_v: float = R_V) -> DoubleArray:
    """Return A(wavelength) / A(V).

    Parameters
    ----------
    wavelength_um : ndarray
        In micrometres, 0.303 to 3.33: the optical and infrared branches (equations 2 and 3).
    r_v : float
        Ratio of total to selective extinction.

    Raises
    ------
    ValueError
        If a wavelength lies outside of that range.
    """
    x = 1 / np.asarray(wavelength_um, dtype=np.float64)
    if np.any((x < 0.3) | (x > 3.3)):
        raise ValueError("the extinction law is given from 0.303 to 3.33 micrometres")
    infrared = (0.574 - 0.527 / r_v) * x**1.61
    y = x - 1.82
    optical = np.polyval(_OPTICAL_A[::-1], y) + np.polyval(_OPTICAL_B[::-1], y) / r_v
    return np.asarray(np.where(x <= 1.1, infrared, optical))


def band_extinction(
    band: str, a_v: DoubleArray, log_teff: DoubleArray, *, ratios: Mapping[str, float] | None = None
) -> DoubleArray:
    """Return the extinction of stars in a band.

    In Gaia's wide bands dust changes the light that is left: the extinction is that of a black body of the
    star's temperature, integrated over the band. Elsewhere it is proportional to A_V.

    Parameters
    ----------
    band : str
        Our name of the band.
    a_v : ndarray, shape (n_stars,)
        Extinction in V, in magnitudes, 0 to 30.
    log_teff : ndarray, shape (n_stars,)
        log10 of the effective temperature in K.
    ratios : mapping of str to float, optional
        A(band)/A(V) of bands, which replace what is known here.

    Returns
    -------
    ndarray, shape (n_stars,)
        Magnitudes.

    Raises
    ------
    UsageError
        If nothing is known of the band.
    """
    if ratios and band in ratios:
        return a_v * ratios[band]
    if band in WAVELENGTH_UM:
        return a_v * extinction_law(np.array(WAVELENGTH_UM[band]))
    if band not in PASSBANDS:
        raise UsageError(
            f"the extinction in band {band} is not known here; give its ratio to that in V: "
            f"--extinction {band}=RATIO"
        )
    log_teff = np.nan_to_num(log_teff, nan=_GRID_LOG_TEFF[0])  # stars without a model have no magnitude
    rows = np.clip(np.interp(log_teff, _GRID_LOG_TEFF, np.arange(_GRID_LOG_TEFF.size)), 0, 10.999999)
    columns = np.clip(np.interp(a_v, _GRID_A_V, np.arange(_GRID_A_V.size)), 0, _GRID_A_V.size - 1.000001)
    i, k = rows.astype(np.int32), columns.astype(np.int32)
    u, v = rows - i, columns - k
    grid = _wide_band(band)
    below = (1 - v) * grid[i, k] + v * grid[i, k + 1]
    above = (1 - v) * grid[i + 1, k] + v * grid[i + 1, k + 1]
    return np.asarray((1 - u) * below + u * above)


@cache
def _wide_band(band: str) -> DoubleArray:
    """Return the extinction in a wide band over the grid of temperatures and A_V."""
    corners = np.array(PASSBANDS[band])
    wavelength = np.linspace(corners[0, 0], corners[-1, 0], 400)
    response = np.interp(wavelength, corners[:, 0], corners[:, 1])
    teff = 10 ** _GRID_LOG_TEFF[:, np.newaxis]
    photons = response / (wavelength**4 * np.expm1(_SECOND_RADIATION_UM_K / (wavelength * teff)))
    left = 10 ** (-0.4 * _GRID_A_V[:, np.newaxis] * extinction_law(wavelength))
    through = photons @ left.T
    return np.asarray(-2.5 * np.log10(through / photons.sum(axis=1, keepdims=True)))
