"""Spectra of single stars, one below the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apogee_batch.report.canvas import INK
from apogee_batch.report.page_figures import Picture, save_picture
from apogee_batch.schema import DoubleArray, FloatArray

PANEL_HEIGHT_IN = 0.85
SHOWN_PERCENTILES = (0.5, 99.5)
LARGEST_ERR = (
    10.0  # times the median: beside the gaps the errors grow a thousandfold, and the flux means nothing
)


@dataclass(frozen=True)
class NamedSpectrum:
    """A spectrum and the words above it.

    Attributes
    ----------
    title : str
    flux, err : ndarray of float32, shape (n_pixels,)
        0, and very large, where there is no measurement.
    """

    title: str
    flux: FloatArray
    err: FloatArray


def draw_spectra(wavelength: DoubleArray, spectra: Sequence[NamedSpectrum], path: Path) -> Picture | None:
    """Draw spectra in units of their median; each panel has its own limits.

    Parameters
    ----------
    wavelength : ndarray of float64, shape (n_pixels,)
        Angstrom, vacuum.
    spectra : sequence of NamedSpectrum
        From top to bottom.
    path : Path
        The PNG file.

    Returns
    -------
    Picture or None
        None without a spectrum.
    """
    if not spectra:
        return None
    with save_picture(path, 0.6 + PANEL_HEIGHT_IN * len(spectra)) as figure:
        panels = figure.subplots(len(spectra), 1, sharex=True, squeeze=False)[:, 0]
        for axes, spectrum in zip(panels, spectra, strict=True):
            flux = _without_bad_pixels(spectrum)
            if np.isfinite(flux).any():
                flux = flux / (abs(np.nanmedian(flux)) or 1.0)
                low, high = np.nanpercentile(flux, SHOWN_PERCENTILES)
                margin = 0.1 * (high - low) or 0.1
                axes.set_ylim(low - margin, high + margin)
            axes.plot(wavelength, flux, color=INK, linewidth=0.4, rasterized=True)
            axes.set_title(spectrum.title, fontsize=8, pad=2, parse_math=False)  # a name may hold a $
            axes.tick_params(labelsize=7)
        panels[-1].set_xlim(float(wavelength[0]), float(wavelength[-1]))
        panels[-1].set_xlabel("vacuum wavelength (Angstrom)")
        figure.supylabel("flux / median", fontsize=9)
    return Picture(path, f"Spectra of the {len(spectra)} strangest stars, in units of their median.")


def _without_bad_pixels(spectrum: NamedSpectrum) -> DoubleArray:
    """Return the flux, NaN where it is not measured or its error is far above the others."""
    is_measured = spectrum.flux != 0
    limit = LARGEST_ERR * np.median(spectrum.err[is_measured]) if is_measured.any() else 0.0
    return np.where(is_measured & (spectrum.err <= limit), spectrum.flux.astype(np.float64), np.nan)
