"""What all figures share: colours, sizes, and pictures whose bytes depend on the data alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap, ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from apogee_batch.files import write_bytes
from apogee_batch.schema import DoubleArray

DPI = 180
FORMATS: dict[str, dict[str, None]] = {  # with what no file says: dates and versions
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}
INK = "#333333"
# Okabe & Ito's colours, which people with any colour vision tell apart; the markers differ too.
TYPE_COLOURS = {"payne": "#0072b2", "mstar": "#d55e00", "yso": "#009e73", "all": "#c4c4c4"}
DARKEST_COLOURS = {"payne": "#00324f", "mstar": "#6b2f00", "yso": "#004d38", "all": "#6e6e6e"}
PALEST = 0.35  # of a type's own colour in white: what a cell with one star has
TYPE_MARKERS = {"payne": "o", "mstar": "^", "yso": "D"}
TYPE_NAMES = {"payne": "Payne stars", "mstar": "M dwarfs", "yso": "YSOs"}
AXIS_TITLES = {
    "logg": r"log $g$  (cgs)",
    "teff": r"$T_{\rm eff}$  (K)",
    "fe_h": "[Fe/H]  (dex)",
}
STYLE: dict[str, Any] = {
    "font.size": 9.0,
    "axes.labelsize": 10.0,
    "axes.titlesize": 10.0,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "legend.frameon": False,
    "legend.handletextpad": 0.2,
    "pdf.fonttype": 42,  # letters stay letters, which can be searched for and edited
}
FEWEST_DENSE = 20_000  # from here on points hide one another: they are averaged in cells
LEAST_PADDING = 0.01  # of the whole frame, where all values are equal
LEGEND_MARKER_SIZE = 30.0  # points squared, whatever the size in the panel


@contextmanager
def save_figure(path: Path, width_in: float, height_in: float, *, with_pdf: bool = False) -> Iterator[Figure]:
    """Give an empty figure; save it when the block ends without an error.

    The settings of the user's matplotlib are not used, no date or version goes into the file, and
    the file is replaced whole: the same data give the same bytes with the same matplotlib.

    Parameters
    ----------
    path : Path
        The PNG file.
    width_in, height_in : float
        Size in inches, at `DPI` dots an inch.
    with_pdf : bool
        Whether to save it as PDF beside it, too.
    """
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(width_in, height_in), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        layout = figure.get_layout_engine()
        if layout is not None:
            layout.execute(figure)
        figure.set_layout_engine(None)  # laid out once for both: that takes longer than to draw
        for kind in FORMATS if with_pdf else ("png",):
            picture = BytesIO()
            figure.savefig(picture, format=kind, dpi=DPI, metadata=FORMATS[kind])
            write_bytes(path.with_suffix(f".{kind}"), picture.getbuffer())


def metallicity_colours() -> Colormap:
    """Return viridis without its brightest end, which white paper swallows."""
    return ListedColormap(colormaps["viridis"](np.linspace(0.0, 0.92, 256)), name="metallicity")


def density_colours(data_type: str) -> Colormap:
    """Return colours from few stars to many: a pale one of the type, its own, and a dark one."""
    own = np.array(to_rgb(TYPE_COLOURS[data_type]))
    stops = np.array([1 - PALEST * (1 - own), own, to_rgb(DARKEST_COLOURS[data_type])])
    return LinearSegmentedColormap.from_list(data_type, stops)


def find_limits(values: DoubleArray, *, within: tuple[float, float]) -> tuple[float, float]:
    """Return axis limits that hold all values inside `within`, with a margin.

    Parameters
    ----------
    values : ndarray of float64, any shape
        May be empty or hold NaN.
    within : tuple of float
        Lowest and highest limit; also what is returned where there is nothing to show.
    """
    shown = values[(values >= within[0]) & (values <= within[1])]
    if shown.size == 0:
        return within
    low, high = float(shown.min()), float(shown.max())
    padding = max(0.04 * (high - low), LEAST_PADDING * (within[1] - within[0]))
    return low - padding, high + padding


def marker_size(n_points: int) -> float:
    """Return the area of a marker in points squared: 40 for ten points, 2 for many thousand."""
    return float(np.clip(120.0 / np.sqrt(max(n_points, 1)), 2.0, 40.0))


def marker_alpha(n_points: int) -> float:
    """Return how opaque a marker is: less where many lie above one another."""
    return float(np.clip(30.0 / np.sqrt(max(n_points, 1)), 0.1, 0.8))


def make_legible(legend: Legend) -> None:
    """Show the markers of a legend in one size and opaque, and its words before any line of the panel."""
    legend.set_zorder(6)
    legend.set_frame_on(True)
    legend.get_frame().set(facecolor="white", edgecolor="none", alpha=0.8)
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([LEGEND_MARKER_SIZE])
            handle.set_alpha(1.0)


def write_note(axes: Axes, text: str) -> None:
    """Write a few words in the lower left corner of a panel."""
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
    axes.text(0.02, 0.03, text, transform=axes.transAxes, ha="left", va="bottom", fontsize=8, bbox=box)
