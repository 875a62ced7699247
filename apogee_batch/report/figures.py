"""Pictures of a catalogue: the Kiel diagram, and predictions against labels.

A catalogue may come in pieces, each of which is looked at once: memory does not grow with its stars.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from apogee_batch.report.canvas import (
    AXIS_TITLES,
    INK,
    TYPE_COLOURS,
    TYPE_MARKERS,
    TYPE_NAMES,
    density_colours,
    make_legible,
    marker_alpha,
    marker_size,
    metallicity_colours,
    save_figure,
    write_note,
)
from apogee_batch.report.columns import get_labels, get_predictions, is_equal, is_finite
from apogee_batch.report.density import Cloud, Limits, quantile_of_distance
from apogee_batch.report.isochrone_lines import IsochroneLine, draw_isochrones, name_isochrones
from apogee_batch.schema import DATA_TYPES, LABEL_NAMES, BoolArray, DoubleArray

KIEL_SIZE_IN = (8.4, 4.1)
COMPARISON_SIZE_IN = (8.4, 4.7)
LOGG, TEFF, FE_H = (LABEL_NAMES.index(name) for name in ("logg", "teff", "fe_h"))
FRAME = {"teff": (2200.0, 8200.0), "logg": (-1.0, 6.0), "fe_h": (-3.0, 1.0)}  # stars of APOGEE lie inside
RESIDUAL_CELLS = (512, 4096)  # differences are small beside the frame
COLOUR_PERCENTILES = (2.0, 98.0)
COLOUR_STEP_DEX = 0.1
COLOUR_BIN_DEX = 0.005
RESIDUAL_PERCENTILE = 99.0
BACKGROUND_TYPE = "all"
DRAWING_SEED = 0  # of the order in which points are drawn, so that no part of the sky is always on top
Catalog: TypeAlias = pa.Table | Iterable[pa.Table]


class _KielStars:
    """What a Kiel diagram shows of a catalogue."""

    def __init__(self, catalog: Catalog) -> None:
        self.all = Cloud(FRAME["teff"], FRAME["logg"])
        self.by_type = {name: Cloud(FRAME["teff"], FRAME["logg"]) for name in ("mstar", "yso")}
        low, high = FRAME["fe_h"]
        self._edges = np.linspace(low, high, round((high - low) / COLOUR_BIN_DEX) + 1)
        self._fe_h = np.zeros(len(self._edges) - 1, np.int64)
        for piece in _pieces(catalog):
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
        bar.set_label(AXIS_TITLES["fe_h"])
        left.set_title(f"All stars ({stars.all.n_inside + stars.all.n_outside:,})")
        _draw_background(right, stars.all)
        for data_type, cloud in stars.by_type.items():
            _draw_type(right, cloud, data_type)
        right.set_title("Labelled M dwarfs and YSOs (grey: all stars)")
        if right.get_legend_handles_labels()[1]:
            make_legible(right.legend(loc="upper left"))
        for axes in (left, right):
            axes.set_xlabel(AXIS_TITLES["teff"])
            axes.minorticks_on()
        left.set_ylabel(AXIS_TITLES["logg"])
        left.set_xlim(teff[::-1])  # shared with the right panel
        left.set_ylim(logg[::-1])
        for axes in (left, right):
            handles = draw_isochrones(axes, isochrones)
        if handles:
            name_isochrones(figure, handles)
        if stars.all.n_outside:
            write_note(left, f"{stars.all.n_outside:,} outside")


def label_comparison(catalog: Catalog, path: Path, *, with_pdf: bool = False) -> None:
    """Draw predictions against labels, and their differences below, for the stars of the test set.

    Where a type has `FEWEST_DENSE` stars or more, its colour is the stronger the more of them a cell holds.

    Parameters
    ----------
    catalog : Table, or iterable of Table
        A catalogue, or pieces of it; the means of the realizations are compared.
    path : Path
        The PNG file to write.
    with_pdf : bool
        Whether to save it as PDF, too.
    """
    shown = ("teff", "logg", "fe_h")
    above = {name: {of: Cloud(FRAME[name], FRAME[name]) for of in DATA_TYPES} for name in shown}
    below = {name: {of: _residual_cloud(name) for of in DATA_TYPES} for name in shown}
    for piece in _pieces(catalog):
        predictions, labels = get_predictions(piece), get_labels(piece)
        is_drawn = is_equal(piece, "data_set", "test") & is_finite(predictions - labels)
        for data_type in DATA_TYPES:
            chosen = is_drawn & is_equal(piece, "data_type", data_type)
            for name in shown:
                column = LABEL_NAMES.index(name)
                label, prediction = labels[chosen, column], predictions[chosen, column]
                above[name][data_type].add(label, prediction)
                below[name][data_type].add(label, prediction - label)
    with save_figure(path, *COMPARISON_SIZE_IN, with_pdf=with_pdf) as figure:
        panels = figure.subplots(2, len(LABEL_NAMES), sharex="col", height_ratios=[2, 1])
        for i, name in enumerate(shown):
            _draw_comparison(panels[0, i], panels[1, i], above[name], below[name], name)
        handles, names = panels[0, 0].get_legend_handles_labels()
        if names:
            make_legible(figure.legend(handles, names, loc="outside lower center", ncols=len(names)))


def _pieces(catalog: Catalog) -> Iterable[pa.Table]:
    return (catalog,) if isinstance(catalog, pa.Table) else catalog


def _residual_cloud(name: str) -> Cloud:
    """Return a cloud of labels and of by how much predictions may differ from them."""
    low, high = FRAME[name]
    return Cloud((low, high), (low - high, high - low), n_cells=RESIDUAL_CELLS)


def _count_beyond(cloud: Cloud, height: float) -> int:
    far, count = cloud.distances()
    return int(count[far > height].sum())


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
        _draw_density(axes, cloud, BACKGROUND_TYPE)
        return
    teff, logg, _ = cloud.points()
    axes.scatter(teff, logg, s=marker_size(len(teff)) / 2, c=TYPE_COLOURS[BACKGROUND_TYPE], linewidths=0)


def _draw_density(axes: Axes, cloud: Cloud, data_type: str, *, y_shown: Limits | None = None) -> None:
    """Draw cells in the colour of a type, the stronger the more points they hold; empty ones not at all."""
    x_limits, y_limits = cloud.limits()
    cells = cloud.cells(x_limits, y_shown or y_limits)
    strength = np.log1p(cells.count) / np.log1p(max(int(cells.count.max()), 1))
    axes.pcolormesh(
        cells.x_edges,
        cells.y_edges,
        np.where(cells.count > 0, strength, np.nan),
        cmap=density_colours(data_type),
        vmin=0.0,
        vmax=1.0,
        rasterized=True,
    )


def _draw_type(
    axes: Axes, cloud: Cloud, data_type: str, *, y_shown: Limits | None = None, n_points: int = 0
) -> None:
    """Draw stars of one type in its colour and marker; nothing where there are none.

    Markers are as large as suits `n_points`, or the type's own number of points.
    """
    if not cloud.n_inside:
        return
    name = f"{TYPE_NAMES[data_type]} ({cloud.n_inside + cloud.n_outside:,})"
    style: dict[str, Any] = {"c": TYPE_COLOURS[data_type], "marker": TYPE_MARKERS[data_type]}
    style |= {"linewidths": 0, "label": name}
    if cloud.is_dense:
        _draw_density(axes, cloud, data_type, y_shown=y_shown)
        axes.scatter([], [], **style)  # for the legend
        return
    x, y, _ = cloud.points()
    n_points = n_points or len(x)
    axes.scatter(x, y, s=marker_size(n_points), alpha=marker_alpha(n_points), **style)


def _draw_comparison(
    above: Axes, below: Axes, found: dict[str, Cloud], residuals: dict[str, Cloud], name: str
) -> None:
    """Draw one label: predictions in the upper panel, prediction minus label in the lower one.

    Parameters
    ----------
    above, below : Axes
        The panels; they share their horizontal axis.
    found, residuals : dict of Cloud
        Labels with predictions, and with prediction minus label, by type of star.
    name : str
        Name of the label.
    """
    height = 1.5 * quantile_of_distance(residuals.values(), RESIDUAL_PERCENTILE / 100) or 1.0
    n_points = sum(cloud.n_inside for cloud in found.values())
    for data_type in found:
        _draw_type(above, found[data_type], data_type, n_points=n_points)
        shown = (-height, height)
        _draw_type(below, residuals[data_type], data_type, y_shown=shown, n_points=n_points)
    ends = [limits for cloud in found.values() if cloud.n_inside for limits in cloud.limits()]
    limits = (min(low for low, _ in ends), max(high for _, high in ends)) if ends else FRAME[name]
    above.plot(limits, limits, color=INK, linewidth=0.8, zorder=0)
    above.set_xlim(limits)
    above.set_ylim(limits)
    below.axhline(0.0, color=INK, linewidth=0.8, zorder=0)
    if ends:
        below.set_ylim(-height, height)
        n_outside = sum(_count_beyond(cloud, height) for cloud in residuals.values())
        if n_outside:
            write_note(below, f"{n_outside:,} outside")
    above.set_title(AXIS_TITLES[name])
    below.set_xlabel("label")
    for axes, text in ((above, "prediction"), (below, "prediction - label")):
        axes.set_ylabel(text, fontsize=9)
        axes.minorticks_on()
