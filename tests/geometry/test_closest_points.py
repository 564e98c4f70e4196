"""Closest points on meshes: by hand, against a slow twin that tests every triangle, and on degenerate meshes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from neuface.errors import InputError
from neuface.geometry.closest_points import closest_on_mesh, closest_on_triangles

Ball = Callable[[int, int], tuple[Tensor, Tensor]]
SQUARE = torch.tensor([[0.0, 0, 0], [2, 0, 0], [2, 2, 0], [0, 2, 0]], dtype=torch.float64)
SQUARE_FACES = torch.tensor([[0, 1, 2], [0, 2, 3]])


def slow_closest(point: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Ericson, Real-Time Collision Detection, 5.1.5: the corner, edge or interior that is nearest to the point."""
    ab, ac, ap = b - a, c - a, point - a
    d1, d2 = ab @ ap, ac @ ap
    if d1 <= 0 and d2 <= 0:
        return a
    d3, d4 = ab @ (point - b), ac @ (point - b)
    if d3 >= 0 and d4 <= d3:
        return b
    vc = d1 * d4 - d3 * d2
    if vc <= 0 and d1 >= 0 and d3 <= 0:
        return a + d1 / (d1 - d3) * ab
    d5, d6 = ab @ (point - c), ac @ (point - c)
    if d6 >= 0 and d5 <= d6:
        return c
    vb = d5 * d2 - d1 * d6
    if vb <= 0 and d2 >= 0 and d6 <= 0:
        return a + d2 / (d2 - d6) * ac
    va = d3 * d6 - d5 * d4
    if va <= 0 and d4 - d3 >= 0 and d5 - d6 >= 0:
        return b + (d4 - d3) / ((d4 - d3) + (d5 - d6)) * (c - b)
    return a + (vb * ab + vc * ac) / (va + vb + vc)


def slow_distances(points: Tensor, vertices: Tensor, faces: Tensor) -> Tensor:
    corners = vertices[faces].numpy()
    return torch.tensor(
        [
            min(float(np.linalg.norm(point - slow_closest(point, *triangle))) for triangle in corners)
            for point in points.numpy()
        ],
        dtype=torch.float64,
    )


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("point", "closest", "distance"),
    [
        ((1.5, 0.5, 3.0), (1.5, 0.5, 0.0), 3.0),  # above the inside
        ((1.0, -4.0, 3.0), (1.0, 0.0, 0.0), 5.0),  # beyond an edge
        ((5.0, 6.0, 0.0), (2.0, 2.0, 0.0), 5.0),  # beyond a corner
        ((0.5, 0.5, 0.0), (0.5, 0.5, 0.0), 0.0),  # on the diagonal
    ],
)
def test_a_square_by_hand(point: tuple[float, ...], closest: tuple[float, ...], distance: float) -> None:
    found = closest_on_mesh(torch.tensor([point], dtype=torch.float64), SQUARE, SQUARE_FACES)
    assert found.position[0].tolist() == pytest.approx(closest)
    assert float(found.distance) == pytest.approx(distance)


def test_equally_near_triangles_give_the_lowest_index() -> None:
    found = closest_on_mesh(torch.tensor([[1.0, 1.0, 2.0]], dtype=torch.float64), SQUARE, SQUARE_FACES)
    assert found.face.tolist() == [0]


@pytest.mark.parametrize("spread", [0.01, 0.5, 3.0, 100.0])
def test_a_ball_against_the_slow_twin(ball: Ball, spread: float) -> None:
    vertices, faces = ball(5, 8)
    vertices = vertices + 0.1 * normal(*vertices.shape, seed=1)
    points = spread * normal(60, 3, seed=2)
    found = closest_on_mesh(points, vertices, faces)
    torch.testing.assert_close(
        found.distance, slow_distances(points, vertices, faces), rtol=1e-12, atol=1e-12
    )


def test_triangles_of_very_different_size_against_the_slow_twin() -> None:
    """A huge triangle whose centroid is far away is still found when it is the nearest."""
    sizes = 10 ** torch.linspace(-3, 2, 40, dtype=torch.float64)
    triangles = normal(40, 1, 3, seed=3) + sizes[:, None, None] * normal(40, 3, 3, seed=4)
    vertices, faces = triangles.reshape(-1, 3), torch.arange(120).reshape(-1, 3)
    points = 4 * normal(80, 3, seed=5)
    found = closest_on_mesh(points, vertices, faces)
    torch.testing.assert_close(found.distance, slow_distances(points, vertices, faces), rtol=1e-9, atol=1e-12)
    on_its_face = closest_on_triangles(points, vertices[faces][found.face])
    torch.testing.assert_close(on_its_face, found.position)


def test_triangles_without_area_are_segments_and_points() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [4, 0, 0], [2, 0, 0]], dtype=torch.float64)
    points = torch.tensor([[1.0, 3.0, 0.0], [7.0, 4.0, 0.0]], dtype=torch.float64)
    segment = closest_on_mesh(points, vertices, torch.tensor([[0, 1, 2]]))
    assert segment.distance.tolist() == pytest.approx([3.0, 5.0])
    point = closest_on_mesh(points, vertices, torch.tensor([[0, 0, 0]]))
    assert point.distance.tolist() == pytest.approx([10**0.5, 65**0.5])


def test_a_sliver_is_as_distant_as_its_longest_edge() -> None:
    """In a triangle of almost no area the foot of the perpendicular is dominated by rounding."""
    generator = torch.Generator().manual_seed(9)
    points = 2 * torch.randn(200, 3, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(normal(3, 3, seed=8))[0]
    for height in (1e-6, 1e-10, 1e-14):
        vertices = torch.tensor([[0.0, 0, 0], [4, 0, 0], [1.3, height, 0]], dtype=torch.float64) @ turn.mT
        found = closest_on_mesh(points, vertices, torch.tensor([[0, 1, 2]]))
        segment = closest_on_mesh(points, vertices, torch.tensor([[0, 1, 0]]))
        torch.testing.assert_close(found.distance, segment.distance, rtol=0, atol=2 * height + 1e-12)


def test_closest_points_move_with_a_rigid_motion(ball: Ball) -> None:
    vertices, faces = ball(5, 8)
    turn = torch.linalg.qr(normal(3, 3, seed=6))[0]
    points = normal(50, 3, seed=7)
    still = closest_on_mesh(points, vertices, faces)
    moved = closest_on_mesh(points @ turn.mT + 3, vertices @ turn.mT + 3, faces)
    torch.testing.assert_close(moved.position, still.position @ turn.mT + 3)
    torch.testing.assert_close(moved.distance, still.distance)


def test_no_points_give_an_empty_result(ball: Ball) -> None:
    vertices, faces = ball(2, 4)
    assert closest_on_mesh(vertices[:0], vertices, faces).distance.shape == (0,)


def test_the_result_has_the_dtype_of_the_points(ball: Ball) -> None:
    vertices, faces = ball(2, 4)
    assert closest_on_mesh(vertices.float(), vertices.float(), faces).distance.dtype == torch.float32


def test_unusable_meshes_are_refused(ball: Ball) -> None:
    vertices, faces = ball(2, 4)
    with pytest.raises(InputError, match="no triangles"):
        closest_on_mesh(vertices, vertices, faces[:0])
    with pytest.raises(InputError, match="finite"):
        closest_on_mesh(vertices * torch.nan, vertices, faces)
    with pytest.raises(InputError, match="finite"):
        closest_on_mesh(vertices, vertices * torch.inf, faces)
