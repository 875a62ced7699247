"""Points of a panel, however many: kept while they are few, and counted in cells where they are many.

Memory does not grow with the number of points, and what is shown depends on them alone, not on the pieces in
which they came.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from apogee_batch.report.canvas import FEWEST_DENSE, find_limits
from apogee_batch.schema import DoubleArray

CELLS_SHOWN = 160  # along an axis at least, of a panel some 500 dots wide
VALUE_STEPS = 1000  # values are added up as whole thousandths: so no order of addition rounds differently
IntegerArray = npt.NDArray[np.int64]
Limits = tuple[float, float]


@dataclass(frozen=True)
class Cells:
    """What lies in each cell of a grid.

    Attributes
    ----------
    x_edges, y_edges : ndarray of float64, shapes (n_x + 1,), (n_y + 1,)
    count : ndarray of int64, shape (n_y, n_x)
        Points.
    value : ndarray of float64, shape (n_y, n_x)
        Mean of the points' values, in their unit; NaN where there is no point.
    """

    x_edges: DoubleArray
    y_edges: DoubleArray
    count: IntegerArray
    value: DoubleArray


class Cloud:
    """Points in a frame; those outside are counted and not shown.

    Parameters
    ----------
    x_frame, y_frame : tuple of float
        Lowest and highest coordinate.
    n_cells : tuple of int
        Cells along x and y in which points are counted: as fine as the smallest part of the frame that a
        panel may show wants them.
    most_points : int
        More are counted in cells.
    """

    def __init__(
        self,
        x_frame: Limits,
        y_frame: Limits,
        *,
        n_cells: tuple[int, int] = (1024, 1024),
        most_points: int = FEWEST_DENSE - 1,
    ) -> None:
        self.frames = (x_frame, y_frame)
        self.n_inside = self.n_outside = 0
        self._n_cells = n_cells
        self._most_points = most_points
        self._pieces: list[DoubleArray] = []  # each (n, 3): x, y and value
        self._count: IntegerArray | None = None  # (n_y * n_x,); from when points are many
        self._sum: IntegerArray | None = None
        self._ranges: list[DoubleArray] = []

    @property
    def is_dense(self) -> bool:
        """Whether points are counted in cells."""
        return self.n_inside > self._most_points

    def add(self, x: DoubleArray, y: DoubleArray, value: DoubleArray | None = None) -> None:
        """Add points.

        Parameters
        ----------
        x, y, value : ndarray of float64, shape (n_points,)
            Finite coordinates; what is averaged in cells.
        """
        points = np.column_stack([x, y, np.zeros_like(x) if value is None else value])
        is_inside = np.ones(len(points), dtype=bool)
        for column, (low, high) in enumerate(self.frames):
            is_inside &= (points[:, column] >= low) & (points[:, column] <= high)
        points = points[is_inside]
        self.n_outside += len(x) - len(points)
        self.n_inside += len(points)
        if not len(points):
            return
        ranges = np.array([*self._ranges, points[:, :2].min(axis=0), points[:, :2].max(axis=0)])
        self._ranges = [ranges.min(axis=0), ranges.max(axis=0)]
        self._pieces.append(points)
        if sum(map(len, self._pieces)) > self._most_points:
            self._count_pieces()

    def points(self) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
        """Return x, y and value of the points, shape (n_points,) each; only of a cloud that is not dense."""
        assert not self.is_dense
        x, y, value = np.concatenate([np.empty((0, 3)), *self._pieces]).T
        return x, y, value

    def limits(self) -> tuple[Limits, Limits]:
        """Return axis limits that hold the points inside the frame, with a margin."""
        x, y = np.array(self._ranges).reshape(-1, 2).T
        return find_limits(x, within=self.frames[0]), find_limits(y, within=self.frames[1])

    def cells(self, x_shown: Limits, y_shown: Limits, *, wanted: int = CELLS_SHOWN) -> Cells:
        """Return the cells that cover part of the frame, as large as keeps some number of them along an axis.

        Parameters
        ----------
        x_shown, y_shown : tuple of float
            What a panel shows.
        wanted : int
            Cells along an axis at least, where the grid is so fine.
        """
        assert self.is_dense
        shape = self._n_cells[::-1]
        cuts = [
            _cut(frame, n_cells, shown, wanted)
            for frame, n_cells, shown in zip(self.frames, self._n_cells, (x_shown, y_shown), strict=True)
        ]
        count, total = (
            _add_up(_add_up(held.reshape(shape), cuts[1], 0), cuts[0], 1) for held in self._held()
        )
        with np.errstate(invalid="ignore"):
            value = total / count / VALUE_STEPS
        x_edges, y_edges = (
            frame[0] + (frame[1] - frame[0]) * cut / n_cells
            for frame, cut, n_cells in zip(self.frames, cuts, self._n_cells, strict=True)
        )
        return Cells(x_edges, y_edges, count, value)

    def distances(self) -> tuple[DoubleArray, IntegerArray]:
        """Return in rising order which |y| there are, and how many points have each.

        Points outside the frame count as at its end. Of a dense cloud, all points of a row of fine cells
        have the |y| of its farther edge.
        """
        if self.is_dense:
            edges = np.abs(np.linspace(*self.frames[1], self._n_cells[1] + 1))
            far = np.maximum(edges[:-1], edges[1:])
            count = self._held()[0].reshape(self._n_cells[::-1]).sum(axis=1)
        else:
            far = np.abs(self.points()[1])
            count = np.ones(len(far), np.int64)
        far, count = np.append(far, max(map(abs, self.frames[1]))), np.append(count, self.n_outside)
        order = np.argsort(far, kind="stable")
        return far[order], count[order]

    def _held(self) -> Sequence[IntegerArray]:
        """Return how many points each fine cell has, and the sum of their values."""
        self._count_pieces()
        assert self._count is not None
        assert self._sum is not None
        return self._count, self._sum

    def _count_pieces(self) -> None:
        """Move points into cells."""
        n_all = self._n_cells[0] * self._n_cells[1]
        if self._count is None or self._sum is None:
            self._count, self._sum = np.zeros(n_all, np.int64), np.zeros(n_all, np.int64)
        for points in self._pieces:
            x, y = (
                np.minimum(((points[:, i] - low) / (high - low) * n).astype(np.int64), n - 1)
                for i, ((low, high), n) in enumerate(zip(self.frames, self._n_cells, strict=True))
            )
            cell = y * self._n_cells[0] + x
            self._count += np.bincount(cell, minlength=n_all)
            thousandths = np.rint(points[:, 2] * VALUE_STEPS)
            self._sum += np.bincount(cell, weights=thousandths, minlength=n_all).astype(np.int64)
        self._pieces = []


def quantile_of_distance(clouds: Iterable[Cloud], share: float) -> float:
    """Return which |y| a share of the points of all clouds does not exceed; 0 where there is none."""
    far, count = (np.concatenate(each) for each in zip(*(cloud.distances() for cloud in clouds), strict=True))
    order = np.argsort(far, kind="stable")
    below = np.cumsum(count[order])
    return float(far[order][np.searchsorted(below, share * below[-1])]) if below[-1] else 0.0


def _cut(frame: Limits, n_cells: int, shown: Limits, wanted: int) -> IntegerArray:
    """Return the first fine cell of each cell that is shown, and the end of the last one."""
    low, high = ((edge - frame[0]) / (frame[1] - frame[0]) * n_cells for edge in shown)
    first, last = max(int(np.floor(low)), 0), min(int(np.ceil(high)), n_cells)
    step = max(1, (last - first) // wanted)
    return np.append(np.arange(first, last, step), last)


def _add_up(held: IntegerArray, cut: IntegerArray, axis: int) -> IntegerArray:
    """Add up neighbouring cells along an axis."""
    inside = held.take(range(cut[0], cut[-1]), axis=axis)
    added: IntegerArray = np.add.reduceat(inside, cut[:-1] - cut[0], axis=axis)
    return added
