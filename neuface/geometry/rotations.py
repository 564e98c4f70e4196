"""Rotations: unit quaternions in the order xyzw, rotation vectors in radians, rotation matrices.

They are written here because the library for them, roma, loads the compiler of torch when it is imported, which takes
longer than importing torch itself. The tests compare every function with roma or SciPy.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

SMALL_ANGLE_SQUARED = 1e-4
"""Bound of the squared angle (radians^2) below which series stand for quotients of the form sin(x) / x. Their first
omitted terms are below 1e-15 there."""


def rotvec_to_quaternion(rotvec: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions xyzw of rotation vectors (radians); gradients are finite at the identity too.

    Example:
        >>> rotvec_to_quaternion(torch.tensor([0.0, torch.pi / 2, 0.0]))  # a quarter turn about y
        tensor([0.0000, 0.7071, 0.0000, 0.7071])
    """
    squared = rotvec.square().sum(-1, keepdim=True)
    small = squared < SMALL_ANGLE_SQUARED
    half = torch.where(small, 1.0, squared).sqrt() / 2
    # sin(a / 2) / a and cos(a / 2) in powers of the squared angle a^2.
    near_scale = 0.5 - squared / 48 + squared.square() / 3840
    near_cosine = 1 - squared / 8 + squared.square() / 384
    scale = torch.where(small, near_scale, half.sin() / (2 * half))
    cosine = torch.where(small, near_cosine, half.cos())
    return torch.cat((scale * rotvec, cosine), -1)


def quaternion_to_rotvec(quaternion: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3"]:
    """Rotation vectors (radians, at most pi long) of unit quaternions xyzw."""
    quaternion = torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)
    axis, cosine = quaternion[..., :3], quaternion[..., 3:]
    squared = axis.square().sum(-1, keepdim=True)
    small = squared < SMALL_ANGLE_SQUARED
    sine = torch.where(small, 1.0, squared).sqrt()
    # 2 atan(s / c) / s in powers of (s / c)^2.
    ratio = squared / torch.where(small, cosine, 1.0).square()
    near = 2 / torch.where(small, cosine, 1.0) * (1 - ratio / 3 + ratio.square() / 5 - ratio**3 / 7)
    return torch.where(small, near, 2 * torch.atan2(sine, cosine) / sine) * axis


def quaternion_product(
    left: Float[Tensor, "*batch 4"], right: Float[Tensor, "*batch 4"]
) -> Float[Tensor, "*batch 4"]:
    """The quaternion of the rotation `right` followed by the rotation `left`."""
    axis_left, real_left = left[..., :3], left[..., 3:]
    axis_right, real_right = right[..., :3], right[..., 3:]
    axis_left, axis_right = torch.broadcast_tensors(axis_left, axis_right)
    axis = real_left * axis_right + real_right * axis_left + torch.linalg.cross(axis_left, axis_right)
    real = real_left * real_right - (axis_left * axis_right).sum(-1, keepdim=True)
    return torch.cat((axis, real), -1)


def rotvec_to_rotmat(rotvec: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices of rotation vectors (radians); gradients are finite at the identity too.

    Example:
        >>> turn = rotvec_to_rotmat(torch.tensor([0.0, torch.pi / 2, 0.0]))  # a quarter turn about y
        >>> (turn @ torch.tensor([0.0, 0.0, 1.0])).round()  # takes the z axis to the x axis
        tensor([1., 0., 0.])
    """
    x, y, z, w = rotvec_to_quaternion(rotvec).unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    xy, xz, yz = x * y, x * z, y * z
    wx, wy, wz = w * x, w * y, w * z
    entries = (
        1 - 2 * (yy + zz), 2 * (xy - wz), 2 * (xz + wy),
        2 * (xy + wz), 1 - 2 * (xx + zz), 2 * (yz - wx),
        2 * (xz - wy), 2 * (yz + wx), 1 - 2 * (xx + yy),
    )  # fmt: skip
    return torch.stack(entries, -1).unflatten(-1, (3, 3))


def rotmat_to_quaternion(rotmat: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions xyzw of rotation matrices (Shepperd 1978)."""
    m = rotmat
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    # Each row is 4 q times one entry of q; that of the largest entry is the one that loses no digits.
    rows = (
        1 + xx - yy - zz, xy, xz, wx,
        xy, 1 - xx + yy - zz, yz, wy,
        xz, yz, 1 - xx - yy + zz, wz,
        wx, wy, wz, 1 + xx + yy + zz,
    )  # fmt: skip
    candidates = torch.stack(rows, -1).unflatten(-1, (4, 4))
    largest = candidates.diagonal(dim1=-2, dim2=-1).argmax(-1)
    index = largest[..., None, None].expand(*largest.shape, 1, 4)
    return torch.nn.functional.normalize(candidates.gather(-2, index)[..., 0, :], dim=-1)


def rotmat_to_rotvec(rotmat: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Rotation vectors (radians, at most pi long) of rotation matrices."""
    return quaternion_to_rotvec(rotmat_to_quaternion(rotmat))


def compose_rotvecs(
    left: Float[Tensor, "*batch 3"], right: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 3"]:
    """The rotation vector of the rotation `right` followed by the rotation `left`, R(left) R(right)."""
    product = quaternion_product(rotvec_to_quaternion(left), rotvec_to_quaternion(right))
    return quaternion_to_rotvec(product)


def nearest_rotation(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation nearest to each matrix in the Frobenius norm (special orthogonal Procrustes)."""
    left, _, right = torch.linalg.svd(matrix)
    sign = torch.ones_like(matrix[..., 0])
    sign[..., 2] = torch.linalg.det(left @ right).sign()
    return (left * sign[..., None, :]) @ right


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
    return compose_rotvecs(-first, second).norm(dim=-1)
