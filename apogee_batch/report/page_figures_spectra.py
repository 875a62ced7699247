"""Spectra of single stars, one below the other, beside what ordinary stars of their kind look like."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from apogee_batch.report.canvas import INK
from apogee_batch.report.page_figures import Picture, save_picture
from apogee_batch.report.spectrum_differences import in_medians
from apogee_batch.schema import DoubleArray, FloatArray

PANEL_HEIGHT_IN = 1.1
SHOWN_PERCENTILES = (0.15, 99.7)  # beyond lie the ends of the chips
DIFFERENCE_PERCENTILES = (0.5, 99.5)
GAP = 0.05  # of a panel, between the spectra and their difference
REFERENCE_WIDTH = 1.2
REFERENCE_COLOUR, DIFFERENCE_COLOUR, MARK_COLOUR = "#56b4e9", "#d55e00", "#f0e442"


@dataclass(frozen=True)
class NamedSpectrum:
    """A spectrum and the words above it.

    Attributes
    ----------
    title : str
    flux, err : ndarray of float32, shape (n_pixels,)
        0, and very large, where there is no measurement.
    reference : ndarray of float64, shape (n_pixels,), or None
        What is expected, in units of its median; None where it is not known.
    marked : tuple of (float, float)
        Intervals to look at, Angstrom.
    """

    title: str
    flux: FloatArray
    err: FloatArray
    reference: DoubleArray | None = None
    marked: tuple[tuple[float, float], ...] = ()


def draw_spectra(wavelength: DoubleArray, spectra: Sequence[NamedSpectrum], path: Path) -> Picture | None:
    """Draw spectra in units of their median, what is expected before them, and the difference below.

    Each panel has its own limits.

    Parameters
    ----------
    wavelength : ndarray of float64, shape (n_pixels,)
        Angstrom, vacuum, in the rest frame.
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
    with save_picture(path, 0.9 + PANEL_HEIGHT_IN * len(spectra)) as figure:
        panels = figure.subplots(len(spectra), 1, sharex=True, squeeze=False)[:, 0]
        for axes, spectrum in zip(panels, spectra, strict=True):
            _draw(axes, wavelength, spectrum)
            axes.set_title(spectrum.title, fontsize=8, pad=2, parse_math=False)  # a name may hold a $
            axes.tick_params(labelsize=7)
        panels[-1].set_xlim(float(wavelength[0]), float(wavelength[-1]))
        panels[-1].set_xlabel("rest-frame vacuum wavelength (Angstrom)")
        figure.supylabel("flux / median", fontsize=9)
        handles = {
            name: line
            for axes in panels
            for line, name in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        if len(handles) > 1:
            style: dict[str, Any] = {"ncols": len(handles), "fontsize": 8, "handletextpad": 0.5}
            drawn = figure.legend(handles.values(), handles.keys(), loc="outside upper right", **style)
            for line in drawn.get_lines():
                line.set_linewidth(2.0)
    return Picture(path, _describe(spectra))


def _draw(axes: Axes, wavelength: DoubleArray, spectrum: NamedSpectrum) -> None:
    """Draw one panel: the star before what is expected, and their difference below."""
    flux = in_medians(spectrum.flux, spectrum.err)
    if not np.isfinite(flux).any():
        return
    style: dict[str, Any] = {"linewidth": 0.4, "rasterized": True}
    low, high = np.nanpercentile(flux, SHOWN_PERCENTILES)
    if spectrum.reference is not None and np.isfinite(flux - spectrum.reference).any():
        for begin, end in spectrum.marked:
            axes.axvspan(begin, end, color=MARK_COLOUR, alpha=0.5, linewidth=0, zorder=0)
        difference = flux - spectrum.reference
        least, most = np.nanpercentile(difference, DIFFERENCE_PERCENTILES)
        base = low - most - GAP * (high - low)
        label = "median of ordinary stars"
        wide = style | {"linewidth": REFERENCE_WIDTH}  # the star's line lies upon it
        axes.plot(wavelength, spectrum.reference, color=REFERENCE_COLOUR, label=label, **wide)
        axes.plot(wavelength, flux, color=INK, label="strange star", zorder=2.1, **style)
        axes.axhline(base, color=INK, linewidth=0.4, linestyle=(0, (3, 3)))
        shifted = np.clip(difference, least, most) + base
        axes.plot(wavelength, shifted, color=DIFFERENCE_COLOUR, label="their difference", **style)
        low = base + least
    else:
        axes.plot(wavelength, flux, color=INK, label="strange star", **style)
    margin = 0.06 * (high - low) or 0.1
    axes.set_ylim(low - margin, high + margin)


def _describe(spectra: Sequence[NamedSpectrum]) -> str:
    n_compared = sum(spectrum.reference is not None for spectrum in spectra)
    text = f"Spectra of the {len(spectra)} strangest stars, in units of their median"
    if not n_compared:
        return f"{text}."
    return (
        f"{text}, {n_compared} of them with the median of ordinary stars of like labels, and the difference."
    )
