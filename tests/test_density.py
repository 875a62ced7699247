"""Points that are many are counted, each once, wherever they came from."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apogee_batch.report.density import Cloud, quantile_of_distance

X_FRAME, Y_FRAME = (2000.0, 8000.0), (-1.0, 6.0)


def make_cloud(points: np.ndarray, n_pieces: int = 1, *, most_points: int = 20) -> Cloud:
    cloud = Cloud(X_FRAME, Y_FRAME, n_cells=(60, 70), most_points=most_points)
    for piece in np.array_split(points, n_pieces):
        cloud.add(*piece.T)
    return cloud


def draw_points(n_points: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.column_stack(
        [rng.normal(5000, 1200, n_points), rng.normal(2.5, 1.6, n_points), rng.normal(-0.2, 0.3, n_points)]
    )


def test_few_points_are_kept_as_they_are() -> None:
    points = np.array([[3000.0, 2.0, 0.1], [9000.0, 2.0, 0.2], [4000.0, -1.0, 0.3]])
    cloud = make_cloud(points, 2)
    assert not cloud.is_dense
    np.testing.assert_array_equal(np.column_stack(cloud.points()), points[[0, 2]])
    assert (cloud.n_inside, cloud.n_outside) == (2, 1)


@given(st.integers(21, 400), st.integers(1, 30), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_many_points_are_counted_once_in_whatever_pieces(n_points: int, n_pieces: int, seed: int) -> None:
    points = draw_points(n_points, seed)
    cloud, other = make_cloud(points), make_cloud(points, n_pieces)
    assert cloud.n_inside + cloud.n_outside == n_points
    if cloud.is_dense:
        cells, others = (each.cells(X_FRAME, Y_FRAME, wanted=20) for each in (cloud, other))
        assert cells.count.sum() == cloud.n_inside
        np.testing.assert_array_equal(cells.count, others.count)
        np.testing.assert_array_equal(cells.value, others.value)


def test_memory_does_not_grow_with_the_points() -> None:
    cloud = make_cloud(draw_points(0))
    for seed in range(30):
        cloud.add(*draw_points(17, seed).T)
        assert sum(map(len, cloud._pieces)) <= 20
    assert cloud.cells(X_FRAME, Y_FRAME).count.sum() == cloud.n_inside > 400


def test_cells_are_those_of_a_histogram() -> None:
    x, y, value = draw_points(3000).T
    cells = make_cloud(draw_points(3000), 5).cells(X_FRAME, Y_FRAME, wanted=20)
    assert cells.count.shape == (24, 20)  # of 70 and 60 fine cells three make one; the last has one
    wanted, _, _ = np.histogram2d(y, x, (cells.y_edges, cells.x_edges))
    np.testing.assert_array_equal(cells.count, wanted)
    total, _, _ = np.histogram2d(y, x, (cells.y_edges, cells.x_edges), weights=value)
    np.testing.assert_allclose(
        cells.value[wanted > 0], (total / np.maximum(wanted, 1))[wanted > 0], atol=5e-4
    )
    assert np.isnan(cells.value[wanted == 0]).all()


def test_only_the_part_that_is_shown_is_given_and_as_fine_as_can_be() -> None:
    cells = make_cloud(draw_points(3000)).cells((4000.0, 6000.0), (0.0, 1.0), wanted=20)
    np.testing.assert_allclose(cells.x_edges, np.linspace(4000, 6000, 21))
    np.testing.assert_allclose(cells.y_edges, np.linspace(0, 1, 11))


def test_a_point_on_the_edge_of_the_frame_is_inside() -> None:
    corner = np.array([[8000.0, 6.0, 0.5]])
    cloud = make_cloud(np.repeat(corner, 30, axis=0))
    cells = cloud.cells(X_FRAME, Y_FRAME)
    assert cells.count[-1, -1] == cells.count.sum() == 30
    assert cells.value[-1, -1] == 0.5


@pytest.mark.parametrize("most_points", [20, 10_000])
def test_limits_hold_the_points_inside(most_points: int) -> None:
    points = draw_points(500)
    cloud = make_cloud(points, 3, most_points=most_points)
    is_inside = (abs(points[:, 0] - 5000) <= 3000) & (abs(points[:, 1] - 2.5) <= 3.5)
    for (low, high), column in zip(cloud.limits(), (0, 1), strict=True):
        inside = points[is_inside, column]
        assert low < inside.min()
        assert inside.max() < high
        assert high - low < 1.1 * np.ptp(inside)
    assert make_cloud(points[:0]).limits() == (X_FRAME, Y_FRAME)


@pytest.mark.parametrize("most_points", [20, 10_000])
def test_the_quantile_of_the_distance_is_that_of_all_points(most_points: int) -> None:
    points = draw_points(900)
    points[:, 1] = np.abs(points[:, 1]) % 6
    points[:9, 0] = 9000.0  # outside: as far away as can be
    parts = np.split(points, [100])
    clouds = [make_cloud(part, most_points=most_points) for part in parts]
    y = np.sort(np.where(np.arange(900) < 9, 6.0, points[:, 1]))
    for share in (0.5, 0.99):
        wanted = np.quantile(y, share, method="inverted_cdf")
        assert wanted <= quantile_of_distance(clouds, share) <= wanted + 0.1 + 1e-9
    assert quantile_of_distance([make_cloud(points[:0])], 0.5) == 0
