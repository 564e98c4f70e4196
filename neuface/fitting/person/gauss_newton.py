"""The solver of `neuface.fitting.person`: Gauss-Newton iterations on all unknowns of a clip.

Shared unknowns (identity code and displacements) are few and in every image; per-frame unknowns (expression, and the
pose and camera of every view) are many, but each is in one frame only. The per-frame unknowns are eliminated from the
normal equations frame by frame (the Schur complement), so that the cost grows with the number of frames and no
faster.

The letters of `torch.einsum` below:

    v view    t frame    p landmark    a axis of the image    b, c, d axes of the head
    i, j identity code   e expression code    n, m per-frame unknown    g, h shared unknown
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.fitting.person.linear_model import MM_PER_METRE, LinearModel, observed_mm
from neuface.geometry.head_perspective import Perspective
from neuface.geometry.pose_jacobian import POSE_SIZE, pose_jacobian
from neuface.geometry.rotations import rotvec_to_rotmat
from neuface.structs import HEAD_TO_IMAGE_SIGNS, WeakPerspective

__all__ = [
    "ITERATIONS",
    "Estimate",
    "Iteration",
    "PredictedLandmarks",
    "fit_frames",
    "gauss_newton_step",
    "initial_estimate",
    "inverse_variances",
    "predict",
    "robust_weights",
    "shared_precision",
    "without_perspective",
]

ITERATIONS = 10
"""Gauss-Newton iterations of one solution."""
DEGREES_OF_FREEDOM = 4.0
"""Of Student's t, the distribution of a landmark's noise; fewer give wild points less weight."""
INITIAL_NOISE_MM, INITIAL_DISPLACEMENT_MM = 0.6, 1.0
"""Scales sigma and s from which expectation maximisation starts, mm."""
DAMPING = 1e-6
"""Added precision of the per-frame unknowns, per mm^2 or rad^2: keeps those that no landmark determines finite, such
as the pose of an image without landmarks."""
SIZE_PRECISION = 1e9
"""Added precision of the identity code along the size direction, which fixes the size; others are of order 1 to
1e5."""
LARGEST_STEP = 0.3
"""Bound of one iteration's rotation (radians) and change of log magnification: the linearisation is not valid beyond
it."""
IMAGE_SIGNS = HEAD_TO_IMAGE_SIGNS[:2]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The unknowns, and the scales of the priors that are estimated with them."""

    shared: Float[Tensor, " shared"]
    """Identity code and displacements (mm), in the order of `LinearModel.shared_mean`."""
    expression: Float[Tensor, "frames expression"]
    rotation: Float[Tensor, "views frames 3 3"]
    log_magnification: Float[Tensor, "views frames"]
    """Relative to the initial camera."""
    shift: Float[Tensor, "views frames 2"]
    """Image position of the head frame's origin, mm."""
    noise_mm: float = INITIAL_NOISE_MM
    """Scale of the noise, sigma."""
    displacement_mm: float = INITIAL_DISPLACEMENT_MM
    """Standard deviation of the displacements, s."""
    correlation: float = 0.0
    """Of the noise of consecutive frames, rho."""


@dataclass(frozen=True, kw_only=True)
class PredictedLandmarks:
    """Where an estimate predicts the landmarks, mm."""

    rotated: Float[Tensor, "views frames points 3"]
    """Rotated and magnified, in the axes of the head frame, without the shift in the image."""
    image: Float[Tensor, "views frames points 2"]
    """Image positions."""


def initial_estimate(model: LinearModel, person: Estimate | None = None) -> Estimate:
    """The encoder's poses with the mean expression, for the mean person or for one who has been estimated.

    The shift of every image is the one that fits best.
    """
    views, frames = model.mean.shape[:2]
    zero = model.mean.new_zeros(views, frames)
    estimate = Estimate(
        shared=model.shared_mean if person is None else person.shared,
        expression=model.expression_mean,
        rotation=model.initial_rotation,
        log_magnification=zero,
        shift=zero[..., None].expand(-1, -1, 2),
    )
    if person is not None:
        estimate = replace(
            estimate,
            noise_mm=person.noise_mm,
            displacement_mm=person.displacement_mm,
            correlation=person.correlation,
        )
    residual = (model.observed - predict(model, estimate).image) * model.confidence[..., None]
    shift = residual.sum(2) / model.confidence.sum(-1, keepdim=True).clamp(min=1e-9)
    return replace(estimate, shift=shift)


