"""The normal equations of `neuface.fitting.person`, with the per-frame unknowns eliminated frame by frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuface.devices import map_pieces
from neuface.fitting.person.code_columns import CodeColumns
from neuface.fitting.person.linear_model import LinearModel
from neuface.geometry.pose_jacobian import POSE_SIZE, pose_jacobian
from neuface.structs import HEAD_TO_IMAGE_SIGNS, TensorStruct, WeakPerspective

__all__ = [
    "DAMPING",
    "Curvature",
    "Eliminated",
    "FrameEquations",
    "camera_rows",
    "cholesky",
    "curvature",
    "eliminated",
    "frame_equations",
    "pieces_of_frames",
    "shared_equations",
]

DAMPING = 1e-6
"""Added precision of the per-frame unknowns, per mm^2 or rad^2: keeps those that no landmark determines finite, such
as the pose of an image without landmarks."""
IMAGES_AT_ONCE = 24
"""Bounds the images whose equations are made and eliminated at once; pieces are divided among threads."""


@dataclass(frozen=True, kw_only=True)
class Curvature(TensorStruct):
    """The quadratic form of the weighted squared residuals, by the points of the unposed heads and by the poses."""

    weight: Float[Tensor, "views frames points"]
    """Of the squared residuals, per mm^2."""
    camera: Float[Tensor, "views frames 2 3"]
    """Derivative of the image positions by any point of the unposed head."""
    by_pose: Float[Tensor, "views frames 2 points 6"]
    """Derivative of the image positions by the pose."""
    point_right: Float[Tensor, "views frames 3 points"]
    pose_right: Float[Tensor, "views frames 6"]


@dataclass(frozen=True, kw_only=True)
class FrameEquations:
    """Equations of every frame's expression and poses."""

    matrix: Float[Tensor, "frames unknowns unknowns"]
    right: Float[Tensor, "frames unknowns"]
    weighted: tuple[Float[Tensor, "frames 2 points unknowns_of_view"], ...]
    """View by view: weights times the derivatives of the image positions by the expression and the view's pose."""

    def step(self) -> Float[Tensor, "frames unknowns"]:
        """The step of the frames' unknowns if the shared ones stay."""
        return torch.cholesky_solve(self.right[..., None], cholesky(self.matrix))[..., 0]


