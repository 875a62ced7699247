"""Where the training labels lie: the part of the space of (log g, Teff, [Fe/H]) that the network has seen.

It is no convex hull, which would hold much empty space between dwarfs, giants and young stars: it is the
cells of a grid that hold a training label, and their neighbours. The cells are as small as the stars allow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from apogee_batch.errors import IntegrityError
from apogee_batch.schema import N_LABELS, BoolArray, DoubleArray

LEAST_LABELS = 100
TOO_FEW_LABELS = (
    f"fewer than {LEAST_LABELS} training stars of different labels: too few to tell where labels lie"
)
OUTSIDE_RATE = 0.004  # of good stars that may lie outside
WIDTHS = tuple(
    round(0.1 * 2 ** (i / 4), 4) for i in range(20)
)  # of a cell, in units of the labels' scatter: 0.1 to 2.7
MAX_CELLS = 120_000  # occupied: 0.96 MB
MAX_EXTENT = 1e5  # of all labels, in units of their scatter; with cells of a tenth, their numbers fit 64 bits
NEIGHBOURS = np.stack(np.meshgrid(*[(-1, 0, 1)] * N_LABELS, indexing="ij"), axis=-1).reshape(-1, N_LABELS)

CellArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Grid:
    """Cells of one size.

    Attributes
    ----------
    origin, width : tuple of float, length n_labels
        Lowest corner of the first cell, and the size of a cell, in the units of the labels.
    shape : tuple of int, length n_labels
        Number of cells along each label; the first and the last are margins that hold no label.
    """

    origin: tuple[float, ...]
    width: tuple[float, ...]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not len(self.origin) == len(self.width) == len(self.shape) == N_LABELS:
            raise ValueError(f"a grid of labels has {N_LABELS} dimensions")
        if not np.isfinite([self.origin, self.width]).all() or min(self.width) <= 0 or min(self.shape) < 3:
            raise ValueError(
                "a grid of labels needs finite corners, sizes above zero and three cells each way"
            )

    @classmethod
    def over(cls, labels: DoubleArray, width: DoubleArray) -> "Grid":
        """Return the grid that holds all labels, with a margin of one cell."""
        origin = labels.min(axis=0) - width
        shape = np.floor((labels.max(axis=0) - origin) / width) + 2
        return cls(tuple(origin.tolist()), tuple(width.tolist()), tuple(shape.astype(int).tolist()))

    def cell(self, labels: DoubleArray) -> CellArray:
        """Return the cell of each label, shape (n, n_labels); -2, beside none, if it is far or not finite."""
        place = np.floor((labels - np.array(self.origin)) / np.array(self.width))
        is_near = (place >= -1) & (place <= np.array(self.shape))
        return np.where(is_near, place, -2).astype(np.int64)

    def number(self, cells: CellArray) -> CellArray:
        """Return one number a cell, shape (...,); -1 for what is not in the grid."""
        is_inside = ((cells >= 0) & (cells < np.array(self.shape))).all(axis=-1)
        numbers = np.ravel_multi_index(tuple(np.moveaxis(cells, -1, 0)), self.shape, mode="clip")
        return np.where(is_inside, numbers, -1)


@dataclass(frozen=True)
class LabelHull:
    """The cells that hold training labels.

    Attributes
    ----------
    grid : Grid
    occupied : ndarray of int64, shape (n_occupied,)
        Numbers of the cells that hold a label, ascending.
    n_labels : int
        Different labels that it was made from.
    """

    grid: Grid
    occupied: CellArray
    n_labels: int

    def __post_init__(self) -> None:
        """Check the cells."""
        if len(self.occupied) == 0 or self.occupied.ndim != 1 or (np.diff(self.occupied) <= 0).any():
            raise ValueError("the occupied cells of a hull ascend, and there is one or more")

    def contains(self, labels: DoubleArray) -> BoolArray:
        """Tell which labels lie in an occupied cell or in a neighbour of one.

        Parameters
        ----------
        labels : ndarray of float, shape (n_stars, n_labels)
            In the order of `LABEL_NAMES`; what is not finite is outside.

        Returns
        -------
        ndarray of bool, shape (n_stars,)
        """
        cells = self.grid.cell(np.asarray(labels, dtype=np.float64))
        found = np.zeros(len(cells), dtype=bool)
        for neighbour in NEIGHBOURS:
            found |= _is_in(self.grid.number(cells + neighbour), self.occupied)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the grid as JSON values."""
        grid = self.grid
        return {
            "origin": list(grid.origin),
            "width": list(grid.width),
            "shape": list(grid.shape),
            "n_labels": self.n_labels,
        }

    def tensors(self) -> dict[str, CellArray]:
        """Return the occupied cells by name."""
        return {"occupied": self.occupied}

    @classmethod
    def from_parts(cls, values: Mapping[str, Any], tensors: Mapping[str, CellArray]) -> "LabelHull":
        """Return the hull that `to_json` and `tensors` describe.

        Raises
        ------
        IntegrityError
            If something is missing or does not fit together.
        """
        try:
            origin, width = (tuple(map(float, values[name])) for name in ("origin", "width"))
            grid = Grid(origin, width, tuple(map(int, values["shape"])))
            return cls(grid, np.asarray(tensors["occupied"], dtype=np.int64), int(values["n_labels"]))
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"the hull of the training labels is incomplete: {error!r}") from error


