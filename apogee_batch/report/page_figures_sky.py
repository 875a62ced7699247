"""The sky map of the page of a run."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from astropy import units
from astropy.coordinates import SkyCoord

from apogee_batch.report.canvas import INK, marker_size
from apogee_batch.report.columns import get_numbers
from apogee_batch.report.density import Cloud
from apogee_batch.report.page_figures import Picture, number_colours, number_norm, save_picture, show_number

SKY_COLUMNS = ("ra", "dec")
HEIGHT_IN = 4.3
CELLS = (180, 90)  # 2 degrees of longitude, and sines of latitude: all cells have the same area
ROUNDED = 6  # into how many a cell is cut from south to north, since its sides are drawn straight
CELL_SQUARE_DEGREES = 4 * 180**2 / np.pi / (CELLS[0] * CELLS[1])


class SkyStars:
    """Where the stars of a catalogue lie, in galactic coordinates."""

    def __init__(self) -> None:
        self.cloud = Cloud((-180.0, 180.0), (-1.0, 1.0), n_cells=CELLS)
        self.n_without = 0

    def add(self, piece: pa.Table) -> None:
        """Add a piece of the catalogue with the columns `SKY_COLUMNS`, in degrees."""
        ra, dec = (get_numbers(piece, name) for name in SKY_COLUMNS)
        is_known = np.isfinite(ra) & (np.abs(dec) <= 90)
        self.n_without += int((~is_known).sum())
        if is_known.any():
            place = SkyCoord(ra[is_known] * units.deg, dec[is_known] * units.deg, frame="icrs").galactic
            self.cloud.add(place.l.wrap_at(180 * units.deg).deg, np.sin(place.b.rad))


def draw_sky(stars: SkyStars, path: Path) -> Picture | None:
    """Draw the stars in Mollweide's projection, the galactic centre in the middle, longitude to the left.

    From `FEWEST_DENSE` stars on, cells of the same area are coloured by their number of stars.

    Returns
    -------
    Picture or None
        None where no star has coordinates.
    """
    n_stars = stars.cloud.n_inside
    if not n_stars:
        return None
    with save_picture(path, HEIGHT_IN) as figure:
        axes = figure.add_subplot(projection="mollweide")
        if stars.cloud.is_dense:
            cells = stars.cloud.cells((-180.0, 180.0), (-1.0, 1.0), wanted=max(CELLS))
            sines = np.linspace(-1, 1, CELLS[1] * ROUNDED + 1)
            count = np.where(cells.count > 0, cells.count, np.nan).repeat(ROUNDED, axis=0)
            drawn = axes.pcolormesh(
                np.radians(-cells.x_edges),
                np.arcsin(sines),
                count,
                cmap=number_colours(),
                norm=number_norm(int(cells.count.max())),
                rasterized=True,
            )
            bar = figure.colorbar(drawn, ax=axes, shrink=0.7, pad=0.03, format=show_number)
            bar.set_label(f"stars in a cell of {CELL_SQUARE_DEGREES:.1f} square degrees")
        else:
            longitude, sine, _ = stars.cloud.points()
            size = marker_size(n_stars)
            axes.scatter(np.radians(-longitude), np.arcsin(sine), s=size, c="#0072b2", linewidths=0)
        ticks = np.arange(-150, 180, 30)
        labels = [f"{-tick % 360}°" for tick in ticks]
        axes.set_xticks(np.radians(ticks), labels, fontsize=7, color=INK)
        axes.tick_params(axis="y", labelsize=8)
        axes.grid(color="#999999", linewidth=0.4, alpha=0.7)
        axes.set_axisbelow(False)  # labels before the stars
        for label in axes.get_xticklabels():
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.9, "pad": 0.8})
        axes.set_xlabel("galactic longitude l (latitude b at the left)", fontsize=9, labelpad=8)
    return Picture(
        path,
        "Map of the sky in galactic coordinates, Mollweide's projection, with the galactic centre in the "
        f"middle: {n_stars:,} stars.",
    )
