"""How the image of a head changes with its pose and its camera."""

from __future__ import annotations

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from neuface.structs import Camera

__all__ = ["POSE_SIZE", "pose_jacobian"]

POSE_SIZE = 6
"""Numbers that pose one image: a rotation vector, the logarithm of the magnification, and a position."""


def pose_jacobian(
    camera: Camera,
    points: Float[Tensor, "images points 3"],
    lever: Float[Tensor, "images points 3"],
) -> Float[Tensor, "images points 2 6"]:
    """Derivative of projected points by pose: a further rotation (radians), the log magnification, the position.

    The magnification and the position are those of the head frame's origin (`Camera.placed`). Their columns are exact
    before a weak-perspective camera; before a perspective one they leave out that the parts of a head have different
    depths, which an iterative solver corrects.

    Convention:
        A small rotation w moves a point by the cross product w x lever. Seen with magnification 10, a point with the
        lever (0, 0, 0.1) moves by 1 to the right per radian about y, and by 1 downwards per radian about x.

    Args:
        points: in the axes of the head frame, posed, metres.
        lever: from the centre of the rotation to the points, in the same axes.

    Example:
        >>> from neuface.structs import WeakPerspective
        >>> camera = WeakPerspective(scale=torch.tensor([10.0]), offset=torch.zeros(1, 2))
        >>> nose = torch.tensor([[[0.0, 0.0, 0.1]]])
        >>> pose_jacobian(camera, nose, nose)[0, 0, :, :3]
        tensor([[0., 1., 0.],
                [1., 0., 0.]])
    """
    x, y, z = lever.unbind(-1)
    zero = torch.zeros_like(x)
    by_rotation = torch.stack(
        (
            torch.stack((zero, z, -y), -1),
            torch.stack((-z, zero, x), -1),
            torch.stack((y, -x, zero), -1),
        ),
        -2,
    )
    rotation = einsum(
        camera.jacobian(points), by_rotation, "image point xy xyz, image point xyz w -> image point xy w"
    )
    at_centre = camera.placed(torch.zeros_like(camera.position), camera.magnification)
    magnification = at_centre.project(points)[..., None]
    position = torch.eye(2).to(points).expand(*points.shape[:2], 2, 2)
    return torch.cat((rotation, magnification, position), -1)
