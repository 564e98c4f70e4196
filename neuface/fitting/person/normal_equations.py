"""The normal equations of `neuface.fitting.person`, with the per-frame unknowns eliminated frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from neuface.devices import map_pieces
from neuface.fitting.person.linear_model import LinearModel
from neuface.geometry.pose_jacobian import POSE_SIZE, pose_jacobian
from neuface.structs import HEAD_TO_IMAGE_SIGNS, TensorStruct, WeakPerspective

__all__ = [
    "DAMPING",
    "Curvature",
    "Eliminated",
    "camera_rows",
    "cholesky",
    "curvature",
    "eliminated",
    "frame_equations",
]

DAMPING = 1e-6
"""Added precision of the per-frame unknowns, per mm^2 or rad^2: keeps those that no landmark determines finite, such
as the pose of an image without landmarks."""
IMAGES_AT_ONCE = 24
"""Bounds the images whose equations are made and eliminated at once; pieces are divided among threads."""

Images = slice | Int[Tensor, " _"]
"""Which images of a view these are."""


@dataclass(frozen=True, kw_only=True)
class Curvature(TensorStruct):
    """The quadratic form of the weighted squared residuals, by the points of the unposed heads and by the poses."""

    weight: Float[Tensor, "views frames points"]
    """Of the squared residuals, per mm^2."""
    axes: Float[Tensor, "views frames 3 3"]
    """Second derivative of half the squared residual by the position of any point of an image."""
    point_right: Float[Tensor, "views frames points 3"]
    pose: Float[Tensor, "views frames 6 6"]
    pose_right: Float[Tensor, "views frames 6"]
    pose_to_point: Float[Tensor, "views frames 6 points 3"]
    """Mixed second derivative by pose and points."""


@dataclass(frozen=True, kw_only=True)
class Eliminated:
    """Equations of the shared unknowns, from frames whose own unknowns are expressed by them (Schur complement)."""

    frames: Int[Tensor, " frames"]
    """Which frames these are."""
    shared_matrix: Float[Tensor, "shared shared"]
    shared_right: Float[Tensor, " shared"]
    inverse: Float[Tensor, "frames unknowns unknowns"]
    """Inverse Cholesky factors of the frames' blocks."""
    cross: Float[Tensor, "frames unknowns shared"]
    """The inverse factors times the mixed blocks."""
    right: Float[Tensor, "frames unknowns"]
    """The inverse factors times the right sides."""

    def frame_step(self, shared_step: Float[Tensor, " shared"]) -> Float[Tensor, "frames unknowns"]:
        """The step of the frames' unknowns that follows from that of the shared ones."""
        followed = (self.cross @ shared_step.to(self.cross)).to(self.right)
        return (self.inverse.mT @ (self.right - followed)[..., None])[..., 0]


def curvature(
    camera: Float[Tensor, "views frames 2 3"],
    rotated: Float[Tensor, "views frames points 3"],
    residual: Float[Tensor, "views frames points 2"],
    weight: Float[Tensor, "views frames points"],
) -> Curvature:
    """The quadratic form at an estimate.

    Args:
        camera: derivative of the image positions by the points of the unposed head.
        rotated: the landmarks, rotated and magnified.
    """
    views, frames = weight.shape[:2]
    lever = (rotated - rotated.mean(2, keepdim=True)).flatten(0, 1)
    # The points are magnified already. Rotation and magnification are about the mean of the landmarks; about any
    # other point they would be nearly the same as a shift.
    unit = WeakPerspective(scale=lever.new_ones(len(lever)), offset=lever.new_zeros(len(lever), 2))
    by_pose = pose_jacobian(unit, lever, lever).unflatten(0, (views, frames))
    weighted_pose = by_pose * weight[..., None, None]
    return Curvature(
        weight=weight,
        axes=camera.mT @ camera,
        point_right=(residual * weight[..., None]) @ camera,
        pose=weighted_pose.flatten(2, 3).mT @ by_pose.flatten(2, 3),
        pose_right=(weighted_pose.flatten(2, 3).mT @ residual.flatten(2)[..., None])[..., 0],
        pose_to_point=weighted_pose.permute(0, 1, 4, 2, 3) @ camera[:, :, None],
    )


