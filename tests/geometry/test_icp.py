"""Iterative closest points: known motions are recovered, and the distance never grows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import roma
import torch
from torch import Tensor

from neuface.errors import InputError
from neuface.geometry.closest_points import closest_on_mesh
from neuface.geometry.icp import align_mesh_to_points

Ball = Callable[[int, int], tuple[Tensor, Tensor]]


def lumpy(ball: Ball) -> tuple[Tensor, Tensor]:
    """A closed surface without symmetry."""
    vertices, faces = ball(12, 20)
    generator = torch.Generator().manual_seed(0)
    bumps = 1 + 0.15 * torch.sin(3 * vertices @ torch.randn(3, 3, generator=generator, dtype=torch.float64))
    return vertices * bumps * torch.tensor([1.0, 1.4, 0.8], dtype=torch.float64), faces


def surface_points(vertices: Tensor, faces: Tensor, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    chosen = torch.randint(len(faces), (count,), generator=generator)
    return (vertices[faces[chosen]] * (weights / weights.sum(-1, keepdim=True))[..., None]).sum(1)


def moved(points: Tensor, scale: float = 1.0) -> Tensor:
    turn = roma.rotvec_to_rotmat(torch.tensor([0.08, -0.1, 0.06], dtype=torch.float64))
    return scale * points @ turn.mT + torch.tensor([0.05, -0.04, 0.03], dtype=torch.float64)


@pytest.mark.parametrize(("with_scale", "scale"), [(False, 1.0), (True, 1.0), (True, 1.08), (True, 0.93)])
def test_a_known_motion_is_recovered(ball: Ball, with_scale: bool, scale: float) -> None:
    vertices, faces = lumpy(ball)
    points = surface_points(vertices, faces, 500)
    found = align_mesh_to_points(moved(vertices, scale), faces, points, with_scale=with_scale)
    torch.testing.assert_close(found, vertices, rtol=0, atol=1e-6)


def test_without_scale_the_size_is_kept(ball: Ball) -> None:
    vertices, faces = lumpy(ball)
    points = surface_points(1.1 * vertices, faces, 500)
    found = align_mesh_to_points(moved(vertices), faces, points)
    torch.testing.assert_close(torch.cdist(found, found), torch.cdist(vertices, vertices))


def test_the_distances_never_grow(ball: Ball) -> None:
    """This holds even for points that are noise and fit no surface."""
    vertices, faces = lumpy(ball)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        points = torch.randn(40, 3, generator=generator, dtype=torch.float64)
        before = closest_on_mesh(points, vertices, faces).distance.square().mean()
        found = align_mesh_to_points(vertices, faces, points, with_scale=True)
        assert closest_on_mesh(points, found, faces).distance.square().mean() <= before


def test_points_on_the_surface_leave_it_in_place(ball: Ball) -> None:
    vertices, faces = lumpy(ball)
    found = align_mesh_to_points(vertices, faces, surface_points(vertices, faces, 100))
    torch.testing.assert_close(found, vertices, rtol=0, atol=1e-9)


def test_directions_that_the_points_do_not_constrain_stay_unchanged() -> None:
    """A plane could slide within itself: it is lifted to the points and not shifted along."""
    square = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    steps = torch.linspace(-0.6, 0.6, 4, dtype=torch.float64)
    points = torch.cartesian_prod(steps, steps, torch.tensor([0.3], dtype=torch.float64))
    found = align_mesh_to_points(square, faces, points)
    expected = square + torch.tensor([0.0, 0.0, 0.3], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


def test_too_few_points_are_refused(ball: Ball) -> None:
    vertices, faces = ball(3, 5)
    with pytest.raises(InputError, match="at least 7 points, got 6"):
        align_mesh_to_points(vertices, faces, vertices[:6])
