"""The derivative of projected points by pose, against autograd."""

from __future__ import annotations

import roma
import torch

from neuface.geometry.pose_jacobian import POSE_SIZE, pose_jacobian
from neuface.structs import WeakPerspective


def test_it_is_what_autograd_finds_before_a_weak_perspective_camera() -> None:
    generator = torch.Generator().manual_seed(0)
    points, centre = (torch.randn(3, n, 3, generator=generator, dtype=torch.float64) for n in (5, 1))
    camera = WeakPerspective(
        scale=torch.tensor([2.0, 9.0, 5.0]).double(), offset=torch.randn(3, 2, generator=generator).double()
    )

    def image(change: torch.Tensor) -> torch.Tensor:
        rotation = roma.rotvec_to_rotmat(change[:3])
        moved = centre + (points - centre) @ rotation.mT
        magnification = camera.magnification * change[3].exp()
        return camera.placed(camera.position + change[4:], magnification).project(moved)

    expected = torch.func.jacrev(image)(torch.zeros(POSE_SIZE, dtype=torch.float64))
    torch.testing.assert_close(pose_jacobian(camera, points, points - centre), expected)
