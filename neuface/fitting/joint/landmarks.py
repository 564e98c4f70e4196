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
from neuface.structs import Camera, WeakPerspective

__all__ = ["CodeBasis", "code_basis", "landmark_equations"]

LANDMARK_SOFTNESS_NDC = 1e-2
"""Bound of a residual below which its square counts in place of its size, crop half-widths: the noise of landmarks.
An absolute value would follow as many noisy landmarks exactly as there are unknowns."""


@dataclass(frozen=True, kw_only=True)
class CodeBasis:
    """How the landmarks of every kind of image move with the codes, metres per unit."""

    kind: Int[Tensor, "views time"]
    """Which columns an image has (`LandmarkDerivatives`)."""
    columns: Float[Tensor, "kinds 3 points codes"]
    """The unposed landmarks, axis by axis, by the code of a frame and, behind it, by the identity code."""
    frame_code: int
    """How many of the columns belong to the code of a frame."""


def code_basis(derivatives: LandmarkDerivatives, *, with_identity: bool) -> CodeBasis:
    """The basis; without the columns of the identity, it does not move."""
    by_identity = derivatives.by_identity if with_identity else derivatives.by_identity[..., :0]
    return CodeBasis(
        kind=derivatives.kind,
        columns=torch.cat((derivatives.by_expression, by_identity), -1).transpose(1, 2).contiguous(),
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
    views, frames = kind.shape
    code, width = basis.frame_code, basis.columns.shape[-1]
    residual, weight = _weighted_residuals(batch, term)
    by_point, by_pose = _by_point_and_pose(batch)
    # Image coordinates follow each other axis by axis: all x, then all y.
    by_pose = by_pose.transpose(1, 2).flatten(1, 2)
    weighted_point = (weight[..., None] * by_point).transpose(-1, -2)
    curvature = weighted_point @ by_point
    gradient = (weighted_point @ residual[..., None])[..., 0]
    by_code = by_pose.new_empty(*by_pose.shape[:2], width)
    identity = by_pose.new_zeros(width - code, width - code)
    identity_right = by_pose.new_zeros(width - code)
    for number in kind.unique().tolist():
        index = (kind.flatten() == number).nonzero()[:, 0]
        columns = basis.columns[number]
        by_code[index] = _in_image(by_point[index], columns, batch.prediction.camera)
        of_identity = columns[..., code:]
        moved = einsum(curvature[index].sum(0), of_identity, "p c d, d p i -> c p i")
        identity = identity + of_identity.flatten(0, 1).mT @ moved.flatten(0, 1)
        identity_right = identity_right + einsum(gradient[index].sum(0), of_identity, "p c, c p i -> i")
    left = torch.cat((by_code[..., :code], by_pose), -1) * weight.transpose(1, 2).flatten(1)[..., None]
    matrix = (left.mT @ by_code).unflatten(0, (views, frames))
    pose = (left[..., code:].mT @ by_pose).unflatten(0, (views, frames))
    right = (left.mT @ residual.transpose(1, 2).flatten(1)[..., None])[..., 0].unflatten(0, (views, frames))
    poses = views * POSE_SIZE
    of_codes, of_poses = matrix.split((code, POSE_SIZE), 2)
    return FrameEquations(
        code=of_codes[..., :code].sum(0),
        code_pose=of_poses[..., :code].permute(1, 3, 0, 2).reshape(frames, code, poses),
        code_identity=of_codes[..., code:].sum(0),
        code_right=right[..., :code].sum(0),
        pose=_block_diagonal(pose),
        pose_identity=of_poses[..., code:].transpose(0, 1).reshape(frames, poses, width - code),
        pose_right=right[..., code:].transpose(0, 1).flatten(1),
        identity=identity,
        identity_right=identity_right,
    )


def _weighted_residuals(
    batch: Batch, term: LandmarkTerm
) -> tuple[Float[Tensor, "images points 2"], Float[Tensor, "images points 2"]]:
    """Residuals r, and the weights w of the quadratics w r^2 / 2 that stand for their penalties."""
    problem = batch.problem
    confidence = problem.confidence.flatten(0, 1)[batch.index]
    observed = problem.observed_ndc(batch.index)
    residual = torch.where(confidence[..., None] > 0, observed - batch.landmarks_ndc, 0.0)
    share = term.weight * confidence / confidence.sum(-1, keepdim=True).clamp(min=1e-9)
    weight = share[..., None] / residual.abs().clamp(min=LANDMARK_SOFTNESS_NDC)
    if term.penalty == "saturating":
        distance = residual.abs().sum(-1, keepdim=True)
        weight = weight * (SATURATION_NDC / (distance + SATURATION_NDC)).square()
    return residual, weight / problem.valid.sum()


def _by_point_and_pose(
    batch: Batch,
) -> tuple[Float[Tensor, "images points 2 3"], Float[Tensor, "images points 2 6"]]:
    """Derivatives of the landmarks in the image by the points of the unposed head, and by the pose."""
    prediction = batch.prediction
    rotation = rotvec_to_rotmat(prediction.params.root_rotvec)
    # A head turns about its root joint. Turned about the origin instead, it is elsewhere in the image, and that is a
    # matter of its position, which the solver moves as well.
    joint = batch.head.joints(prediction.params)[..., 0, :]
    lever = batch.landmarks - (joint - (rotation @ joint[..., None])[..., 0])[:, None]
    by_pose = pose_jacobian(prediction.camera, batch.landmarks, lever)
    return prediction.camera.jacobian(batch.landmarks) @ rotation[:, None], by_pose


def _in_image(
    by_point: Float[Tensor, "images points 2 3"], columns: Float[Tensor, "3 points codes"], camera: Camera
) -> Float[Tensor, "images coordinates codes"]:
    """How the codes move the landmarks in the image, axis by axis."""
    if isinstance(camera, WeakPerspective):
        # All points of an image move alike.
        return (by_point[:, 0].flatten(0, 1) @ columns.flatten(1)).view(len(by_point), -1, columns.shape[-1])
    return einsum(by_point, columns, "n p a c, c p m -> n a p m").flatten(1, 2)


def _block_diagonal(blocks: Float[Tensor, "views frames n n"]) -> Float[Tensor, "frames wide wide"]:
    """The blocks of the views on the diagonal, zeros elsewhere: poses of different views meet in no landmark."""
    views, frames, size, _ = blocks.shape
    wide = blocks.new_zeros(frames, views, size, views, size)
    for view in range(views):
        wide[:, view, :, view] = blocks[view]
    return wide.flatten(3).flatten(1, 2)
