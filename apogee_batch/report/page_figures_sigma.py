"""How large the sigmas are at which SNR, beside what the paper says of its own."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from matplotlib.axes import Axes

from apogee_batch.report.canvas import AXIS_TITLES, INK, marker_alpha, marker_size
from apogee_batch.report.columns import get_numbers
from apogee_batch.report.density import Cloud, Limits
from apogee_batch.report.labelled import CALIBRATED, REALIZATIONS, SIGMA_COLUMNS
from apogee_batch.report.page_figures import (
    Picture,
    number_colours,
    number_norm,
    save_picture,
    show_nothing,
    show_number,
)
from apogee_batch.schema import LABEL_NAMES, LABEL_UNITS, DoubleArray

SIGMA_PICTURE_COLUMNS = ("snr", *SIGMA_COLUMNS[REALIZATIONS], *SIGMA_COLUMNS[CALIBRATED])
# Olney et al. 2020, section 3.6: typical sigmas; their ceiling between SNR 10 and 20
PAPER_TYPICAL = {"teff": 25.0, "logg": 0.04, "fe_h": 0.015}
PAPER_CEILING = {"teff": 200.0, "logg": 0.2, "fe_h": 0.1}
CEILING_SNR = (10.0, 20.0)
SHOWN = ("teff", "logg", "fe_h")
ROW_TITLES = {REALIZATIONS: "scatter over realizations", CALIBRATED: "calibrated total error"}
HEIGHT_IN = 5.6
SNR_FRAME = (0.0, 3.5)  # decimal logarithms
SIGMA_FRAME = {"teff": (-0.5, 3.5), "logg": (-3.5, 0.5), "fe_h": (-4.0, 0.5)}
MEDIAN_BINS = 28  # of SNR
MEDIAN_STEPS = 1600  # of sigma: the median is right to 0.6 percent
FEWEST_OF_MEDIAN = 5
MEDIAN_COLOUR, PAPER_COLOUR = "#d55e00", "#000000"
IntegerArray = npt.NDArray[np.int64]


class SigmaStars:
    """SNR and sigmas of a catalogue: memory does not grow with its stars."""

    def __init__(self) -> None:
        keys = [(kind, name) for kind in ROW_TITLES for name in SHOWN]
        self.clouds = {key: Cloud(SNR_FRAME, SIGMA_FRAME[key[1]], n_cells=(512, 512)) for key in keys}
        self._counts = {key: np.zeros((MEDIAN_BINS, MEDIAN_STEPS), np.int64) for key in keys}

    def add(self, piece: pa.Table) -> None:
        """Add a piece of the catalogue with those of `SIGMA_PICTURE_COLUMNS` that it has."""
        snr = get_numbers(piece, "snr")
        for kind, columns in SIGMA_COLUMNS.items():
            for name, column in zip(LABEL_NAMES, columns, strict=True):
                if column in piece.column_names:
                    self._add_sigma((kind, name), snr, get_numbers(piece, column))

    def _add_sigma(self, key: tuple[str, str], snr: DoubleArray, sigma: DoubleArray) -> None:
        is_known = (snr > 0) & (sigma > 0) & np.isfinite(snr) & np.isfinite(sigma)
        x, y = np.log10(snr[is_known]), np.log10(sigma[is_known])
        self.clouds[key].add(x, y)
        row = _place(x, SNR_FRAME, MEDIAN_BINS)
        step = _place(y, SIGMA_FRAME[key[1]], MEDIAN_STEPS)
        found = np.bincount(row * MEDIAN_STEPS + step, minlength=MEDIAN_BINS * MEDIAN_STEPS)
        self._counts[key] += found.reshape(MEDIAN_BINS, MEDIAN_STEPS)

    def has(self, kind: str) -> bool:
        """Tell whether any star has a sigma of that kind."""
        return any(cloud.n_inside + cloud.n_outside for key, cloud in self.clouds.items() if key[0] == kind)

    def medians(self, kind: str, name: str) -> tuple[DoubleArray, DoubleArray]:
        """Return middles of bins of SNR, and the median sigma of their stars: decimal logarithms.

        Bins with fewer than `FEWEST_OF_MEDIAN` stars are left out.
        """
        counts = self._counts[kind, name]
        total = counts.sum(axis=1)
        place = (np.cumsum(counts, axis=1) * 2 >= total[:, np.newaxis]).argmax(axis=1)
        low, high = SIGMA_FRAME[name]
        sigma = low + (place + 0.5) * (high - low) / MEDIAN_STEPS
        snr = SNR_FRAME[0] + (np.arange(MEDIAN_BINS) + 0.5) * (SNR_FRAME[1] - SNR_FRAME[0]) / MEDIAN_BINS
        is_enough = total >= FEWEST_OF_MEDIAN
        return snr[is_enough], sigma[is_enough]


def draw_sigmas(stars: SigmaStars, path: Path) -> Picture | None:
    """Draw both kinds of sigma of the three labels against SNR, with the paper's typical values and ceiling.

    Returns
    -------
    Picture or None
        None where no star has an SNR and a sigma.
    """
    if not any(map(stars.has, ROW_TITLES)):
        return None
    highest = 2
    with save_picture(path, HEIGHT_IN) as figure:
        panels = figure.subplots(2, 3, sharex=True, sharey="col")
        limits = {name: _limits(stars, name) for name in SHOWN}
        is_dense = any(cloud.is_dense for cloud in stars.clouds.values())
        drawn: list[Any] = []
        for i, kind in enumerate(ROW_TITLES):
            for j, name in enumerate(SHOWN):
                drawn += _draw_panel(panels[i, j], stars, (kind, name), limits[name])
        if is_dense:
            highest = max(int(np.nanmax(mesh.get_array())) for mesh in drawn)
            for mesh in drawn:
                mesh.set_norm(number_norm(highest))
            bar = figure.colorbar(drawn[0], ax=panels, pad=0.01, aspect=40, format=show_number)
            bar.set_label("stars in a cell")
        for j, name in enumerate(SHOWN):
            panels[0, j].set_title(AXIS_TITLES[name])
            panels[1, j].set_xlabel("SNR per pixel")
        for i, title in enumerate(ROW_TITLES.values()):
            panels[i, 0].set_ylabel(f"{title}\n(unit of the label)", fontsize=9)
        handles, names = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=8.5, handletextpad=0.6)
    return Picture(path, _describe(stars))


def _place(values: DoubleArray, frame: Limits, n_bins: int) -> IntegerArray:
    """Return the bin of each value, the outermost ones for those beyond the frame."""
    places = np.floor((values - frame[0]) / (frame[1] - frame[0]) * n_bins)
    return np.clip(places, 0, n_bins - 1).astype(np.int64)


def _limits(stars: SigmaStars, name: str) -> tuple[Limits, Limits]:
    """Return what the panels of a label show, as logarithms: all its stars, and the paper's values."""
    found = [stars.clouds[kind, name].limits() for kind in ROW_TITLES if stars.clouds[kind, name].n_inside]
    paper = (np.log10(PAPER_TYPICAL[name]) - 0.3, np.log10(PAPER_CEILING[name]) + 0.3)
    x = [end for limits in found for end in limits[0]] or [1.0, 3.0]
    y = [end for limits in found for end in limits[1]]
    return (min(*x, 0.95), max(*x, 2.0)), (min([*y, paper[0]]), max([*y, paper[1]]))