@dataclass(frozen=True, kw_only=True)
class Eliminated:
    """What some frames, whose own unknowns are expressed by the shared ones, take from these (Schur complement)."""

    frames: Int[Tensor, " frames"]
    """Which frames these are."""
    matrix: Float[Tensor, "shared shared"]
    right: Float[Tensor, " shared"]
    inverse: Float[Tensor, "frames unknowns unknowns"]
    """Inverse Cholesky factors of the frames' blocks."""
    cross: Float[Tensor, "frames unknowns shared"]
    """The inverse factors times the mixed blocks."""
    frame_right: Float[Tensor, "frames unknowns"]
    """The inverse factors times the right sides."""

    def frame_step(self, shared_step: Float[Tensor, " shared"]) -> Float[Tensor, "frames unknowns"]:
        """The step of the frames' unknowns that follows from that of the shared ones."""
        followed = (self.cross @ shared_step.to(self.cross)).to(self.frame_right)
        return (self.inverse.mT @ (self.frame_right - followed)[..., None])[..., 0]


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
    by_pose = pose_jacobian(unit, lever, lever).transpose(1, 2).contiguous().unflatten(0, (views, frames))
    weighted = (residual * weight[..., None]).mT
    return Curvature(
        weight=weight,
        camera=camera,
        by_pose=by_pose,
        point_right=camera.mT @ weighted,
        pose_right=(weighted.flatten(2)[..., None, :] @ by_pose.flatten(2, 3))[..., 0, :],
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
    """What is subtracted from `shared_equations`, piece by piece.

    Args:
        expression_residual: the expressions minus their prior means.
        dtype: of the large products of second derivatives.
    """
    by_identity, by_expression = model.by_identity.to(dtype), model.by_expression.to(dtype)

    def of_piece(piece: Int[Tensor, " piece"]) -> Eliminated:
        kind = model.kind[:, piece]
        own = frame_equations(model, by_expression, seen[:, piece], kind, expression_residual[piece])
        identity = torch.eye(own.matrix.shape[-1]).to(own.matrix)
        inverse = torch.linalg.solve_triangular(
            cholesky(own.matrix), identity.expand_as(own.matrix), upper=False
        )
        cross = _cross(by_identity, inverse.to(dtype), seen.camera[:, piece].to(dtype), kind, own.weighted)
        right = (inverse @ own.right[..., None])[..., 0]
        flat = cross.flatten(0, 1)
        return Eliminated(
            frames=piece,
            matrix=_gram(flat, model.num_identity).to(inverse),
            right=(flat.mT @ right.flatten().to(dtype)).to(inverse),
            inverse=inverse,
            cross=cross,
            frame_right=right,
        )

    return map_pieces(of_piece, pieces_of_frames(model.kind))


def pieces_of_frames(kind: Int[Tensor, "views frames"]) -> tuple[Int[Tensor, " piece"], ...]:
    """All frames, in pieces of IMAGES_AT_ONCE images; those of one kind, which share products, side by side."""
    return kind[0].argsort(stable=True).split(max(1, IMAGES_AT_ONCE // len(kind)))


def frame_equations(
    model: LinearModel,
    by_expression: CodeColumns,
    seen: Curvature,
    kind: Int[Tensor, "views frames"],
    expression_residual: Float[Tensor, "frames expression"],
) -> FrameEquations:
    """Equations of some frames, with the prior of the expression and the damping.

    Args:
        by_expression: the model's, in the precision of the large products of second derivatives.
        seen, kind, expression_residual: of these frames; `expression_residual` as for `eliminated`.
    """
    views, frames = kind.shape
    size = model.expression_precision.shape[0]
    unknowns = size + views * POSE_SIZE
    matrix = DAMPING * torch.eye(unknowns).to(seen.weight).repeat(frames, 1, 1)
    matrix[:, :size, :size] += model.expression_precision
    right = seen.weight.new_zeros(frames, unknowns)
    right[:, :size] -= expression_residual @ model.expression_precision
    rounded = seen.to(by_expression.table.dtype)
    weighted = []
    for view in range(views):
        pose = _pose_of(view, size)
        derivative = torch.cat(
            (by_expression.in_image(kind[view], rounded.camera[view]), rounded.by_pose[view]), -1
        )
        weighted.append(derivative * rounded.weight[view][:, None, :, None])
        curved = (weighted[-1].flatten(1, 2).mT @ derivative.flatten(1, 2)).to(matrix)
        matrix[:, :size, :size] += curved[:, :size, :size]
        matrix[:, :size, pose] = curved[:, :size, size:]
        matrix[:, pose, :size] = curved[:, size:, :size]
        matrix[:, pose, pose] += curved[:, size:, size:]
        right[:, :size] += model.by_expression.contracted(
            kind[view], seen.point_right[view].flatten(1)[:, None]
        )[:, 0]
        right[:, pose] += seen.pose_right[view]
    return FrameEquations(matrix=matrix, right=right, weighted=tuple(weighted))


def cholesky(matrix: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """The Cholesky factor, NaN for a matrix that is not positive definite."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    return torch.where((failed > 0)[..., None, None], torch.nan, factor)


def _cross(
    by_identity: CodeColumns,
    inverse: Float[Tensor, "frames unknowns unknowns"],
    camera: Float[Tensor, "views frames 2 3"],
    kind: Int[Tensor, "views frames"],
    weighted: tuple[Float[Tensor, "frames 2 points unknowns_of_view"], ...],
) -> Float[Tensor, "frames unknowns shared"]:
    """The inverse factors times the blocks between the frames' unknowns and the shared ones.

    A displacement moves one landmark in one view: the columns of all displacements of a view are those of the
    coordinates of its unposed landmarks, and those of the identity code follow from these.
    """
    views, frames = kind.shape
    points, identities = weighted[0].shape[2], by_identity.size
    size = weighted[0].shape[3] - POSE_SIZE
    cross = inverse.new_zeros(frames, inverse.shape[-1], identities + views * 3 * points)
    for view in range(views):
        by_points = (camera[view].mT @ weighted[view].flatten(2)).view(frames, 3 * points, -1)
        own = torch.cat((inverse[..., :size], inverse[..., _pose_of(view, size)]), -1)
        moved = own @ by_points.mT
        cross[..., _moved_of(view, identities, points)] = moved
        cross[..., :identities] += by_identity.contracted(kind[view], moved)
    return cross


def shared_equations(
    model: LinearModel, seen: Curvature
) -> tuple[Float[Tensor, "shared shared"], Float[Tensor, " shared"]]:
    """Matrix and right side of the shared unknowns, summed over the frames, while the frames' unknowns stay."""
    points, identities = seen.weight.shape[2], model.num_identity
    matrix = seen.weight.new_zeros(len(model.shared_mean), len(model.shared_mean))
    right = seen.weight.new_zeros(len(matrix))
    for view, kind in enumerate(model.kind):
        moved = _moved_of(view, identities, points)
        axes = seen.camera[view].mT @ seen.camera[view]
        by_image = seen.weight[view][..., None] * axes.flatten(1)[:, None]
        of_kinds = by_image.new_zeros(len(model.by_identity.table), *by_image.shape[1:])
        of_kinds = of_kinds.index_add(0, kind, by_image).unflatten(-1, (3, 3))
        by_points = matrix.new_zeros(3, points, identities)
        for number in kind.unique().tolist():
            by_identity = model.by_identity.table[number]
            of_kind = (of_kinds[number] @ by_identity.transpose(0, 1)).transpose(0, 1)
            by_points += of_kind
            matrix[:identities, :identities] += by_identity.flatten(0, 1).mT @ of_kind.flatten(0, 1)
        matrix[moved, :identities] += by_points.flatten(0, 1)
        matrix[:identities, moved] += by_points.flatten(0, 1).mT
        # The blocks on the diagonal are those of the landmarks.
        blocks = matrix[moved, moved].view(3, points, 3, points).diagonal(dim1=1, dim2=3)
        blocks += of_kinds.sum(0).permute(1, 2, 0)
        gradient = seen.point_right[view].flatten(1)[:, None]
        right[:identities] += model.by_identity.contracted(kind, gradient).sum((0, 1))
        right[moved] += seen.point_right[view].sum(0).flatten()
    return matrix, right


def _gram(rows: Float[Tensor, "rows columns"], first: int) -> Float[Tensor, "columns columns"]:
    """`rows.mT @ rows`; of its two blocks off the diagonal, one is computed. `first` columns end the first block."""
    start, end = rows[:, :first], rows[:, first:]
    gram = rows.new_empty(rows.shape[1], rows.shape[1])
    gram[:first] = start.mT @ rows
    gram[first:, :first] = gram[:first, first:].mT
    gram[first:, first:] = end.mT @ end
    return gram


def _pose_of(view: int, expressions: int) -> slice:
    """Where a view's pose stands among the unknowns of a frame."""
    first = expressions + view * POSE_SIZE
    return slice(first, first + POSE_SIZE)


def _moved_of(view: int, identities: int, points: int) -> slice:
    """Where a view's displacements stand among the shared unknowns."""
    first = identities + view * 3 * points
    return slice(first, first + 3 * points)
