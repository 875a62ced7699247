"""Pictures of a catalogue: the Kiel diagram, and predictions against labels."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.collections import Collection

from apogee_batch.report.canvas import (
    AXIS_TITLES,
    BACKGROUND_COLOUR,
    FEWEST_DENSE,
    INK,
    TYPE_COLOURS,
    TYPE_MARKERS,
    TYPE_NAMES,
    find_limits,
    make_legible,
    marker_alpha,
    marker_size,
    metallicity_colours,
    save_figure,
    write_note,
)
from apogee_batch.report.columns import get_labels, get_predictions, is_equal, is_finite
from apogee_batch.schema import DATA_TYPES, LABEL_NAMES, DoubleArray

KIEL_SIZE_IN = (8.4, 4.1)
COMPARISON_SIZE_IN = (8.4, 4.7)
LOGG, TEFF, FE_H = (LABEL_NAMES.index(name) for name in ("logg", "teff", "fe_h"))
FRAME = {"teff": (2200.0, 8200.0), "logg": (-1.0, 6.0), "fe_h": (-3.0, 1.0)}  # stars of APOGEE lie inside
N_CELLS = 130  # hexagons along an axis of a dense panel
COLOUR_PERCENTILES = (2.0, 98.0)
COLOUR_STEP_DEX = 0.1
RESIDUAL_PERCENTILE = 99.0
DRAWING_SEED = 0  # of the order in which points are drawn, so that no part of the sky is always on top


def kiel_diagram(catalog: pa.Table, path: Path, *, title: str | None = None) -> None:
    """Draw Teff against log g: all stars by [Fe/H], and M dwarfs and YSOs by type.

    Both axes run as astronomers draw them, hot stars at the left and giants at the top. From
    `FEWEST_DENSE` stars on, each cell has the mean [Fe/H] of its stars. Rows without a
    prediction are left out; stars outside `FRAME` are counted in a note.

    Parameters
    ----------
    catalog : Table
        A catalogue; the means of the realizations are drawn.
    path : Path
        The PNG file to write.
    title : str, optional
        Title of the picture.
    """
    predictions = get_predictions(catalog)
    is_drawn = is_finite(predictions)
    stars = predictions[is_drawn]
    limits = {
        "teff": find_limits(stars[:, TEFF], within=FRAME["teff"]),
        "logg": find_limits(stars[:, LOGG], within=FRAME["logg"]),
    }
    with save_figure(path, *KIEL_SIZE_IN) as figure:
        if title:
            figure.suptitle(title, fontsize=11)
        left, right = figure.subplots(1, 2, sharex=True, sharey=True)
        points = _draw_by_metallicity(left, stars, limits)
        bar = figure.colorbar(points, ax=left, extend="both", pad=0.02, aspect=30)
        bar.set_label(AXIS_TITLES["fe_h"])
        left.set_title(f"All stars ({len(stars):,})")
        right.scatter(
            stars[:, TEFF],
            stars[:, LOGG],
            s=marker_size(len(stars)) / 2,
            c=BACKGROUND_COLOUR,
            linewidths=0,
        )
        for data_type in ("mstar", "yso"):
            chosen = predictions[is_drawn & is_equal(catalog, "data_type", data_type)]
            _draw_type(right, chosen[:, TEFF], chosen[:, LOGG], data_type)
        right.set_title("Labelled M dwarfs and YSOs")
        if right.get_legend_handles_labels()[1]:
            make_legible(right.legend(loc="upper left"))
        for axes in (left, right):
            axes.set_xlabel(AXIS_TITLES["teff"])
            axes.minorticks_on()
        left.set_ylabel(AXIS_TITLES["logg"])
        left.set_xlim(limits["teff"][::-1])  # shared with the right panel
        left.set_ylim(limits["logg"][::-1])
        n_outside = len(stars) - _count_inside(stars, limits)
        if n_outside:
            write_note(left, f"{n_outside:,} outside")


def label_comparison(catalog: pa.Table, path: Path) -> None:
    """Draw predictions against labels, and their differences below, for the stars of the test set.

    Parameters
    ----------
    catalog : Table
        A catalogue; the means of the realizations are compared.
    path : Path
        The PNG file to write.
    """
    predictions, labels = get_predictions(catalog), get_labels(catalog)
    is_drawn = is_equal(catalog, "data_set", "test") & is_finite(predictions - labels)
    by_type = {data_type: is_drawn & is_equal(catalog, "data_type", data_type) for data_type in DATA_TYPES}
    with save_figure(path, *COMPARISON_SIZE_IN) as figure:
        panels = figure.subplots(2, len(LABEL_NAMES), sharex="col", height_ratios=[2, 1])
        for i, name in enumerate(("teff", "logg", "fe_h")):
            column = LABEL_NAMES.index(name)
            stars = {
                data_type: (labels[chosen, column], predictions[chosen, column])
                for data_type, chosen in by_type.items()
            }
            _draw_comparison(panels[0, i], panels[1, i], stars, name)
        handles, names = panels[0, 0].get_legend_handles_labels()
        if names:
            make_legible(figure.legend(handles, names, loc="outside lower center", ncols=len(names)))


def _draw_by_metallicity(
    axes: Axes, stars: DoubleArray, limits: dict[str, tuple[float, float]]
) -> Collection:
    """Draw stars, shape (n_stars, n_labels), in the colour of their [Fe/H]."""
    low, high = _find_colour_limits(stars[:, FE_H])
    colours = metallicity_colours()
    if len(stars) < FEWEST_DENSE:
        order = np.random.default_rng(DRAWING_SEED).permutation(len(stars))
        return axes.scatter(
            stars[order, TEFF],
            stars[order, LOGG],
            s=marker_size(len(stars)),
            c=stars[order, FE_H],
            cmap=colours,
            vmin=low,
            vmax=high,
            linewidths=0,
        )
    return axes.hexbin(
        stars[:, TEFF],
        stars[:, LOGG],
        C=stars[:, FE_H],
        gridsize=N_CELLS,
        extent=(*limits["teff"], *limits["logg"]),
        mincnt=1,
        cmap=colours,
        vmin=low,
        vmax=high,
        linewidths=0.3,
    )


def _find_colour_limits(fe_h: DoubleArray) -> tuple[float, float]:
    """Return the range of the colour bar in dex, rounded outwards to `COLOUR_STEP_DEX`."""
    if fe_h.size == 0:
        return FRAME["fe_h"]
    low, high = np.percentile(np.clip(fe_h, *FRAME["fe_h"]), COLOUR_PERCENTILES) / COLOUR_STEP_DEX
    low, high = np.floor(low) * COLOUR_STEP_DEX, np.ceil(high) * COLOUR_STEP_DEX
    return float(low), float(max(high, low + COLOUR_STEP_DEX))


def _count_inside(stars: DoubleArray, limits: dict[str, tuple[float, float]]) -> int:
    """Count the stars inside the limits of a Kiel diagram."""
    is_inside = np.ones(len(stars), dtype=bool)
    for column, (low, high) in ((TEFF, limits["teff"]), (LOGG, limits["logg"])):
        is_inside &= (stars[:, column] >= low) & (stars[:, column] <= high)
    return int(is_inside.sum())


def _draw_type(axes: Axes, x: DoubleArray, y: DoubleArray, data_type: str) -> None:
    """Draw stars of one type in its colour and marker; nothing where there are none."""
    if x.size == 0:
        return
    axes.scatter(
        x,
        y,
        s=marker_size(len(x)),
        c=TYPE_COLOURS[data_type],
        marker=TYPE_MARKERS[data_type],
        linewidths=0,
        alpha=marker_alpha(len(x)),
        label=f"{TYPE_NAMES[data_type]} ({len(x):,})",
    )


def _draw_comparison(
    above: Axes, below: Axes, stars: dict[str, tuple[DoubleArray, DoubleArray]], name: str
) -> None:
    """Draw one label: predictions in the upper panel, prediction minus label in the lower one.

    Parameters
    ----------
    above, below : Axes
        The panels; they share their horizontal axis.
    stars : dict of tuple of ndarray
        Labels and predictions, shape (n_stars,) each, by type of star.
    name : str
        Name of the label.
    """
    for data_type, (label, prediction) in stars.items():
        _draw_type(above, label, prediction, data_type)
        _draw_type(below, label, prediction - label, data_type)
    label, prediction = (np.concatenate([pair[i] for pair in stars.values()]) for i in (0, 1))
    limits = find_limits(np.concatenate([label, prediction]), within=FRAME[name])
    above.plot(limits, limits, color=INK, linewidth=0.8, zorder=0)
    above.set_xlim(limits)
    above.set_ylim(limits)
    below.axhline(0.0, color=INK, linewidth=0.8, zorder=0)
    residual = prediction - label
    if residual.size:
        height = 1.5 * float(np.percentile(np.abs(residual), RESIDUAL_PERCENTILE)) or 1.0
        below.set_ylim(-height, height)
        n_outside = int((np.abs(residual) > height).sum())
        if n_outside:
            write_note(below, f"{n_outside:,} outside")
    above.set_title(AXIS_TITLES[name])
    below.set_xlabel("label")
    for axes, text in ((above, "prediction"), (below, "prediction - label")):
        axes.set_ylabel(text, fontsize=9)
        axes.minorticks_on()