def predict(model: LinearModel, estimate: Estimate) -> PredictedLandmarks:
    """The landmarks of every image in use, in 3D and in the image."""
    identity, displacement = estimate.shared[: model.num_identity], estimate.shared[model.num_identity :]
    unposed = model.mean + torch.einsum("vtpci, i -> vtpc", model.by_identity, identity)
    unposed = unposed + torch.einsum("vtpce, te -> vtpc", model.by_expression, estimate.expression)
    unposed = unposed + displacement.view(len(unposed), 1, -1, 3)
    rotated = torch.einsum("vtbc, vtpc -> vtpb", estimate.rotation, unposed)
    rotated = rotated * estimate.log_magnification.exp()[..., None, None]
    image = rotated[..., :2] * rotated.new_tensor(IMAGE_SIGNS) + estimate.shift[..., None, :]
    return PredictedLandmarks(rotated=rotated, image=image)


def without_perspective(model: LinearModel, estimate: Estimate) -> LinearModel:
    """The model with its observations freed of perspective, given the depths of the estimated landmarks.

    Nothing changes before weak-perspective cameras.
    """
    if not isinstance(model.camera, Perspective):
        return model
    larger = estimate.log_magnification.exp()
    # The estimate turns a head about the head frame's origin, and a head turns about its root joint.
    moved = model.root_joint - (estimate.rotation @ model.root_joint[..., None])[..., 0]
    posed = predict(model, estimate).rotated / larger[..., None, None] + moved[..., None, :]
    origin = estimate.shift - larger[..., None] * moved[..., :2] * moved.new_tensor(IMAGE_SIGNS)
    magnification = model.camera.magnification
    camera = model.camera.placed(origin * (magnification / MM_PER_METRE)[..., None], magnification * larger)
    seen = camera.without_perspective(model.observed_ndc, posed / MM_PER_METRE)
    nearness = 1 / camera.relative_distance(posed / MM_PER_METRE)
    return replace(
        model,
        observed=observed_mm(model.camera, seen, model.confidence),
        confidence=model.confidence * (nearness / model.nearness).square(),
        nearness=nearness,
    )


# --- Weights


def robust_weights(
    model: LinearModel, estimate: Estimate, residual: Float[Tensor, "views frames points 2"]
) -> Float[Tensor, "views frames points"]:
    """Confidences, reduced for large residuals: the expected precisions of Student's t noise, times sigma^2.

    Confidences that are all k times as large only make sigma^2 k times as large.
    """
    squared = model.confidence * residual.square().sum(-1) / estimate.noise_mm**2
    return model.confidence * (DEGREES_OF_FREEDOM + 2) / (DEGREES_OF_FREEDOM + squared)


def inverse_variances(model: LinearModel, estimate: Estimate) -> Float[Tensor, "views frames points"]:
    """Weights of the squared residuals, per mm^2: robust, and reduced for the correlation of consecutive frames."""
    residual = model.observed - predict(model, estimate).image
    return robust_weights(model, estimate, residual) / _inflated_variance(estimate)


def _inflated_variance(estimate: Estimate) -> float:
    """Variance of independent noise that would leave as much uncertainty as the correlated noise does, mm^2."""
    return estimate.noise_mm**2 * (1 + estimate.correlation) / (1 - estimate.correlation)


def shared_precision(model: LinearModel, estimate: Estimate) -> Float[Tensor, "shared shared"]:
    """Prior precision of the identity code and, for the current s, of the displacements."""
    return torch.block_diag(
        model.identity_precision, model.displacement_precision / estimate.displacement_mm**2
    )


# --- Iterations


@dataclass(frozen=True, kw_only=True)
class Iteration:
    """The result of one Gauss-Newton step."""

    estimate: Estimate
    """After the step."""
    factor: Float[Tensor, "shared shared"]
    """Cholesky factor of the inverse covariance of the shared unknowns; NaN if that matrix is not positive
    definite."""
    log_evidence: float
    """Log probability of the landmarks before the step, given the size of the head (Laplace's approximation).

    It holds if the estimate before the step is the most probable one of its size. The shared unknowns are integrated
    out. The expressions and poses are set to their most probable values instead: integrating them out would count
    each frame of a nearly motionless face as new information on its size, and make a long clip certain of a wrong
    size. Left out are a constant and the normalisation of the prior (`LinearModel.log_density`)."""


