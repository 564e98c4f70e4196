"""Rotations on top of roma: unit quaternions in the order xyzw, rotation vectors in radians."""

from __future__ import annotations

import roma
import torch
from jaxtyping import Float
from torch import Tensor


def rotvec_to_quaternion(rotvec: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions xyzw of rotation vectors (radians); gradients are finite at the identity too.

    Example:
        >>> rotvec_to_quaternion(torch.tensor([0.0, torch.pi / 2, 0.0]))  # a quarter turn about y
        tensor([0.0000, 0.7071, 0.0000, 0.7071])
    """
    return roma.rotvec_to_unitquat(rotvec)


def toward_hemisphere(
    quaternion: Float[Tensor, "*batch 4"], reference: Float[Tensor, "*batch 4"]
) -> Float[Tensor, "*batch 4"]:
    """Of q and -q, which represent the same rotation, the one nearer to the reference."""
    opposite = (quaternion * reference).sum(-1, keepdim=True) < 0
    return torch.where(opposite, -quaternion, quaternion)


def continuous_signs(quaternion: Float[Tensor, "*batch time 4"]) -> Float[Tensor, "*batch time 4"]:
    """The same rotations with signs such that neighbouring frames never lie in opposite hemispheres.

    The first frame keeps its sign.
    """
    agreement = (quaternion[..., 1:, :] * quaternion[..., :-1, :]).sum(-1)
    flips = torch.where(agreement < 0, -1.0, 1.0).to(quaternion.dtype)
    signs = torch.cat((torch.ones_like(quaternion[..., :1, 0]), flips.cumprod(-1)), dim=-1)
    return quaternion * signs[..., None]


def rotation_angle_rad(
    first: Float[Tensor, "*batch 3"], second: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch"]:
    """Angle of the relative rotation of two rotation vectors (geodesic distance), 0..pi radians.

    Example:
        >>> rotation_angle_rad(torch.tensor([0.0, 0.25, 0.0]), torch.tensor([0.0, -0.5, 0.0]))
        tensor(0.7500)
    """
    return roma.rotmat_geodesic_distance(roma.rotvec_to_rotmat(first), roma.rotvec_to_rotmat(second))
