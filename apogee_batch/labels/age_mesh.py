"""Cells between isochrones in the plane of log Teff and log g, and which of them a star lies in.

Two isochrones that are neighbours in age make a strip of cells: the corners of one are the models of two
neighbouring masses at both ages, and within it all is bilinear in log age and log mass.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from apogee_batch.errors import UsageError
from apogee_batch.labels.isochrone_grid import MAIN_SEQUENCE, MAX_AGE_GAP_DEX, Isochrone, Isochrones
from apogee_batch.schema import BoolArray, DoubleArray, IntArray

MAX_AGE_MYR = 100.0  # the oldest of the young stars that the paper's labels are made from, section 2.4
_N_BINS = 128  # a side, of the bins by which the cells around a star are found
_SLACK = 1e-5  # of a cell, that a star may lie beyond it: it was rounded to float32


@dataclass(frozen=True)
class AgeMesh:
    """Cells in (log Teff, log g) between neighbouring isochrones.

    Attributes
    ----------
    corner : ndarray, shape (n_cells, 2, 2, 2)
        By age (younger, older), mass (lighter, heavier) and coordinate (log10 Teff, log g).
    log_age : ndarray, shape (n_cells, 2)
        log10 of years.
    log_mass : ndarray, shape (n_cells, 2)
        log10 of solar masses.
    youngest : ndarray, shape (n_points, 2)
        log10 Teff and log g along the youngest isochrone.
    age_intervals_myr : tuple of (float, float)
        What ages the cells cover.
    """

    corner: DoubleArray
    log_age: DoubleArray
    log_mass: DoubleArray
    youngest: DoubleArray
    age_intervals_myr: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        n_cells = len(self.corner)
        shapes = self.corner.shape, self.log_age.shape, self.log_mass.shape
        if shapes != ((n_cells, 2, 2, 2), (n_cells, 2), (n_cells, 2)) or not n_cells:
            raise ValueError("the cells of an age mesh do not fit together")

    @cached_property
    def bins(self) -> "Bins":
        """Where to look for the cells around a point."""
        return Bins.of(self)


def build_mesh(
    isochrones: Isochrones,
    *,
    max_age_myr: float = MAX_AGE_MYR,
    last_stage: int = MAIN_SEQUENCE,
    max_age_gap_dex: float = MAX_AGE_GAP_DEX,
) -> AgeMesh:
    """Make the cells between neighbouring isochrones.

    Parameters
    ----------
    isochrones : Isochrones
    max_age_myr : float
        Older isochrones are left out: their giants lie where young stars do.
    last_stage : int
        Last evolutionary stage that is taken, as in `Isochrone.stage`.
    max_age_gap_dex : float
        Largest step between two isochrones that is interpolated over.

    Raises
    ------
    UsageError
        If no two isochrones are left that are near enough and have masses in common.
    """
    young = [one for one in isochrones.isochrones if one.age_myr <= max_age_myr * (1 + 1e-9)]
    strips, intervals = [], list[tuple[float, float]]()
    for younger, older in pairwise(young):
        if older.log_age - younger.log_age > max_age_gap_dex:
            continue
        strip = _strip(younger, older, last_stage)
        if strip is not None:
            strips.append((*strip, younger, older))
            is_joined = bool(intervals) and intervals[-1][1] == younger.age_myr
            start = intervals.pop()[0] if is_joined else younger.age_myr
            intervals.append((start, older.age_myr))
    if not strips:
        ages = ", ".join(f"{one.age_myr:.3g}" for one in isochrones.isochrones)
        raise UsageError(
            f"no ages can be interpolated: the isochrones are of {ages} Myr, and it takes two up to "
            f"{max_age_myr:g} Myr, at most {max_age_gap_dex:g} dex apart, with masses in common; give more "
            "isochrones, or a larger --max-age"
        )
    ages_of_cells = [
        np.broadcast_to([younger.log_age, older.log_age], log_mass.shape)
        for _, log_mass, younger, older in strips
    ]
    first = strips[0][2]
    is_known = first.mass <= first.mass_range(last_stage)[1]
    return AgeMesh(
        corner=np.concatenate([corner for corner, _, _, _ in strips]),
        log_age=np.concatenate(ages_of_cells),
        log_mass=np.concatenate([log_mass for _, log_mass, _, _ in strips]),
        youngest=np.stack([first.log_teff, first.logg], axis=1)[is_known],
        age_intervals_myr=tuple(intervals),
    )


def _strip(younger: Isochrone, older: Isochrone, last_stage: int) -> tuple[DoubleArray, DoubleArray] | None:
    """Return corners and log masses of the cells between two isochrones; None without masses in common."""
    ranges = [one.mass_range(last_stage) for one in (younger, older)]
    least, largest = max(low for low, _ in ranges), min(high for _, high in ranges)
    masses = np.unique(np.concatenate([younger.mass, older.mass]))
    masses = masses[(least <= masses) & (masses <= largest)]
    if masses.size < 2:
        return None
    log_mass = np.log10(masses)
    points = np.stack(
        [
            np.stack([np.interp(log_mass, np.log10(one.mass), y) for y in (one.log_teff, one.logg)], axis=-1)
            for one in (younger, older)
        ]
    )
    corner = np.stack([points[:, :-1], points[:, 1:]], axis=2)  # (age, cell, mass, coordinate)
    return corner.transpose(1, 0, 2, 3), np.stack([log_mass[:-1], log_mass[1:]], axis=1)


@dataclass(frozen=True)
class Bins:
    """Which cells may be around a point: those whose box meets the point's bin.

    Attributes
    ----------
    low, width : ndarray, shape (2,)
        Where the bins begin, and how wide one is.
    start : ndarray of int, shape (n_bins**2 + 1,)
        Place in `cell` of the first cell of each bin.
    cell : ndarray of int
    """

    low: DoubleArray
    width: DoubleArray
    start: IntArray
    cell: IntArray

    @classmethod
    def of(cls, mesh: AgeMesh) -> "Bins":
        """Sort the cells of a mesh into bins."""
        lows, highs = mesh.corner.min(axis=(1, 2)), mesh.corner.max(axis=(1, 2))
        margin = 10 * _SLACK * (highs - lows) + 1e-9
        lows, highs = lows - margin, highs + margin
        low = lows.min(axis=0)
        width = (highs.max(axis=0) - low) / _N_BINS
        first = np.clip((lows - low) // width, 0, _N_BINS - 1).astype(int)
        last = np.clip((highs - low) // width, 0, _N_BINS - 1).astype(int)
        bins, cells = [], []
        for cell, ((i0, j0), (i1, j1)) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
            own = (np.arange(i0, i1 + 1)[:, None] * _N_BINS + np.arange(j0, j1 + 1)).ravel()
            bins.append(own)
            cells.append(np.full(own.size, cell))
        bin_of, cell_of = np.concatenate(bins), np.concatenate(cells)
        order = np.argsort(bin_of, kind="stable")
        start = np.searchsorted(bin_of[order], np.arange(_N_BINS**2 + 1))
        return cls(low, width, start.astype(np.int32), cell_of[order].astype(np.int32))

    def range_of(self, x: DoubleArray, y: DoubleArray) -> tuple[IntArray, IntArray]:
        """Return where in `cell` the candidates of each point begin and end."""
        with np.errstate(invalid="ignore"):
            i, j = (x - self.low[0]) // self.width[0], (y - self.low[1]) // self.width[1]
            is_known = (i >= 0) & (i < _N_BINS) & (j >= 0) & (j < _N_BINS)
        which = np.where(is_known, i * _N_BINS + j, 0).astype(int)
        return np.where(is_known, self.start[which], 0), np.where(is_known, self.start[which + 1], 0)


def locate(mesh: AgeMesh, x: DoubleArray, y: DoubleArray) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
    """Find the cells that points lie in.

    Parameters
    ----------
    mesh : AgeMesh
    x, y : ndarray, shape (n_points,)
        log10 Teff and log g.

    Returns
    -------
    youngest, oldest, log_mass : ndarray, shape (n_points,)
        The youngest and the oldest log age, and the log mass of the youngest. The first and the last are NaN
        for a point in no cell.
    """
    youngest, oldest, log_mass = np.full(x.shape, np.inf), np.full(x.shape, -np.inf), np.full(x.shape, np.nan)
    bins = mesh.bins
    start, end = bins.range_of(x, y)
    for rank in range(int((end - start).max(initial=0))):
        at = np.flatnonzero(start + rank < end)
        cell = bins.cell[start[at] + rank]
        for age_part, mass_part in _invert(mesh.corner[cell], x[at], y[at]):
            age = _between(mesh.log_age[cell], age_part)
            mass = _between(mesh.log_mass[cell], mass_part)
            # of the same age the lighter one, so that the order of the cells does not matter
            is_better = (age < youngest[at]) | ((age == youngest[at]) & (mass < log_mass[at]))
            youngest[at] = np.where(is_better, age, youngest[at])
            log_mass[at] = np.where(is_better, mass, log_mass[at])
            oldest[at] = np.fmax(oldest[at], age)
    return np.where(np.isfinite(youngest), youngest, np.nan), oldest, log_mass


def _invert(corner: DoubleArray, x: DoubleArray, y: DoubleArray) -> Sequence[tuple[DoubleArray, DoubleArray]]:
    """Return where in its cell each point lies, as parts of the way in age and in mass; NaN outside.

    A bilinear map has two inverses, of which both may lie in a cell that is folded.
    """
    origin = corner[:, 0, 0]
    point = np.stack([x, y], axis=1) - origin
    along, across = corner[:, 0, 1] - origin, corner[:, 1, 0] - origin  # mass, age
    twist = corner[:, 1, 1] - corner[:, 1, 0] - along
    # point = mass * along + age * across + mass * age * twist; crossed with (along + age * twist)
    square, linear = -_cross(across, twist), _cross(point, twist) - _cross(across, along)
    constant = _cross(point, along)
    size = np.abs(along).sum(axis=1) + np.abs(across).sum(axis=1)
    found = []
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        root = np.sqrt(np.maximum(linear**2 - 4 * square * constant, 0.0))
        half = -(linear + np.copysign(root, linear)) / 2
        for age in (constant / half, half / square):
            side = along + age[:, None] * twist
            rest = point - age[:, None] * across
            mass = (rest * side).sum(axis=1) / (side**2).sum(axis=1)
            is_root = np.hypot(*(rest - mass[:, None] * side).T) <= _SLACK * size
            is_inside = is_root & (np.abs(age - 0.5) <= 0.5 + _SLACK) & (np.abs(mass - 0.5) <= 0.5 + _SLACK)
            found.append(tuple(np.where(is_inside, np.clip(part, 0, 1), np.nan) for part in (age, mass)))
    return [(age, mass) for age, mass in found]


def _cross(one: DoubleArray, other: DoubleArray) -> DoubleArray:
    product: DoubleArray = one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
    return product


def _between(ends: DoubleArray, part: DoubleArray) -> DoubleArray:
    """Return what lies a part of the way between two ends; the ends themselves are exact."""
    value: DoubleArray = (1 - part) * ends[:, 0] + part * ends[:, 1]
    return value


def is_above(line: DoubleArray, x: DoubleArray, y: DoubleArray) -> BoolArray:
    """Tell which points have a lower log g than a line has at their Teff, wherever it passes there.

    Parameters
    ----------
    line : ndarray, shape (n_line, 2)
    x, y : ndarray, shape (n_points,)
        log10 Teff and log g.
    """
    ends = np.sort(np.stack([line[:-1], line[1:]]).transpose(1, 0, 2), axis=1)  # of the segments' boxes
    is_at = (ends[:, 0, 0] <= x[:, None]) & (x[:, None] <= ends[:, 1, 0])
    lowest = np.where(is_at, ends[:, 0, 1], np.inf).min(axis=1)
    return np.asarray(np.isfinite(lowest) & (y < lowest))