def _draw_panel(
    axes: Axes, stars: SigmaStars, key: tuple[str, str], limits: tuple[Limits, Limits]
) -> list[Any]:
    """Draw one kind of sigma of one label; return the meshes of cells that were drawn."""
    cloud, name = stars.clouds[key], key[1]
    drawn = []
    if cloud.is_dense:
        cells = cloud.cells(*limits)
        count = np.where(cells.count > 0, cells.count, np.nan)
        edges = (10**cells.x_edges, 10**cells.y_edges)
        drawn.append(axes.pcolormesh(*edges, count, cmap=number_colours(), rasterized=True))
    elif cloud.n_inside:
        x, y, _ = cloud.points()
        style: dict[str, Any] = {"s": marker_size(len(x)), "alpha": marker_alpha(len(x)), "linewidths": 0}
        axes.scatter(10**x, 10**y, c="#0072b2", rasterized=len(x) > 2000, **style)
    else:
        show_nothing(axes, "no star has one")
    snr, sigma = stars.medians(*key)
    if len(snr) > 1:  # of few stars there is no line
        axes.plot(10**snr, 10**sigma, color=MEDIAN_COLOUR, linewidth=2.0, label="median here")
    typical: dict[str, Any] = {"color": PAPER_COLOUR, "linewidth": 1.2, "linestyle": (0, (5, 2))}
    axes.axhline(PAPER_TYPICAL[name], label="paper: typical", **typical)
    ceiling = [PAPER_CEILING[name]] * 2
    axes.plot(
        CEILING_SNR,
        ceiling,
        color=PAPER_COLOUR,
        linewidth=4,
        solid_capstyle="butt",
        label="paper: ceiling at SNR 10-20",
    )
    axes.axvspan(*CEILING_SNR, color=INK, alpha=0.08, linewidth=0, zorder=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(*(10**end for end in limits[0]))
    axes.set_ylim(*(10**end for end in limits[1]))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(show_number)
    return drawn


def _describe(stars: SigmaStars) -> str:
    """Say in words what the picture shows: the median sigmas at SNR 10 to 20, and near 100."""
    parts = []
    for name in SHOWN:
        snr, sigma = stars.medians(REALIZATIONS, name)
        texts = []
        for told, chosen in (("10-20", (snr > 1.0) & (snr < np.log10(20))), ("90-110", abs(snr - 2) < 0.07)):
            if chosen.any():
                texts.append(f"{10 ** sigma[chosen].mean():.2g} {LABEL_UNITS[name]} at SNR {told}")
        if texts:
            parts.append(f"{name}: {' and '.join(texts)}")
    medians = f" Median scatter over realizations: {'; '.join(parts)}." if parts else ""
    return f"Sigmas of the three labels against SNR, with the paper's typical values and ceiling.{medians}"