def gauss_newton_step(
    model: LinearModel, estimate: Estimate, weight: Float[Tensor, "views frames points"]
) -> Iteration:
    """One Gauss-Newton step of all unknowns, with the size of the head fixed.

    Args:
        weight: of the squared residuals, per mm^2 (`inverse_variances`).
    """
    predicted = predict(model, estimate)
    residual = model.observed - predicted.image
    data = _normal_equations(model, estimate, predicted.rotated, residual, weight)

    expression_residual = estimate.expression - model.expression_mean
    shared_residual = estimate.shared - model.shared_mean
    frame_matrix, frame_right = _frame_equations(model, data, expression_residual)
    eliminated = torch.linalg.solve(frame_matrix, torch.cat((data.cross, frame_right[..., None]), -1))

    precision = shared_precision(model, estimate)
    prior_gradient = precision @ shared_residual
    right = data.shared_right - prior_gradient
    right = right - torch.einsum("tng, tn -> g", data.cross, eliminated[..., -1])
    precision[: model.num_identity, : model.num_identity] += SIZE_PRECISION * torch.outer(
        model.size_direction, model.size_direction
    )
    matrix = data.shared_matrix + precision
    matrix = matrix - torch.einsum("tng, tnh -> gh", data.cross, eliminated[..., :-1])
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if bool(failed):
        factor = torch.full_like(factor, torch.nan)
    shared_step = torch.cholesky_solve(right[:, None], factor)[:, 0]
    frame_step = eliminated[..., -1] - eliminated[..., :-1] @ shared_step

    cost = (weight * residual.square().sum(-1)).sum() + prior_gradient @ shared_residual
    cost = cost + ((expression_residual @ model.expression_precision) * expression_residual).sum()
    return Iteration(
        estimate=_updated(estimate, shared_step, frame_step, predicted.rotated),
        factor=factor,
        log_evidence=-0.5 * float(cost) - float(factor.diagonal().log().sum()),
    )


def fit_frames(model: LinearModel, person: Estimate) -> Estimate:
    """The most probable expressions and poses of other frames of a person who has been estimated.

    Args:
        model: of these frames.
        person: the shared unknowns and the scales of the priors, which stay as they are.
    """
    change = (person.shared - model.shared_mean)[: model.num_identity]
    model = model.resized(float(change @ model.size_direction) * model.size_std)
    estimate = initial_estimate(model, person)
    for _ in range(ITERATIONS):
        model = without_perspective(model, estimate)
        predicted = predict(model, estimate)
        weight = inverse_variances(model, estimate)
        data = _normal_equations(model, estimate, predicted.rotated, model.observed - predicted.image, weight)
        matrix, right = _frame_equations(model, data, estimate.expression - model.expression_mean)
        frame_step = torch.linalg.solve(matrix, right[..., None])[..., 0]
        estimate = _updated(estimate, torch.zeros_like(estimate.shared), frame_step, predicted.rotated)
    return estimate


def _updated(
    estimate: Estimate,
    shared_step: Float[Tensor, " shared"],
    frame_step: Float[Tensor, "frames unknowns"],
    rotated: Float[Tensor, "views frames points 3"],
) -> Estimate:
    """The estimate after a step, bounded by LARGEST_STEP.

    Args:
        frame_step: of the expression and, view by view, of the pose about the mean of the landmarks.
        rotated: the landmarks before the step.
    """
    expressions = estimate.expression.shape[-1]
    pose = frame_step[:, expressions:].unflatten(-1, (-1, POSE_SIZE)).transpose(0, 1)
    rotvec, log_magnification, shift = pose[..., :3], pose[..., 3], pose[..., 4:]
    rotvec = rotvec * (LARGEST_STEP / rotvec.norm(dim=-1, keepdim=True).clamp(min=LARGEST_STEP))
    log_magnification = log_magnification.clamp(-LARGEST_STEP, LARGEST_STEP)
    rotation = rotvec_to_rotmat(rotvec)
    centre = rotated.mean(2)
    moved_centre = torch.einsum("vtbc, vtc -> vtb", rotation, centre) * log_magnification.exp()[..., None]
    return replace(
        estimate,
        shared=estimate.shared + shared_step,
        expression=estimate.expression + frame_step[:, :expressions],
        rotation=rotation @ estimate.rotation,
        log_magnification=estimate.log_magnification + log_magnification,
        shift=estimate.shift + shift + (centre - moved_centre)[..., :2] * rotated.new_tensor(IMAGE_SIGNS),
    )


# --- Normal equations


@dataclass(frozen=True, kw_only=True)
class _NormalEquations:
    """Of the landmarks alone, without priors: `matrix @ step = right` in blocks of shared and per-frame unknowns."""

    shared_matrix: Float[Tensor, "shared shared"]
    shared_right: Float[Tensor, " shared"]
    frame_matrix: Float[Tensor, "frames unknowns unknowns"]
    frame_right: Float[Tensor, "frames unknowns"]
    cross: Float[Tensor, "frames unknowns shared"]


