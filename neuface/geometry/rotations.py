"""Rotations on top of roma: unit quaternions in the order xyzw, rotation vectors in radians, rotation matrices.

Roma is imported on use, because it loads the compiler of torch (`torch._dynamo`), which takes half as long as torch.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def rotvec_to_quaternion(rotvec: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions xyzw of rotation vectors (radians); gradients are finite at the identity too.

    Example:
        >>> rotvec_to_quaternion(torch.tensor([0.0, torch.pi / 2, 0.0]))  # a quarter turn about y
        tensor([0.0000, 0.7071, 0.0000, 0.7071])
    """
    import roma

    return roma.rotvec_to_unitquat(rotvec)


def quaternion_to_rotvec(quaternion: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3"]:
    """Rotation vectors (radians, at most pi long) of unit quaternions xyzw."""
    import roma

    return roma.unitquat_to_rotvec(quaternion)


def quaternion_product(
    left: Float[Tensor, "*batch 4"], right: Float[Tensor, "*batch 4"]
) -> Float[Tensor, "*batch 4"]:
    """The quaternion of the rotation `right` followed by the rotation `left`."""
    import roma

    return roma.quat_product(left, right)


def rotvec_to_rotmat(rotvec: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices of rotation vectors (radians); gradients are finite at the identity too.

    Example:
        >>> turn = rotvec_to_rotmat(torch.tensor([0.0, torch.pi / 2, 0.0]))  # a quarter turn about y
        >>> (turn @ torch.tensor([0.0, 0.0, 1.0])).round()  # takes the z axis to the x axis
        tensor([1., 0., 0.])
    """
    import roma

    return roma.rotvec_to_rotmat(rotvec)


def rotmat_to_rotvec(rotmat: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Rotation vectors (radians, at most pi long) of rotation matrices."""
    import roma

    return roma.rotmat_to_rotvec(rotmat)


def compose_rotvecs(
    left: Float[Tensor, "*batch 3"], right: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 3"]:
    """The rotation vector of the rotation `right` followed by the rotation `left`, R(left) R(right)."""
    import roma

    return roma.rotvec_composition((left, right))


def nearest_rotation(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation nearest to each matrix in the Frobenius norm (special orthogonal Procrustes)."""
    import roma

    rotation: Any = roma.special_procrustes(matrix)
    return rotation


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
    import roma

    return roma.rotmat_geodesic_distance(roma.rotvec_to_rotmat(first), roma.rotvec_to_rotmat(second))
