"""Isochrones as lines of a Kiel diagram."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from apogee_batch.schema import DoubleArray

DASHES: tuple[Any, ...] = ("solid", (0, (5, 1.5)), (0, (4, 1.2, 1, 1.2)), (0, (1.2, 1.2)))
DARKEST, LIGHTEST = 0.0, 0.62  # of plasma: all are seen on white, and before grey and green points
LINE_WIDTH, HALO_WIDTH = 1.2, 2.6
LETTERS_IN_A_ROW, LINE_LETTERS = 110, 9  # of names below the picture; what a line takes beside its name


@dataclass(frozen=True)
class IsochroneLine:
    """Models of stars of one age and metallicity.

    Attributes
    ----------
    name : str
        What to call it.
    teff, logg : ndarray of float64, shape (n_points,)
        Kelvin, and dex of cm/s2, along the line; NaN where it breaks off.
    """

    name: str
    teff: DoubleArray
    logg: DoubleArray

    def __post_init__(self) -> None:
        if self.teff.shape != self.logg.shape:
            raise ValueError(f"{self.name}: {self.teff.shape} Teff and {self.logg.shape} log g")


def draw_isochrones(axes: Axes, lines: Sequence[IsochroneLine]) -> list[Any]:
    """Draw lines before the stars, each with a white edge, its own colour and its own dashes.

    Limits of the axes stay what the stars made them. Colours differ in brightness too, from the first to
    the last.

    Returns
    -------
    list of Line2D
        For a legend.
    """
    x_limits, y_limits = axes.get_xlim(), axes.get_ylim()
    colours = colormaps["plasma"](np.linspace(DARKEST, LIGHTEST, max(len(lines), 1)))
    drawn = []
    for i, line in enumerate(lines):
        style: dict[str, Any] = {"color": colours[i], "linestyle": DASHES[i % len(DASHES)]}
        style |= {"linewidth": LINE_WIDTH, "zorder": 4, "label": line.name}
        halo = withStroke(linewidth=HALO_WIDTH, foreground="white", alpha=0.85)
        drawn += axes.plot(line.teff, line.logg, path_effects=[halo], **style)
    axes.set_xlim(x_limits)
    axes.set_ylim(y_limits)
    return drawn


def name_isochrones(figure: Figure, drawn: Sequence[Any]) -> None:
    """Write below a picture what its lines are."""
    longest = max(len(line.get_label()) for line in drawn)
    n_columns = min(len(drawn), max(LETTERS_IN_A_ROW // (longest + LINE_LETTERS), 1))
    style: dict[str, Any] = {"fontsize": 8.5, "handlelength": 3.0, "handletextpad": 0.6}
    figure.legend(handles=drawn, loc="outside lower center", ncols=n_columns, **style)