def camera_rows(
    rotation: Float[Tensor, "views frames 3 3"], log_magnification: Float[Tensor, "views frames"]
) -> Float[Tensor, "views frames 2 3"]:
    """Derivative of the image positions by the points of the unposed head."""
    signs = rotation.new_tensor(HEAD_TO_IMAGE_SIGNS[:2])
    return rotation[..., :2, :] * signs[:, None] * log_magnification.exp()[..., None, None]


def eliminated(
    model: LinearModel,
    seen: Curvature,
    expression_residual: Float[Tensor, "frames expression"],
    dtype: torch.dtype,
) -> list[Eliminated]:
    """The equations of all frames, piece by piece.

    Args:
        expression_residual: the expressions minus their prior means.
        dtype: of the large products of second derivatives.
    """
    # Frames of one kind share products of matrices; side by side, they are in few pieces.
    order = model.kind[0].argsort(stable=True)
    pieces = order.split(max(1, IMAGES_AT_ONCE // len(model.kind)))

    def of_piece(piece: Int[Tensor, " piece"]) -> Eliminated:
        part = seen[:, piece]
        kind = model.kind[:, piece]
        matrix, right = frame_equations(model, part, kind, expression_residual[piece], dtype)
        identity = torch.eye(matrix.shape[-1]).to(matrix)
        inverse = torch.linalg.solve_triangular(cholesky(matrix), identity.expand_as(matrix), upper=False)
        cross = inverse.to(dtype) @ _mixed_blocks(model, part, kind, dtype)
        right = (inverse @ right[..., None])[..., 0]
        flat = cross.flatten(0, 1)
        shared_matrix, shared_right = _shared_equations(model, part, kind)
        return Eliminated(
            frames=piece,
            shared_matrix=shared_matrix - (flat.mT @ flat).to(shared_matrix),
            shared_right=shared_right - (flat.mT @ right.flatten().to(dtype)).to(shared_right),
            inverse=inverse,
            cross=cross,
            right=right,
        )

    return map_pieces(of_piece, pieces)


def frame_equations(
    model: LinearModel,
    seen: Curvature,
    kind: Int[Tensor, "views frames"],
    expression_residual: Float[Tensor, "frames expression"],
    dtype: torch.dtype,
) -> tuple[Float[Tensor, "frames unknowns unknowns"], Float[Tensor, "frames unknowns"]]:
    """Matrix and right side of every frame's expression and poses, with the prior of the expression and the damping.

    Args:
        expression_residual, dtype: as for `eliminated`.
    """
    views, frames = kind.shape
    size = model.expression_precision.shape[0]
    unknowns = size + views * POSE_SIZE
    matrix = DAMPING * torch.eye(unknowns).to(seen.weight).repeat(frames, 1, 1)
    matrix[:, :size, :size] += model.expression_precision
    right = seen.weight.new_zeros(frames, unknowns)
    right[:, :size] -= expression_residual @ model.expression_precision
    rounded = seen.to(dtype)
    for view, pose, number, index in _groups(kind, size):
        columns = model.by_expression[number]
        rounded_columns = columns.to(dtype)
        curved = _curved(rounded, view, index, rounded_columns)
        by_pose = (rounded.pose_to_point[view, index].flatten(2) @ rounded_columns).to(matrix)
        matrix[index, :size, :size] += (_axis_major(rounded_columns).mT @ curved).to(matrix)
        matrix[index, pose, :size] += by_pose
        matrix[index, :size, pose] += by_pose.mT
        matrix[index, pose, pose] += seen.pose[view, index]
        right[index, :size] += seen.point_right[view, index].flatten(1) @ columns
        right[index, pose] += seen.pose_right[view, index]
    return matrix, right


def cholesky(matrix: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """The Cholesky factor, NaN for a matrix that is not positive definite."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    return torch.where((failed > 0)[..., None, None], torch.nan, factor)


def _mixed_blocks(
    model: LinearModel, seen: Curvature, kind: Int[Tensor, "views frames"], dtype: torch.dtype
) -> Float[Tensor, "frames unknowns shared"]:
    """The blocks between the frames' unknowns and the shared ones.

    A displacement moves one landmark in one view: the columns of all displacements of a view are those of the
    coordinates of its unposed landmarks, and those of the identity code follow from these.
    """
    views, frames = kind.shape
    points, size = seen.weight.shape[2], model.by_expression.shape[-1]
    identities = model.num_identity
    seen = seen.to(dtype)
    mixed = seen.weight.new_zeros(frames, size + views * POSE_SIZE, identities + views * 3 * points)
    for view, pose, number, index in _groups(kind, size):
        first = identities + view * 3 * points
        moved = slice(first, first + 3 * points)
        by_expression, by_identity = (
            model.by_expression[number].to(dtype),
            model.by_identity[number].to(dtype),
        )
        curved = _curved(seen, view, index, by_expression)
        by_points = seen.pose_to_point[view, index].flatten(2)
        mixed[index, :size, :identities] += (_axis_major(by_identity).mT @ curved).mT
        mixed[index, pose, :identities] = by_points @ by_identity
        mixed[index, :size, moved] = curved.unflatten(1, (3, points)).permute(0, 3, 2, 1).flatten(2)
        mixed[index, pose, moved] = by_points
    return mixed


def _shared_equations(
    model: LinearModel, seen: Curvature, kind: Int[Tensor, "views frames"]
) -> tuple[Float[Tensor, "shared shared"], Float[Tensor, " shared"]]:
    """Matrix and right side of the shared unknowns, summed over the frames."""
    views, _ = kind.shape
    points, identities = seen.weight.shape[2], model.num_identity
    matrix = seen.weight.new_zeros(identities + views * 3 * points, identities + views * 3 * points)
    right = seen.weight.new_zeros(len(matrix))
    for view, _, number, index in _groups(kind, 0):
        first = identities + view * 3 * points
        moved = slice(first, first + 3 * points)
        by_identity = model.by_identity[number]
        summed = einsum(seen.weight[view, index], seen.axes[view, index], "t p, t a b -> p a b")
        by_points = (summed @ by_identity.unflatten(0, (points, 3))).flatten(0, 1)
        gradient = seen.point_right[view, index].sum(0).flatten()
        matrix[:identities, :identities] += by_identity.mT @ by_points
        matrix[moved, :identities] += by_points
        matrix[:identities, moved] += by_points.mT
        # The blocks on the diagonal are those of the landmarks.
        blocks = matrix[moved, moved].view(points, 3, points, 3).diagonal(dim1=0, dim2=2)
        blocks += summed.permute(1, 2, 0)
        right[:identities] += gradient @ by_identity
        right[moved] += gradient
    return matrix, right


def _groups(kind: Int[Tensor, "views frames"], expressions: int) -> Sequence[tuple[int, slice, int, Images]]:
    """Frames that share their derivatives: view, where its pose stands among the unknowns, kind, and frames."""
    return [
        (view, slice(first, first + POSE_SIZE), number, _as_slice((kind[view] == number).nonzero()[:, 0]))
        for view in range(len(kind))
        for first in (expressions + view * POSE_SIZE,)
        for number in kind[view].unique().tolist()
    ]


def _as_slice(index: Int[Tensor, " _"]) -> Images:
    """Numbers that follow each other as a slice, which spares a copy of everything that is indexed."""
    first, last = int(index[0]), int(index[-1])
    return slice(first, last + 1) if last - first == len(index) - 1 else index


def _curved(
    seen: Curvature, view: int, index: Images, columns: Float[Tensor, "coordinates code"]
) -> Float[Tensor, "images coordinates code"]:
    """Second derivative by the coordinates, axis by axis (all x, all y, all z), and by a code."""
    points = seen.weight.shape[2]
    by_axis = _axis_major(columns).unflatten(0, (3, points)).flatten(1)
    turned = seen.axes[view, index].flatten(0, 1) @ by_axis
    weighted = turned.view(-1, 3, points, columns.shape[-1]) * seen.weight[view, index][:, None, :, None]
    return weighted.flatten(1, 2)


def _axis_major(columns: Float[Tensor, "coordinates code"]) -> Float[Tensor, "coordinates code"]:
    """Rows point by point (x, y, z) as rows axis by axis."""
    return columns.unflatten(0, (-1, 3)).transpose(0, 1).flatten(0, 1)
