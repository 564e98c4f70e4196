"""Rotations, thin over roma: unit quaternions xyzw, rotation vectors in radians."""

from __future__ import annotations

import roma
import torch
from jaxtyping import Float
from torch import Tensor


def rotvec_to_quaternion(rotvec: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions xyzw; finite gradients at the identity.

    Convention:
        A quarter turn about y, (0, pi/2, 0), is (0, 0.7071, 0, 0.7071).
    """
    return roma.rotvec_to_unitquat(rotvec)


def toward_hemisphere(
    quaternion: Float[Tensor, "*batch 4"], reference: Float[Tensor, "*batch 4"]
) -> Float[Tensor, "*batch 4"]:
    """Of q and -q, which are the same rotation, the one nearer to the reference."""
    opposite = (quaternion * reference).sum(-1, keepdim=True) < 0
    return torch.where(opposite, -quaternion, quaternion)


def continuous_signs(quaternion: Float[Tensor, "*batch time 4"]) -> Float[Tensor, "*batch time 4"]:
    """Signs chosen along time so that neighbours never lie in opposite hemispheres; the first is kept."""
    agreement = (quaternion[..., 1:, :] * quaternion[..., :-1, :]).sum(-1)
    flips = torch.where(agreement < 0, -1.0, 1.0).to(quaternion.dtype)
    signs = torch.cat((torch.ones_like(quaternion[..., :1, 0]), flips.cumprod(-1)), dim=-1)
    return quaternion * signs[..., None]


def rotation_angle_rad(
    first: Float[Tensor, "*batch 3"], second: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch"]:
    """Angle of the rotation between two rotation vectors, 0..pi."""
    return roma.rotmat_geodesic_distance(roma.rotvec_to_rotmat(first), roma.rotvec_to_rotmat(second))
