"""Pictures of the page of a run: how they are saved, and how points of any number are drawn in them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap, LogNorm
from matplotlib.figure import Figure

from apogee_batch.report.canvas import FORMATS, save_figure

WIDTH_IN = 8.4  # 1512 dots: a page 1000 pixels wide shows it sharp
SUFFIXES = tuple(FORMATS)


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes
    ----------
    path : Path
        The PNG file; a PDF of the same name lies beside it.
    alt : str
        What it shows, for those who do not see it.
    """

    path: Path
    alt: str


@contextmanager
def save_picture(path: Path, height_in: float, *, width_in: float = WIDTH_IN) -> Iterator[Figure]:
    """Give an empty figure; save it as PNG, and as PDF beside it, when the block ends without an error.

    Parameters
    ----------
    path : Path
        The PNG file.
    height_in, width_in : float
        Size in inches.
    """
    with save_figure(path, width_in, height_in, with_pdf=True) as figure:
        yield figure


def number_colours() -> Colormap:
    """Return cividis from few to many, without its brightest end, the darkest being the most."""
    return ListedColormap(colormaps["cividis_r"](np.linspace(0.08, 1.0, 256)), name="numbers")


def number_norm(highest: int) -> LogNorm:
    """Return a logarithmic scale of colours from 1 to the highest number of stars in a cell."""
    return LogNorm(1, max(highest, 2))


def show_number(value: float, _place: float = 0.0) -> str:
    """Return the text of a tick: 0.01, 10 or 1000, as it would be said."""
    return f"{value:g}"


def show_nothing(axes: Axes, text: str) -> None:
    """Say in the middle of an empty panel why it is empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=9, wrap=True)
