"""Predictions against labels: all types together, and the residuals of each by itself."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from apogee_batch.report.canvas import (
    AXIS_TITLES,
    INK,
    TYPE_NAMES,
    make_legible,
    save_figure,
    write_note,
)
from apogee_batch.report.columns import get_labels, get_predictions, is_equal, is_finite
from apogee_batch.report.density import Cloud, quantile_of_distance
from apogee_batch.report.measures import measure_residuals
from apogee_batch.report.typed_points import FRAME, Catalog, draw_type, pieces_of
from apogee_batch.schema import DATA_TYPES, LABEL_NAMES, DoubleArray

COMPARISON_SIZE_IN = (8.4, 8.2)
HEIGHT_RATIOS = (2.3, 1, 1, 1)  # of the panel of all types, and of those of the residuals of each
SHOWN = ("teff", "logg", "fe_h")
RESIDUAL_CELLS = (512, 4096)  # differences are small beside the frame
RESIDUAL_SHARE, RESIDUAL_ROOM = 0.97, 1.3  # all panels of a label show so much of the type that differs most
UNITS = {"teff": ("K", 0), "logg": ("dex", 3), "fe_h": ("dex", 3)}  # and decimals, of a difference


class _Compared:
    """What is drawn of one label of the stars of one type."""

    def __init__(self, name: str) -> None:
        low, high = FRAME[name]
        self.found = Cloud(FRAME[name], FRAME[name])
        self.residuals = Cloud((low, high), (low - high, high - low), n_cells=RESIDUAL_CELLS)
        self._differences: list[DoubleArray] = []
        self._unit, self._decimals = UNITS[name]

    def add(self, label: DoubleArray, prediction: DoubleArray) -> None:
        """Add stars; shapes (n_stars,)."""
        self.found.add(label, prediction)
        self.residuals.add(label, prediction - label)
        self._differences.append(prediction - label)

    def summary(self) -> str:
        """Return number, bias and robust scatter in words."""
        measured = measure_residuals(np.concatenate([np.empty(0), *self._differences]))
        words = f"n {measured.n_stars:,}"
        if measured.bias is not None:
            words += f"   bias {measured.bias:+,.{self._decimals}f} {self._unit}"
        if measured.scatter is not None:
            words += f"   scatter {measured.scatter:,.{self._decimals}f}"
        return words


def label_comparison(catalog: Catalog, path: Path, *, with_pdf: bool = False) -> None:
    """Draw predictions against labels, and below the residuals of each type, for the stars of the test set.

    The panels of one label have common axes; in each residual panel stand the number of stars, the bias
    (median) and the robust scatter (1.4826 times the median absolute deviation from it). Where a type has
    `FEWEST_DENSE` stars or more, its colour is the stronger the more of them a cell holds. Memory grows by 24
    bytes a star of the test set.

    Parameters
    ----------
    catalog : Table, or iterable of Table
        A catalogue, or pieces of it; the means of the realizations are compared.
    path : Path
        The PNG file to write.
    with_pdf : bool
        Whether to save it as PDF, too.
    """
    compared = {name: {of: _Compared(name) for of in DATA_TYPES} for name in SHOWN}
    for piece in pieces_of(catalog):
        predictions, labels = get_predictions(piece), get_labels(piece)
        is_drawn = is_equal(piece, "data_set", "test") & is_finite(predictions - labels)
        for data_type in DATA_TYPES:
            chosen = is_drawn & is_equal(piece, "data_type", data_type)
            for name in SHOWN:
                column = LABEL_NAMES.index(name)
                compared[name][data_type].add(labels[chosen, column], predictions[chosen, column])
    with save_figure(path, *COMPARISON_SIZE_IN, with_pdf=with_pdf) as figure:
        rows = 1 + len(DATA_TYPES)
        panels = figure.subplots(rows, len(SHOWN), sharex="col", height_ratios=HEIGHT_RATIOS)
        for i, name in enumerate(SHOWN):
            _draw_all(panels[0, i], compared[name], name)
            _draw_residuals(list(panels[1:, i]), compared[name])
            panels[-1, i].set_xlabel("label")
        panels[0, 0].set_ylabel("prediction")
        for axes, data_type in zip(panels[1:, 0], DATA_TYPES, strict=True):
            axes.set_ylabel(f"{TYPE_NAMES[data_type]}:\nprediction - label", fontsize=9)
        figure.align_ylabels(panels[:, 0])
        handles, names = panels[0, 0].get_legend_handles_labels()
        if names:
            make_legible(figure.legend(handles, names, loc="outside lower center", ncols=len(names)))


def _draw_all(axes: Axes, compared: dict[str, _Compared], name: str) -> None:
    """Draw predictions of one label against it, all types in one panel."""
    n_points = sum(of.found.n_inside for of in compared.values())
    for data_type, of in compared.items():
        draw_type(axes, of.found, data_type, n_points=n_points)
    ends = [limits for of in compared.values() if of.found.n_inside for limits in of.found.limits()]
    limits = (min(low for low, _ in ends), max(high for _, high in ends)) if ends else FRAME[name]
    axes.plot(limits, limits, color=INK, linewidth=0.8, zorder=0)
    axes.set_xlim(limits)
    axes.set_ylim(limits)
    axes.set_title(AXIS_TITLES[name])
    axes.minorticks_on()


def _draw_residuals(panels: list[Axes], compared: dict[str, _Compared]) -> None:
    """Draw prediction minus label, a panel for each type, on the same axes."""
    reached = [quantile_of_distance([of.residuals], RESIDUAL_SHARE) for of in compared.values()]
    height = RESIDUAL_ROOM * max(reached) or 1.0
    for axes, (data_type, of) in zip(panels, compared.items(), strict=True):
        draw_type(axes, of.residuals, data_type, y_shown=(-height, height))
        axes.axhline(0.0, color=INK, linewidth=0.8, zorder=0)
        axes.set_ylim(-height, height)
        axes.minorticks_on()
        axes.set_title(of.summary(), fontsize=7.5, pad=3)
        far, count = of.residuals.distances()
        if n_outside := int(count[far > height].sum()):
            write_note(axes, f"{n_outside:,} outside")
