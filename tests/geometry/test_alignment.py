"""Least-squares rigid and similarity alignment: known motions are recovered, and invariants hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from neuface.geometry.alignment import align_points


def random_motion(count: int, scale: bool) -> tuple[Tensor, Tensor]:
    """Point sets (count, 25, 3) and the same points after random rigid motions (or similarities)."""
    generator = torch.Generator().manual_seed(count)
    points = torch.randn(count, 25, 3, generator=generator, dtype=torch.float64)
    turn = torch.from_numpy(
        Rotation.from_rotvec(np.random.default_rng(count).normal(size=(count, 3))).as_matrix()
    )
    shift = 5 * torch.randn(count, 1, 3, generator=generator, dtype=torch.float64)
    size = torch.rand(count, 1, 1, generator=generator, dtype=torch.float64) + 0.5 if scale else 1.0
    return points, size * (points @ turn.mT) + shift


@pytest.mark.parametrize("scale", [False, True])
def test_motions_are_recovered(scale: bool) -> None:
    points, moved = random_motion(6, scale)
    torch.testing.assert_close(align_points(points, moved, with_scale=scale), moved)
    torch.testing.assert_close(align_points(points[0], moved[0], with_scale=scale), moved[0])
    batched = align_points(points.unflatten(0, (2, 3)), moved.unflatten(0, (2, 3)), with_scale=scale)
    torch.testing.assert_close(batched.flatten(0, 1), moved)


def test_scale_is_kept_unless_asked_for() -> None:
    points, moved = random_motion(4, scale=True)
    aligned = align_points(points, moved)
    torch.testing.assert_close(torch.cdist(aligned, aligned), torch.cdist(points, points))
    assert float((aligned - moved).norm()) > 1


def test_mirror_images_are_aligned_without_reflection() -> None:
    points, _ = random_motion(3, scale=False)
    mirrored = points * torch.tensor([-1.0, 1.0, 1.0])
    aligned = align_points(points, mirrored)
    before, after = points[:, 1:4] - points[:, :1], aligned[:, 1:4] - aligned[:, :1]
    torch.testing.assert_close(torch.linalg.det(after), torch.linalg.det(before))


def test_points_of_weight_zero_do_not_influence_the_motion_but_are_moved() -> None:
    points, moved = random_motion(5, scale=False)
    corrupted = moved.clone()
    corrupted[:, 20:] += 30
    weights = torch.ones(25, dtype=torch.float64)
    weights[20:] = 0
    torch.testing.assert_close(align_points(points, corrupted, fit_on=weights), moved)
    assert float((align_points(points, corrupted) - moved).abs().max()) > 1


def test_weights_multiply_the_squared_errors() -> None:
    """A point of weight two has the effect of the same point given twice."""
    generator = torch.Generator().manual_seed(0)
    points, target = torch.randn(2, 8, 3, generator=generator, dtype=torch.float64)
    weights = torch.ones(8, dtype=torch.float64)
    weights[3] = 2
    repeated = align_points(torch.cat((points, points[3:4])), torch.cat((target, target[3:4])))
    torch.testing.assert_close(align_points(points, target, fit_on=weights), repeated[:8])
