"""Stars of one type in a panel: points while they are few, their number in each cell where they are many."""

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes

from apogee_batch.report.canvas import (
    TYPE_COLOURS,
    TYPE_MARKERS,
    TYPE_NAMES,
    density_colours,
    marker_alpha,
    marker_size,
)
from apogee_batch.report.density import Cloud, Limits

FRAME = {"teff": (2200.0, 8200.0), "logg": (-1.0, 6.0), "fe_h": (-3.0, 1.0)}  # stars of APOGEE lie inside
Catalog: TypeAlias = pa.Table | Iterable[pa.Table]


def pieces_of(catalog: Catalog) -> Iterable[pa.Table]:
    """Return a catalogue as the pieces of which it consists."""
    return (catalog,) if isinstance(catalog, pa.Table) else catalog


def draw_density(axes: Axes, cloud: Cloud, data_type: str, *, y_shown: Limits | None = None) -> None:
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


def draw_type(
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
        draw_density(axes, cloud, data_type, y_shown=y_shown)
        axes.scatter([], [], **style)  # for the legend
        return
    x, y, _ = cloud.points()
    n_points = n_points or len(x)
    axes.scatter(x, y, s=marker_size(n_points), alpha=marker_alpha(n_points), **style)
