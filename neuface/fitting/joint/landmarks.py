"""What the landmarks of some frames say about their codes, their poses and the identity: Gauss-Newton equations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from neuface.fitting.joint.equations import FrameEquations
from neuface.fitting.landmark_derivatives import LandmarkDerivatives
from neuface.fitting.objective import Batch, LandmarkTerm
from neuface.geometry.pose_jacobian import POSE_SIZE, pose_jacobian
from neuface.geometry.rotations import rotvec_to_rotmat
from neuface.losses import SATURATION_NDC

__all__ = ["CodeBasis", "code_basis", "landmark_equations"]

LANDMARK_SOFTNESS_NDC = 1e-2
"""Bound of a residual below which its square counts in place of its size, crop half-widths: the noise of landmarks.
An absolute value would follow as many noisy landmarks exactly as there are unknowns."""


@dataclass(frozen=True, kw_only=True)
class CodeBasis:
    """How the landmarks of every kind of image move with the codes, metres per unit."""

    kind: Int[Tensor, "views time"]
    columns: Float[Tensor, "kinds coordinates codes"]
    """Three coordinates of every unposed landmark, by the code of a frame and, behind it, by the identity code."""
    frame_code: int
    """How many of the columns belong to the code of a frame."""


def code_basis(derivatives: LandmarkDerivatives, *, with_identity: bool) -> CodeBasis:
    """The basis; without the columns of the identity, it does not move."""
    by_identity = derivatives.by_identity if with_identity else derivatives.by_identity[..., :0]
    return CodeBasis(
        kind=derivatives.kind,
        columns=torch.cat((derivatives.by_expression, by_identity), -1).flatten(1, 2),
        frame_code=derivatives.by_expression.shape[-1],
    )


def landmark_equations(
    batch: Batch, term: LandmarkTerm, basis: CodeBasis, kind: Int[Tensor, "views frames"]
) -> FrameEquations:
    """The equations of some frames in all their views.

    Args:
        batch: the images of these frames, view by view.
        kind: of these images.
    """
    seen = _observations(batch, term)
    views, frames = kind.shape
    code, width = basis.frame_code, basis.columns.shape[-1]
    images, points = seen.residual.shape[:2]
    rows = seen.residual.new_zeros(images, code + POSE_SIZE, width)
    right = seen.residual.new_zeros(images, width)
    identity = right.new_zeros(width - code, width - code)
    for number in kind.unique().tolist():
        index = (kind.flatten() == number).nonzero()[:, 0]
        columns = basis.columns[number]
        by_code = seen.curvature[index] @ columns[:, :code].unflatten(0, (points, 3))
        left = torch.cat((by_code.flatten(1, 2).mT, seen.pose_to_head[index]), 1)
        rows[index] = left @ columns
        right[index] = seen.gradient[index].flatten(1) @ columns
        by_identity = columns[:, code:]
        summed = seen.curvature[index].sum(0) @ by_identity.unflatten(0, (points, 3))
        identity = identity + by_identity.mT @ summed.flatten(0, 1)
    of_codes, of_poses = rows.unflatten(0, (views, frames)).split((code, POSE_SIZE), 2)
    right = right.unflatten(0, (views, frames))
    poses = views * POSE_SIZE
    by_view = seen.pose.unflatten(0, (views, frames))
    return FrameEquations(
        code=of_codes[..., :code].sum(0),
        code_pose=of_poses[..., :code].permute(1, 3, 0, 2).reshape(frames, code, poses),
        code_identity=of_codes[..., code:].sum(0),
        code_right=right[..., :code].sum(0),
        pose=_block_diagonal(by_view),
        pose_identity=of_poses[..., code:].transpose(0, 1).reshape(frames, poses, width - code),
        pose_right=seen.pose_right.unflatten(0, (views, frames)).transpose(0, 1).flatten(1),
        identity=identity,
        identity_right=right[..., code:].sum((0, 1)),
    )


@dataclass(frozen=True, kw_only=True)
class _Observations:
    """The quadratic form of the landmarks of some images, by the points of the unposed head and by the pose."""

    residual: Float[Tensor, "images points 2"]
    curvature: Float[Tensor, "images points 3 3"]
    """Second derivative by the position of a point, in the axes of the unposed head."""
    gradient: Float[Tensor, "images points 3"]
    pose: Float[Tensor, "images 6 6"]
    pose_right: Float[Tensor, "images 6"]
    pose_to_head: Float[Tensor, "images 6 coordinates"]
    """Mixed second derivative by the pose and the points."""


def _observations(batch: Batch, term: LandmarkTerm) -> _Observations:
    prediction, problem = batch.prediction, batch.problem
    confidence = problem.confidence.flatten(0, 1)[batch.index]
    observed = problem.observed_ndc.flatten(0, 1)[batch.index]
    residual = torch.where(confidence[..., None] > 0, observed - batch.landmarks_ndc, 0.0)
    weight = _weights(residual, confidence, term) / problem.valid.sum()
    # A head turns about its root joint. Turned about the origin instead, it is elsewhere in the image, and that is a
    # matter of its position, which the solver moves as well.
    rotation = rotvec_to_rotmat(prediction.params.root_rotvec)
    joint = batch.head.joints(prediction.params)[..., 0, :]
    lever = batch.landmarks - (joint - (rotation @ joint[..., None])[..., 0])[:, None]
    by_pose = pose_jacobian(prediction.camera, batch.landmarks, lever)
    by_point = prediction.camera.jacobian(batch.landmarks) @ rotation[:, None]
    weighted_point = weight[..., None] * by_point
    weighted_pose = weight[..., None] * by_pose
    return _Observations(
        residual=residual,
        curvature=weighted_point.mT @ by_point,
        gradient=(weighted_point * residual[..., None]).sum(-2),
        pose=weighted_pose.flatten(1, 2).mT @ by_pose.flatten(1, 2),
        pose_right=einsum(weighted_pose, residual, "n p a x, n p a -> n x"),
        pose_to_head=einsum(weighted_pose, by_point, "n p a x, n p a c -> n x p c").flatten(2),
    )


def _weights(
    residual: Float[Tensor, "images points 2"], confidence: Float[Tensor, "images points"], term: LandmarkTerm
) -> Float[Tensor, "images points 2"]:
    """Weights w of the quadratic w r^2 / 2 that stands for the penalty of every coordinate at its residual r."""
    share = term.weight * confidence / confidence.sum(-1, keepdim=True).clamp(min=1e-9)
    weight = share[..., None] / residual.abs().clamp(min=LANDMARK_SOFTNESS_NDC)
    if term.penalty == "saturating":
        distance = residual.abs().sum(-1, keepdim=True)
        weight = weight * (SATURATION_NDC / (distance + SATURATION_NDC)).square()
    return weight


def _block_diagonal(blocks: Float[Tensor, "views frames n n"]) -> Float[Tensor, "frames wide wide"]:
    """The blocks of the views on the diagonal, zeros elsewhere: poses of different views meet in no landmark."""
    views, frames, size, _ = blocks.shape
    wide = blocks.new_zeros(frames, views, size, views, size)
    for view in range(views):
        wide[:, view, :, view] = blocks[view]
    return wide.flatten(3).flatten(1, 2)
