"""A region of the (Teff, log g) plane: which stars lie in it, and how surely.

The region of young stars is the triangle of Olney et al. (2020), section 4.1: between the main sequence,
whose log g is higher, and the red giants, which are hotter.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apogee_batch.errors import UsageError
from apogee_batch.schema import BoolArray, DoubleArray

YSO_VERTICES = ((2200.0, 4.4), (4500.0, 3.9), (3200.0, 1.7))  # Teff in K, log g; paper, section 4.1
MIN_VERTICES = 3
_EPS = float(np.finfo(np.float32).eps)  # the catalogue's precision: 4.4 is 4.4000001 there
_FAR = 50.0  # sigmas, beyond which a normal distribution is nothing
_N_NODES = 24  # of the quadrature within an octant: the next digit is below 1e-12


@dataclass(frozen=True)
class Polygon:
    """A simple polygon in (Teff, log g); edges and vertices belong to it.

    Attributes
    ----------
    vertices : tuple of (float, float)
        Teff in K and log g of each corner, around it in either direction. The first need not be repeated.

    Raises
    ------
    UsageError
        If there are fewer than three, one is no number or is there twice, or edges cross or touch.
    """

    vertices: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        corners = self.vertices
        if not all(math.isfinite(value) for corner in corners for value in corner):
            raise UsageError(
                "the polygon has a vertex that is not a number; give Teff in K and log g of each"
            )
        if len(corners) > MIN_VERTICES and corners[0] == corners[-1]:
            object.__setattr__(self, "vertices", corners[:-1])
            corners = self.vertices
        if len(corners) < MIN_VERTICES:
            raise UsageError(f"the polygon has {len(corners)} vertices; give {MIN_VERTICES} or more")
        if len(set(corners)) < len(corners):
            raise UsageError("the polygon has the same vertex twice; give each once, in order around it")
        _refuse_crossings(corners)

    def contains(self, teff: DoubleArray, logg: DoubleArray) -> BoolArray:
        """Tell which stars lie in the polygon, on an edge or on a vertex.

        On an edge means to the precision of the catalogue's float32.

        Parameters
        ----------
        teff, logg : ndarray, shape (n_stars,)
            K; log10 of cm/s2. A star without one of them, NaN, lies nowhere.

        Returns
        -------
        ndarray of bool, shape (n_stars,)
        """
        x, y = np.asarray(teff, np.float64), np.asarray(logg, np.float64)
        is_inside, is_on_edge = np.zeros(x.shape, bool), np.zeros(x.shape, bool)
        for edge in self._edges():
            (x1, y1), (x2, y2) = sorted(edge)  # the same sums for both directions around
            cross = (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1)
            slack_x, slack_y = _EPS * max(abs(x1), abs(x2)), _EPS * max(abs(y1), abs(y2))
            is_on_edge |= (
                (np.abs(cross) <= abs(x2 - x1) * slack_y + abs(y2 - y1) * slack_x)
                & (min(x1, x2) - slack_x <= x)
                & (x <= max(x1, x2) + slack_x)
                & (min(y1, y2) - slack_y <= y)
                & (y <= max(y1, y2) + slack_y)
            )
            # A ray towards higher log g meets the edge if the star is below it; ends count once.
            is_inside ^= (x1 <= x) & (x < x2) & (cross < 0)
        return is_inside | is_on_edge

    def probability_inside(
        self, teff: DoubleArray, logg: DoubleArray, e_teff: DoubleArray, e_logg: DoubleArray
    ) -> DoubleArray:
        """Return how much of a star's error lies in the polygon, if it is a normal distribution.

        The errors of Teff and log g are taken as independent. The integral is exact to 1e-10: in units of
        the errors the distribution is round, and the polygon is a sum of right triangles with a corner at
        the star.

        Parameters
        ----------
        teff, logg : ndarray, shape (n_stars,)
            K; log10 of cm/s2.
        e_teff, e_logg : ndarray, shape (n_stars,)
            One sigma, above 0.

        Returns
        -------
        ndarray, shape (n_stars,)
            NaN where a number is missing or an error is not above 0.
        """
        is_known = np.isfinite(teff) & np.isfinite(logg) & np.isfinite(e_teff) & np.isfinite(e_logg)
        is_known &= np.where(is_known, (e_teff > 0) & (e_logg > 0), False)
        x0, y0, e_x, e_y = (
            np.asarray(values, np.float64)[is_known] for values in (teff, logg, e_teff, e_logg)
        )
        total = np.zeros(x0.shape)
        for (x1, y1), (x2, y2) in self._edges():
            start = (x1 - x0) / e_x, (y1 - y0) / e_y
            end = (x2 - x0) / e_x, (y2 - y0) / e_y
            total += _normal_in_triangle(start, end)
        probability = np.full(is_known.shape, np.nan)
        probability[is_known] = np.clip(np.abs(total), 0.0, 1.0)  # the sign is that of the direction around
        return probability

    def _edges(self) -> list[tuple[tuple[float, float], tuple[float, float]]]:
        return list(zip(self.vertices, (*self.vertices[1:], self.vertices[0]), strict=True))


def polygon_of(vertices: Sequence[Sequence[float]]) -> Polygon:
    """Return the polygon with these corners.

    Parameters
    ----------
    vertices : sequence of pairs of numbers
        Teff in K and log g of each corner.

    Raises
    ------
    UsageError
        If they are no pairs of numbers, or make no polygon.
    """
    for i, pair in enumerate(vertices, start=1):
        is_pair = isinstance(pair, list | tuple) and len(pair) == 2
        if not is_pair or any(
            isinstance(value, bool) or not isinstance(value, int | float) for value in pair
        ):
            raise UsageError(f"vertex {i} of the polygon is {pair!r}, not a pair of numbers [teff, logg]")
    return Polygon(tuple((float(teff), float(logg)) for teff, logg in vertices))


def _refuse_crossings(corners: Sequence[tuple[float, float]]) -> None:
    """Refuse a polygon two of whose edges have more in common than the vertex between them."""
    n = len(corners)
    edges = [(corners[i], corners[(i + 1) % n]) for i in range(n)]
    for i in range(n):
        (a, b), (_, c) = edges[i], edges[(i + 1) % n]
        if _turn(a, b, c) == 0 and (_is_between(a, c, b) or _is_between(c, a, b)):
            raise UsageError(f"the polygon turns back on itself at {b}; its edges must not touch")
        for j in range(i + 2, n - (i == 0)):
            if _touch(edges[i], edges[j]):
                raise UsageError(
                    f"edges {i + 1} and {j + 1} of the polygon cross or touch; give the vertices in order "
                    "around it"
                )


def _touch(
    one: tuple[tuple[float, float], tuple[float, float]],
    other: tuple[tuple[float, float], tuple[float, float]],
) -> bool:
    """Tell whether two edges have a point in common."""
    (a, b), (c, d) = one, other
    turns = _turn(a, b, c), _turn(a, b, d), _turn(c, d, a), _turn(c, d, b)
    if turns[0] * turns[1] < 0 and turns[2] * turns[3] < 0:
        return True
    ends = ((c, a, b), (d, a, b), (a, c, d), (b, c, d))
    return any(turn == 0 and _is_between(*point) for turn, point in zip(turns, ends, strict=True))


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> int:
    """Return 1 for a turn to the left at b, -1 to the right, 0 for none."""
    cross = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    return (cross > 0) - (cross < 0)


def _is_between(point: tuple[float, float], a: tuple[float, float], b: tuple[float, float]) -> bool:
    """Tell whether a point on the line through two others lies between them."""
    return all(min(p, q) <= value <= max(p, q) for value, p, q in zip(point, a, b, strict=True))


def _normal_in_triangle(
    start: tuple[DoubleArray, DoubleArray], end: tuple[DoubleArray, DoubleArray]
) -> DoubleArray:
    """Return the standard normal in the triangle of the origin and an edge, negative if it runs clockwise."""
    (x1, y1), (x2, y2) = start, end
    length = np.hypot(x2 - x1, y2 - y1)
    along_x, along_y = (x2 - x1) / length, (y2 - y1) / length
    distance = x1 * along_y - y1 * along_x  # of the edge's line from the origin
    from_foot = [x * along_x + y * along_y for x, y in (start, end)]  # of the ends, from the nearest point
    legs = [np.copysign(_normal_in_right_triangle(np.abs(distance), np.abs(t)), t) for t in from_foot]
    total: DoubleArray = np.sign(distance) * (legs[1] - legs[0])
    return total


def _normal_in_right_triangle(near: DoubleArray, far: DoubleArray) -> DoubleArray:
    """Return the standard normal in the triangle (0, 0), (near, 0), (near, far).

    In polar coordinates the integral over the radius is exact, and what is left is smooth up to 45 degrees
    (it is Owen's T function). A steeper triangle is a rectangle without one that is not.
    """
    is_steep = far > near
    short, long = np.where(is_steep, far, near), np.where(is_steep, near, far)  # now long <= short
    angle = np.arctan2(long, short)
    nodes, weights = np.polynomial.legendre.leggauss(_N_NODES)
    total = np.zeros(short.shape)
    for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        radius = np.minimum(short / np.cos(angle * (node + 1) / 2), _FAR)
        total -= weight * np.expm1(-(radius**2) / 2)
    flat = total * angle / 2 / (2 * np.pi)
    return np.where(is_steep, _half_normal(near) * _half_normal(far) - flat, flat)


def _half_normal(x: DoubleArray) -> DoubleArray:
    """Return the standard normal between 0 and x; numpy has no error function."""
    return np.fromiter((math.erf(value / math.sqrt(2)) / 2 for value in x.tolist()), np.float64, x.size)
