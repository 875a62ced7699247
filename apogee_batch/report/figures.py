"""Pictures of a catalogue: the Kiel diagram, and predictions against labels.

A catalogue may come in pieces, each of which is looked at once: memory does not grow with its stars.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from apogee_batch.report.canvas import (
    AXIS_TITLES,
    TYPE_COLOURS,
    make_legible,
    marker_size,
    metallicity_colours,
    save_figure,
    write_note,
)
from apogee_batch.report.columns import get_predictions, is_equal, is_finite
from apogee_batch.report.density import Cloud, Limits
from apogee_batch.report.isochrone_lines import IsochroneLine, draw_isochrones, name_isochrones
from apogee_batch.report.label_figure import label_comparison
from apogee_batch.report.typed_points import FRAME, Catalog, draw_density, draw_type, pieces_of
from apogee_batch.schema import LABEL_NAMES, BoolArray, DoubleArray

KIEL_SIZE_IN = (8.4, 4.1)
LOGG, TEFF, FE_H = (LABEL_NAMES.index(name) for name in ("logg", "teff", "fe_h"))
COLOUR_PERCENTILES = (2.0, 98.0)
COLOUR_STEP_DEX = 0.1
COLOUR_BIN_DEX = 0.005
__all__ = ["kiel_diagram", "label_comparison"]
BACKGROUND_TYPE = "all"
DRAWING_SEED = 0  # of the order in which points are drawn, so that no part of the sky is always on top


class _KielStars:
    """What a Kiel diagram shows of a catalogue."""

    def __init__(self, catalog: Catalog) -> None:
        self.all = Cloud(FRAME["teff"], FRAME["logg"])
        self.by_type = {name: Cloud(FRAME["teff"], FRAME["logg"]) for name in ("mstar", "yso")}
        low, high = FRAME["fe_h"]
        self._edges = np.linspace(low, high, round((high - low) / COLOUR_BIN_DEX) + 1)
        self._fe_h = np.zeros(len(self._edges) - 1, np.int64)
        for piece in pieces_of(catalog):
            predictions = get_predictions(piece)
            is_drawn = is_finite(predictions)
            _add(self.all, predictions, is_drawn)
            for name, cloud in self.by_type.items():
                _add(cloud, predictions, is_drawn & is_equal(piece, "data_type", name))
            fe_h = np.clip(predictions[is_drawn, FE_H], low, high)
            self._fe_h += np.histogram(fe_h, self._edges)[0]

    def colour_limits(self) -> Limits:
        """Return the range of the colour bar in dex, rounded outwards to `COLOUR_STEP_DEX`."""
        share = np.cumsum(self._fe_h)
        if not share[-1]:
            return FRAME["fe_h"]
        places = np.searchsorted(share, np.array(COLOUR_PERCENTILES) / 100 * share[-1])
        ends = (self._edges[places[0]], self._edges[min(places[1] + 1, len(share))])
        low, high = np.round(np.array(ends) / COLOUR_STEP_DEX, 6)
        low, high = np.floor(low) * COLOUR_STEP_DEX, np.ceil(high) * COLOUR_STEP_DEX
        return float(low), float(max(high, low + COLOUR_STEP_DEX))


def kiel_diagram(
    catalog: Catalog,
    path: Path,
    *,
    title: str | None = None,
    isochrones: Sequence[IsochroneLine] = (),
    with_pdf: bool = False,
) -> None:
    """Draw Teff against log g: all stars by [Fe/H], and M dwarfs and YSOs by type.

    Both axes run as astronomers draw them, hot stars at the left and giants at the top. From
    `FEWEST_DENSE` stars on, each cell has the mean [Fe/H] of its stars, and their number is the grey of the
    right panel. Rows without a prediction are left out; stars outside `FRAME` are counted in a note.

    Parameters
    ----------
    catalog : Table, or iterable of Table
        A catalogue, or pieces of it; the means of the realizations are drawn.
    path : Path
        The PNG file to write.
    title : str, optional
        Title of the picture.
    isochrones : sequence of IsochroneLine
        Lines to draw before the stars.
    with_pdf : bool
        Whether to save it as PDF, too.
    """
    stars = _KielStars(catalog)
    teff, logg = stars.all.limits()
    with save_figure(path, *KIEL_SIZE_IN, with_pdf=with_pdf) as figure:
        if title:
            figure.suptitle(title, fontsize=11)
        left, right = figure.subplots(1, 2, sharex=True, sharey=True)
        points = _draw_by_metallicity(left, stars)
        bar = figure.colorbar(points, ax=left, extend="both", pad=0.02, aspect=30)
        bar.ax.set_title(AXIS_TITLES["fe_h"].replace("  ", "\n"), fontsize=8, loc="center", pad=8)
        left.set_title(f"All stars ({stars.all.n_inside + stars.all.n_outside:,})")
        _draw_background(right, stars.all)
        for data_type, cloud in stars.by_type.items():
            draw_type(right, cloud, data_type)
        right.set_title("Labelled M dwarfs and YSOs (grey: all stars)")
        if right.get_legend_handles_labels()[1]:
            make_legible(right.legend(loc="upper left"))
        for axes in (left, right):
            axes.set_xlabel(AXIS_TITLES["teff"])
            axes.set_ylabel(AXIS_TITLES["logg"])
            axes.minorticks_on()
        right.tick_params(labelleft=True)
        left.set_xlim(teff[::-1])  # shared with the right panel
        left.set_ylim(logg[::-1])
        for axes in (left, right):
            handles = draw_isochrones(axes, isochrones)
        if handles:
            name_isochrones(figure, handles)
        if stars.all.n_outside:
            write_note(left, f"{stars.all.n_outside:,} outside")


def _add(cloud: Cloud, predictions: DoubleArray, chosen: BoolArray) -> None:
    """Add some stars to a panel of a Kiel diagram."""
    stars = predictions[chosen]
    cloud.add(stars[:, TEFF], stars[:, LOGG], stars[:, FE_H])


def _draw_by_metallicity(axes: Axes, stars: _KielStars) -> ScalarMappable:
    """Draw all stars in the colour of their [Fe/H]."""
    low, high = stars.colour_limits()
    colours: dict[str, Any] = {"cmap": metallicity_colours(), "norm": Normalize(low, high)}
    if stars.all.is_dense:
        cells = stars.all.cells(*stars.all.limits())
        return axes.pcolormesh(cells.x_edges, cells.y_edges, cells.value, rasterized=True, **colours)
    teff, logg, fe_h = stars.all.points()
    order = np.random.default_rng(DRAWING_SEED).permutation(len(teff))
    size = marker_size(len(teff))
    return axes.scatter(teff[order], logg[order], s=size, c=fe_h[order], linewidths=0, **colours)


def _draw_background(axes: Axes, cloud: Cloud) -> None:
    """Draw all stars in grey, behind those of the types."""
    if cloud.is_dense:
        draw_density(axes, cloud, BACKGROUND_TYPE)
        return
    teff, logg, _ = cloud.points()
    axes.scatter(teff, logg, s=marker_size(len(teff)) / 2, c=TYPE_COLOURS[BACKGROUND_TYPE], linewidths=0)
