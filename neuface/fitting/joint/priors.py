"""What the terms beside the landmarks say about codes, poses and identity: quadratics that touch them from above."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.fitting.calibrated import CalibratedTarget, face_middle, fitted_views
from neuface.fitting.joint.equations import FrameEquations
from neuface.fitting.joint.smoothness import Pull
from neuface.fitting.landmark_derivatives import landmark_derivatives
from neuface.fitting.objective import Batch, Objective
from neuface.fitting.problem import Problem
from neuface.fitting.targets import Targets
from neuface.geometry.pose_jacobian import POSE_SIZE, pose_jacobian
from neuface.geometry.rotations import quaternion_to_rotvec, rotmat_to_rotvec, rotvec_to_rotmat
from neuface.head.model import HeadModel
from neuface.losses import log_scale
from neuface.structs import HeadParams, Prediction

__all__ = [
    "ExpectedExpression",
    "add_calibrated",
    "add_code_priors",
    "expected_expression",
    "fixed_size",
    "identity_prior",
    "smoothness_pulls",
]

ROTATION_SOFTNESS_RAD = 2e-4
"""Bound of a distance to the smoothed orientation below which its square counts in place of its size, radians."""
CAMERA_SOFTNESS = 2e-4
"""Likewise of positions, crop half-widths, and of log sizes."""
CODE_SOFTNESS = 1e-2
"""Likewise of expression coefficients, of which 1 is a full expression."""
VIEW_SOFTNESS = 1e-3
"""Likewise of the distance to what calibrated cameras see: radians, crop half-widths, log sizes."""
SIZE_STIFFNESS = 1e6
"""Added to the identity's equations along the size direction, as a multiple of their mean diagonal: it fixes the
size, which no camera determines."""
SMALL_TURN_RAD = 1e-6
"""A rotation of the jaw that is not zero and changes no derivative, radians."""
ROTATION, LOG_MAGNIFICATION, POSITION = slice(0, 3), slice(3, 4), slice(4, 6)
"""The six numbers of a pose (`pose_jacobian`)."""


def smoothness_pulls(
    objective: Objective, prediction: Prediction, problem: Problem, targets: Targets
) -> list[Pull]:
    """The terms that compare poses with their smoothed trajectories."""
    images = problem.views * problem.time
    pulls = []
    if objective.temporal is not None:
        rotation = rotvec_to_rotmat(prediction.params.root_rotvec)
        smoothed = rotvec_to_rotmat(quaternion_to_rotvec(targets["temporal"].value))
        # The distance of quaternions is half the angle.
        turn = rotmat_to_rotvec(smoothed @ rotation.mT)
        weight = objective.temporal.weight / (2 * images) / _size(turn, ROTATION_SOFTNESS_RAD)
        pulls.append(Pull(channels=ROTATION, distance=turn, weight=weight, unit=torch.ones_like(weight)))
    if objective.camera_smoothness is not None:
        weight, camera = objective.camera_smoothness.weight / images, prediction.camera
        smoothed = targets["camera_smoothness"].value
        growth = (log_scale(smoothed.magnification) - log_scale(camera.magnification))[..., None]
        size_weight = weight / _size(growth, CAMERA_SOFTNESS)
        unit = torch.ones_like(size_weight)
        pulls.append(Pull(channels=LOG_MAGNIFICATION, distance=growth, weight=size_weight, unit=unit))
        # Positions are smoothed in pixels of the frame, because crops move and change their size.
        per_px = problem.ndc_per_frame_px
        shift = smoothed.position - camera.position
        pulls.append(
            Pull(
                channels=POSITION,
                distance=shift / per_px[..., None],
                weight=weight / _size(shift, CAMERA_SOFTNESS) * per_px.square(),
                unit=1 / per_px,
            )
        )
    return pulls


@dataclass(frozen=True, kw_only=True)
class ExpectedExpression:
    """The expression that the person's estimate expects, as seen on landmarks."""

    jacobian: Float[Tensor, "coordinates code"]
    """Of the unposed mean face's landmarks by the code of a frame, metres."""
    gram: Float[Tensor, "code code"]


def add_code_priors(
    equations: FrameEquations,
    objective: Objective,
    batch: Batch,
    rows: dict[str, Any],
    expected: ExpectedExpression,
) -> None:
    """Add the terms of expression and jaw to the equations of some frames.

    Args:
        batch: the images of these frames, view by view.
        rows: the targets of these images.
    """
    frames = len(equations.code_right)
    params = batch.prediction.params[:frames]
    time, size = batch.problem.time, params.expression.shape[-1]
    diagonal = equations.code.diagonal(dim1=1, dim2=2)
    right = equations.code_right
    if objective.expression_prior is not None:
        weight = 2 * objective.expression_prior.weight / (time * size)
        diagonal[:, :size] += weight
        right[:, :size] -= weight * params.expression
    if objective.expression_smoothness is not None:
        distance = rows["expression_smoothness"][:frames] - params.expression
        weight = (
            objective.expression_smoothness.weight / (time * size) / distance.abs().clamp(min=CODE_SOFTNESS)
        )
        diagonal[:, :size] += weight
        right[:, :size] += weight * distance
    if objective.jaw_smoothness is not None and right.shape[-1] > size:
        distance = _nearest_rotvec(rows["jaw_smoothness"][:frames], params) - params.jaw_rotvec
        weight = objective.jaw_smoothness.weight / (2 * time) / _size(distance, ROTATION_SOFTNESS_RAD)
        diagonal[:, size:] += weight[:, None]
        right[:, size:] += weight[:, None] * distance
    term = "expected_expression"
    if term in rows:
        residual = rows[term][:frames] - batch.expression_landmarks[:frames]
        points = residual.shape[1]
        # The term is in square millimetres.
        weight = 2e6 * objective.weights()[term] / (time * points)
        equations.code.add_(weight * expected.gram)
        right.add_(weight * residual.flatten(1) @ expected.jacobian)