def _normal_equations(
    model: LinearModel,
    estimate: Estimate,
    rotated: Float[Tensor, "views frames points 3"],
    residual: Float[Tensor, "views frames points 2"],
    weight: Float[Tensor, "views frames points"],
) -> _NormalEquations:
    """The normal equations of the weighted squared residuals.

    A displacement moves one landmark in one view. The Jacobian's columns for displacements, which are most of it, are
    zero elsewhere and are never written out.
    """
    weight = weight[..., None]
    camera = estimate.rotation[..., :2, :] * rotated.new_tensor(IMAGE_SIGNS)[:, None]
    camera = camera * estimate.log_magnification.exp()[..., None, None]
    by_identity = torch.einsum("vtac, vtpci -> vtpai", camera, model.by_identity)
    by_frame = _frame_jacobian(model, camera, rotated)
    weighted_identity = by_identity * weight[..., None]
    weighted_displacement = camera[:, :, None] * weight[..., None]

    identity_block = torch.einsum("vtpai, vtpaj -> ij", weighted_identity, by_identity)
    mixed_block = torch.einsum("vtpai, vtpac -> ivpc", by_identity, weighted_displacement).flatten(1)
    displacement_blocks = torch.einsum("vtac, vtpad -> vpcd", camera, weighted_displacement).flatten(0, 1)
    top = torch.cat((identity_block, mixed_block), 1)
    bottom = torch.cat((mixed_block.mT, torch.block_diag(*displacement_blocks)), 1)
    identity_right = torch.einsum("vtpai, vtpa -> i", weighted_identity, residual)
    displacement_right = torch.einsum("vtpac, vtpa -> vpc", weighted_displacement, residual).flatten()
    identity_cross = torch.einsum("vtpan, vtpai -> tni", by_frame, weighted_identity)
    displacement_cross = torch.einsum("vtpan, vtpac -> tnvpc", by_frame, weighted_displacement).flatten(2)
    return _NormalEquations(
        shared_matrix=torch.cat((top, bottom)),
        shared_right=torch.cat((identity_right, displacement_right)),
        frame_matrix=torch.einsum("vtpan, vtpam -> tnm", by_frame * weight[..., None], by_frame),
        frame_right=torch.einsum("vtpan, vtpa -> tn", by_frame, residual * weight),
        cross=torch.cat((identity_cross, displacement_cross), -1),
    )


def _frame_equations(
    model: LinearModel, data: _NormalEquations, expression_residual: Float[Tensor, "frames expression"]
) -> tuple[Float[Tensor, "frames unknowns unknowns"], Float[Tensor, "frames unknowns"]]:
    """Matrix and right side of every frame's expression and poses, with the prior of the expression and the damping.

    Args:
        expression_residual: the expressions minus their prior means.
    """
    expressions = model.expression_precision.shape[0]
    matrix = data.frame_matrix
    matrix = matrix + torch.diag(matrix.new_full(matrix.shape[-1:], DAMPING))
    matrix[:, :expressions, :expressions] += model.expression_precision
    right = data.frame_right.clone()
    right[:, :expressions] -= expression_residual @ model.expression_precision
    return matrix, right


def _frame_jacobian(
    model: LinearModel,
    camera: Float[Tensor, "views frames 2 3"],
    rotated: Float[Tensor, "views frames points 3"],
) -> Float[Tensor, "views frames points 2 unknowns"]:
    """Derivative of image positions by their frame's expression and by the pose of every view.

    Rotation and magnification are about the mean of the landmarks; about any other point they would be nearly
    the same as a shift.
    """
    views, frames, points = rotated.shape[:3]
    by_expression = torch.einsum("vtac, vtpce -> vtpae", camera, model.by_expression)
    lever = (rotated - rotated.mean(2, keepdim=True)).flatten(0, 1)
    # The points are magnified already.
    unit = WeakPerspective(scale=lever.new_ones(len(lever)), offset=lever.new_zeros(len(lever), 2))
    by_pose = pose_jacobian(unit, lever, lever).unflatten(0, (views, frames))
    # The pose of one view does not move the landmarks of another.
    pose = rotated.new_zeros(views, frames, points, 2, views, POSE_SIZE)
    for view in range(views):
        pose[view, :, :, :, view] = by_pose[view]
    return torch.cat((by_expression, pose.flatten(-2)), -1)