def fit_hull(labels: DoubleArray, predicted: DoubleArray | None = None) -> LabelHull | None:
    """Find the cells that training labels occupy, with the smallest cells that leave good stars inside.

    Cells are wide enough if no more than `OUTSIDE_RATE` of the training labels have no other label in their
    cell or beside it, and of the predictions given no more lie outside. Neither the order of the labels nor
    how often one occurs matters.

    Parameters
    ----------
    labels : ndarray of float, shape (n, n_labels)
        Labels of the training stars, in the order of `LABEL_NAMES`.
    predicted : ndarray of float, shape (m, n_labels), optional
        What the network says of good stars that it was not trained on (dev), whose scatter has to find room.

    Returns
    -------
    LabelHull or None
        None for `TOO_FEW_LABELS`, or if a label has one value only.
    """
    is_finite = np.isfinite(labels).all(axis=1)
    different = np.unique(np.asarray(labels, dtype=np.float64)[is_finite], axis=0)
    if len(different) < LEAST_LABELS or (np.ptp(different, axis=0) == 0).any():
        return None
    scatter = _measure_scatter(different)
    hull = None
    for width in WIDTHS:
        grid = Grid.over(different, width * scatter)
        numbers, counts = np.unique(grid.number(grid.cell(different)), return_counts=True)
        hull = LabelHull(grid, numbers, len(different))
        if len(numbers) > MAX_CELLS or _share_alone(hull, different, counts) > OUTSIDE_RATE:
            continue
        if predicted is None or (~hull.contains(predicted)).mean() <= OUTSIDE_RATE:
            break
    return hull


def _measure_scatter(labels: DoubleArray) -> DoubleArray:
    """Return the scatter of each label, which a few that are wrong by far do not change."""
    low, high = np.quantile(labels, [0.16, 0.84], axis=0)
    scatter = np.where(high > low, (high - low) / 2, labels.std(axis=0))
    return np.asarray(np.maximum(scatter, np.ptp(labels, axis=0) / MAX_EXTENT))


def _share_alone(hull: LabelHull, labels: DoubleArray, counts: CellArray) -> float:
    """Return the share of labels that have no other label in their cell or beside it."""
    cells = hull.grid.cell(labels)
    n_near = np.zeros(len(labels), dtype=np.int64)
    for neighbour in NEIGHBOURS:
        numbers = hull.grid.number(cells + neighbour)
        place = np.searchsorted(hull.occupied, numbers).clip(max=len(counts) - 1)
        n_near += np.where(hull.occupied[place] == numbers, counts[place], 0)
    return float((n_near < 2).mean())


def _is_in(numbers: CellArray, ascending: CellArray) -> BoolArray:
    """Tell which numbers are among ascending ones."""
    place = np.searchsorted(ascending, numbers).clip(max=len(ascending) - 1)
    return np.asarray(ascending[place] == numbers)