def identity_prior(
    objective: Objective,
    identity: Float[Tensor, " identity"],
    expected: Float[Tensor, " identity"],
    views: int,
) -> tuple[Float[Tensor, "identity identity"], Float[Tensor, " identity"]]:
    """What the prior of the identity adds to its equations."""
    prior, size = objective.identity_prior, len(identity)
    weight = 0.0 if prior is None else 2 * prior.weight / (views * size)
    matrix = weight * torch.eye(size, dtype=torch.float64, device=identity.device)
    return matrix, weight * (expected - identity).double()


def fixed_size(
    matrix: Float[Tensor, "identity identity"], direction: Float[Tensor, " identity"]
) -> Float[Tensor, "identity identity"]:
    """What keeps a step of the identity from changing the size of the face, for equations with this matrix."""
    stiffness = SIZE_STIFFNESS * matrix.diagonal().mean()
    return stiffness * torch.outer(direction, direction).double()


def add_calibrated(
    equations: FrameEquations, weight: float, batch: Batch, target: CalibratedTarget, views: int
) -> None:
    """Add the distance of every view's head to the pose in the world that all views agree on, which stays fixed."""
    prediction = batch.prediction
    params, camera = prediction.params, prediction.camera
    middle = face_middle(batch.head, params, batch.problem.scheme)
    seen = fitted_views(prediction, middle)
    rotation = rotvec_to_rotmat(params.root_rotvec)
    joint = batch.head.joints(params)[..., 0, :]
    lever = middle - (joint - (rotation @ joint[..., None])[..., 0])
    by_pose = pose_jacobian(camera, middle[:, None], lever[:, None])[:, 0]
    # From the axes of the head frame to those of the line of sight.
    sight = seen.rotation @ rotation.mT
    turn = rotmat_to_rotvec(sight.mT @ target.view.rotation @ seen.rotation.mT @ sight)
    shift = target.view.position - seen.position
    growth = (log_scale(target.view.magnification) - log_scale(seen.magnification))[..., None]
    images = batch.images_in_clip
    share = weight * target.weight / images
    matrix = equations.pose.new_zeros(len(share), POSE_SIZE, POSE_SIZE)
    right = equations.pose.new_zeros(len(share), POSE_SIZE)
    for channels, distance, factor in ((ROTATION, turn, share / 2), (LOG_MAGNIFICATION, growth, share)):
        pull = (factor / _size(distance, VIEW_SOFTNESS))[:, None]
        matrix.diagonal(dim1=1, dim2=2)[:, channels] += pull
        right[:, channels] += pull * distance
    pull = (share / _size(shift, VIEW_SOFTNESS))[:, None, None]
    matrix += pull * (by_pose.mT @ by_pose)
    right += (pull * by_pose.mT @ shift[..., None])[..., 0]
    frames = len(right) // views
    for view in range(views):
        block = slice(view * POSE_SIZE, (view + 1) * POSE_SIZE)
        of_view = slice(view * frames, (view + 1) * frames)
        equations.pose[:, block, block] += matrix[of_view]
        equations.pose_right[:, block] += right[of_view]


def _nearest_rotvec(quaternion: Float[Tensor, "frames 4"], params: HeadParams) -> Float[Tensor, "frames 3"]:
    """Rotation vectors of the target rotations, near those of the jaws."""
    turn = rotmat_to_rotvec(
        rotvec_to_rotmat(quaternion_to_rotvec(quaternion)) @ rotvec_to_rotmat(params.jaw_rotvec).mT
    )
    return params.jaw_rotvec + turn


def _size(distance: Float[Tensor, "*batch c"], softness: float) -> Float[Tensor, "*batch"]:
    return distance.norm(dim=-1).clamp(min=softness)


def expected_expression(
    head: HeadModel, scheme: str, *, expression_size: int, with_jaw: bool
) -> ExpectedExpression:
    """The derivatives that the term of the expected expression has at rest, by so many coefficients."""
    neutral = head.neutral(1, 1)
    neutral = replace(neutral, expression=neutral.expression[..., :expression_size])
    if with_jaw:
        # A jaw that never moves has no column.
        neutral = replace(neutral, jaw_rotvec=torch.full_like(neutral.jaw_rotvec, SMALL_TURN_RAD))
    jacobian = landmark_derivatives(head, neutral, scheme).by_expression[0].flatten(0, 1)
    return ExpectedExpression(jacobian=jacobian, gram=jacobian.mT @ jacobian)
