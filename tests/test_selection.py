"""A polygon in (Teff, log g) is the same however it is written down; its probability is the integral."""

import math

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from apogee_batch.catalog.selection import YSO_VERTICES, Polygon, polygon_of
from apogee_batch.errors import UsageError

PAPER = Polygon(YSO_VERTICES)
HOOK = Polygon(((0, 0), (4, 0), (4, 3), (3, 3), (3, 1), (1, 1), (1, 3), (0, 3)))  # a U, open above
INSIDE = (3300.0, 3.333)

teffs = st.floats(1500, 8000, width=32)
loggs = st.floats(0, 6, width=32)
errors = st.tuples(st.floats(1, 500), st.floats(0.005, 1))
stars = st.lists(st.tuples(teffs, loggs), min_size=1, max_size=30)


@st.composite
def polygons(draw: st.DrawFn) -> Polygon:
    """Corners at rising angles around a centre: simple, and seldom convex."""
    n = draw(st.integers(3, 8))
    radii = draw(st.lists(st.floats(0.2, 1), min_size=n, max_size=n))
    angles = [2 * math.pi * i / n for i in range(n)]
    centre = draw(teffs), draw(loggs)
    return Polygon(
        tuple(
            (centre[0] + 1500 * r * math.cos(a), centre[1] + 2 * r * math.sin(a))
            for r, a in zip(radii, angles, strict=True)
        )
    )


def contains(polygon: Polygon, *points: tuple[float, float]) -> list[bool]:
    teff, logg = np.array(points, np.float64).T
    return polygon.contains(teff, logg).tolist()


def probability(polygon: Polygon, teff: float, logg: float, e_teff: float, e_logg: float) -> float:
    arrays = [np.array([value], np.float64) for value in (teff, logg, e_teff, e_logg)]
    return float(polygon.probability_inside(*arrays)[0])


def test_the_paper_s_polygon_holds_its_corners_edges_and_middle() -> None:
    middles = [
        ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)
        for a, b in zip(YSO_VERTICES, YSO_VERTICES[1:] + YSO_VERTICES[:1], strict=True)
    ]
    assert all(contains(PAPER, *YSO_VERTICES, *middles, INSIDE))


def test_the_paper_s_polygon_holds_corners_and_edges_that_were_rounded_to_the_catalogue_s_float32() -> None:
    part = np.linspace(0, 1, 1001)
    for (t1, g1), (t2, g2) in zip(YSO_VERTICES, YSO_VERTICES[1:] + YSO_VERTICES[:1], strict=True):
        teff = (t1 + part * (t2 - t1)).astype(np.float32)
        logg = (g1 + part * (g2 - g1)).astype(np.float32)
        assert PAPER.contains(teff, logg).all()


def test_the_paper_s_polygon_leaves_out_dwarfs_giants_and_hot_stars() -> None:
    others = [(3500, 4.9), (4800, 2.5), (4600, 3.9), (2199, 4.4), (3200, 1.69), (3350, 4.1502), (5777, 4.44)]
    assert not any(contains(PAPER, *others))


def test_a_star_without_a_prediction_lies_in_no_polygon() -> None:
    assert contains(PAPER, (math.nan, 3.5), (3300, math.nan), (math.inf, 3.5), INSIDE) == [False] * 3 + [True]


def test_a_hollow_of_a_polygon_is_outside() -> None:
    assert contains(HOOK, (0.5, 2), (2, 0.5), (3.5, 2), (2, 1)) == [True] * 4
    assert contains(HOOK, (2, 2), (2, 1.01), (2, 3), (-0.1, 0), (0.5, 3.1)) == [False] * 5


@settings(max_examples=25, deadline=None)
@given(polygons(), stars, st.integers(0, 7), st.booleans())
def test_neither_direction_nor_first_corner_of_a_polygon_matters(
    polygon: Polygon, points: list[tuple[float, float]], shift: int, is_reversed: bool
) -> None:
    corners = (
        polygon.vertices[shift % len(polygon.vertices) :] + polygon.vertices[: shift % len(polygon.vertices)]
    )
    other = Polygon(corners[::-1] if is_reversed else corners)
    assert contains(polygon, *points) == contains(other, *points)
    for teff, logg in points[:3]:
        expected = probability(polygon, teff, logg, 100, 0.2)
        assert probability(other, teff, logg, 100, 0.2) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(polygons(), stars, st.sampled_from([0.25, 2.0, 1024.0]), st.sampled_from([0.5, 8.0]))
def test_units_do_not_matter(
    polygon: Polygon, points: list[tuple[float, float]], by_teff: float, by_logg: float
) -> None:
    scaled = Polygon(tuple((by_teff * teff, by_logg * logg) for teff, logg in polygon.vertices))
    others = [(by_teff * teff, by_logg * logg) for teff, logg in points]
    assert contains(polygon, *points) == contains(scaled, *others)
    (teff, logg), (teff2, logg2) = points[0], others[0]
    expected = probability(polygon, teff, logg, 80, 0.3)
    assert probability(scaled, teff2, logg2, 80 * by_teff, 0.3 * by_logg) == pytest.approx(
        expected, abs=1e-12
    )


@settings(max_examples=25, deadline=None)
@given(stars, st.randoms(use_true_random=False))
def test_the_order_of_stars_does_not_matter(points: list[tuple[float, float]], random: object) -> None:
    order = list(range(len(points)))
    random.shuffle(order)  # type: ignore[attr-defined]
    found = contains(PAPER, *points)
    assert contains(PAPER, *(points[i] for i in order)) == [found[i] for i in order]


@settings(max_examples=25, deadline=None)
@given(st.tuples(st.floats(2000, 6000), st.floats(2, 5)), errors)
@example((3000.0, 4.0), (1.0, 0.2))
def test_the_probability_of_a_rectangle_is_that_of_its_sides(
    star: tuple[float, float], sigma: tuple[float, float]
) -> None:
    def between(low: float, high: float, value: float, error: float) -> float:
        ends = [math.erf((end - value) / error / math.sqrt(2)) / 2 for end in (low, high)]
        return ends[1] - ends[0]

    rectangle = Polygon(((3000, 3), (4000, 3), (4000, 4), (3000, 4)))
    expected = between(3000, 4000, star[0], sigma[0]) * between(3, 4, star[1], sigma[1])
    assert probability(rectangle, *star, *sigma) == pytest.approx(expected, abs=1e-10)


@settings(max_examples=25, deadline=None)
@given(polygons(), st.floats(2000, 6000), loggs, errors)
def test_probabilities_of_the_halves_of_a_polygon_add_up(
    polygon: Polygon, teff: float, logg: float, sigma: tuple[float, float]
) -> None:
    triangle = Polygon(polygon.vertices[:3])
    rest = polygon.vertices[:1] + polygon.vertices[2:]
    assume(len(rest) > 2)
    try:
        other = Polygon(rest)
    except UsageError:  # the cut leaves the polygon
        assume(False)
    middle = ((polygon.vertices[0][0] + polygon.vertices[2][0]) / 2, 0.0)
    middle = (middle[0], (polygon.vertices[0][1] + polygon.vertices[2][1]) / 2)
    assume(contains(polygon, middle)[0] and not contains(other, polygon.vertices[1])[0])
    both = probability(triangle, teff, logg, *sigma) + probability(other, teff, logg, *sigma)
    assert probability(polygon, teff, logg, *sigma) == pytest.approx(both, abs=1e-10)


def test_the_probability_agrees_with_random_draws() -> None:
    rng = np.random.default_rng(5)
    for polygon, star in [
        (PAPER, (3500, 4.1, 300, 0.5)),
        (PAPER, (3200, 3, 0.01, 5)),
        (HOOK, (2, 2, 1.5, 1)),
    ]:
        draws = rng.normal(size=(2, 200_000))
        share = polygon.contains(star[0] + star[2] * draws[0], star[1] + star[3] * draws[1]).mean()
        assert probability(polygon, *star) == pytest.approx(share, abs=0.005)


@settings(max_examples=25, deadline=None)
@given(teffs, loggs)
def test_a_small_error_makes_the_probability_that_of_the_point(teff: float, logg: float) -> None:
    sides = [probability(PAPER, teff, logg, 1e-6, 1e-9), probability(PAPER, teff, logg, 5, 0.005)]
    assume(sides[1] < 1e-3 or sides[1] > 1 - 1e-3)  # not on an edge
    assert sides[0] == pytest.approx(float(contains(PAPER, (teff, logg))[0]), abs=1e-10)


def test_a_star_on_an_edge_has_half_of_its_error_inside() -> None:
    assert probability(PAPER, 3350, 4.15, 0.1, 1e-4) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize(
    "star", [(3300, 3.3, math.nan, 0.1), (3300, math.nan, 50, 0.1), (3300, 3.3, 0, 0.1), (3300, 3.3, 50, -1)]
)
def test_without_a_positive_error_there_is_no_probability(star: tuple[float, float, float, float]) -> None:
    assert math.isnan(probability(PAPER, *star))


def test_a_closed_ring_is_the_same_polygon() -> None:
    assert Polygon((*YSO_VERTICES, YSO_VERTICES[0])).vertices == PAPER.vertices


@pytest.mark.parametrize(
    ("vertices", "told"),
    [
        ([[1, 1], [2, 2]], "2 vertices"),
        ([], "0 vertices"),
        ([[0, 0], [1, 1], [1, 0], [0, 1]], "edges 1 and 3"),
        ([[0, 0], [2, 0], [2, 2], [1, 0], [0, 2]], "cross or touch"),
        ([[0, 0], [4, 0], [2, 0], [2, 2]], "turns back on itself"),
        ([[0, 0], [1, 1], [2, 2]], "turns back on itself"),
        ([[0, 0], [1, 0], [0, 0], [0, 1]], "same vertex twice"),
        ([[0, 0], [1, 0], [math.nan, 1]], "not a number"),
        ([[0, 0], [1, 0], [math.inf, 1]], "not a number"),
        ([[0, 0], [1, 0], [1, 2, 3]], "vertex 3"),
        ([[0, 0], [1, "x"], [1, 2]], "vertex 2"),
        ([[0, 0], [1, 0], 5], "vertex 3"),
        ([[True, 0], [1, 0], [0, 1]], "vertex 1"),
    ],
)
def test_what_is_no_simple_polygon_is_refused(vertices: list[list[float]], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        polygon_of(vertices)


@pytest.mark.parametrize("star", [(0.0, 0.0), (0.5, 0.3), (2.0, -1.0), (3.5, 3.5)])
@pytest.mark.parametrize("size", [0.5, 2.0, 6.0])
def test_the_probability_of_a_square_on_its_corner_is_that_of_its_sides(
    star: tuple[float, float], size: float
) -> None:
    diamond = Polygon(((size, 0), (0, size), (-size, 0), (0, -size)))
    expected = 1.0
    for along in ((star[0] + star[1]) / math.sqrt(2), (star[0] - star[1]) / math.sqrt(2)):
        expected *= sum(math.erf((size / math.sqrt(2) + sign * along) / math.sqrt(2)) / 2 for sign in (1, -1))
    assert probability(diamond, *star, 1, 1) == pytest.approx(expected, abs=1e-10)
