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

from neuface.devices import map_pieces
from neuface.fitting.person.code_columns import CodeColumns
from neuface.fitting.person.linear_model import MM_PER_METRE, LinearModel, observed_mm
from neuface.fitting.person.normal_equations import (
    Curvature,
    camera_rows,
    cholesky,
    curvature,
    eliminated,
    frame_equations,
    pieces_of_frames,
    shared_equations,
)
from neuface.geometry.head_perspective import Perspective
from neuface.geometry.pose_jacobian import POSE_SIZE
from neuface.geometry.rotations import rotvec_to_rotmat
from neuface.structs import HEAD_TO_IMAGE_SIGNS

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
    unposed = model.unposed(identity, estimate.expression)
    unposed = unposed + displacement.view(len(unposed), 1, 3, -1).mT
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
    model: LinearModel,
    estimate: Estimate,
    weight: Float[Tensor, "views frames points"],
    *,
    dtype: torch.dtype = torch.float64,
) -> Iteration:
    """One Gauss-Newton step of all unknowns, with the size of the head fixed.

    Args:
        weight: of the squared residuals, per mm^2 (`inverse_variances`).
        dtype: of the large products of second derivatives; float32 takes half the time, and makes the evidence
            exact to about 1e-3. Gradients are always computed in float64, so that the iterations end at one place.
    """
    predicted = predict(model, estimate)
    residual = model.observed - predicted.image
    expression_residual = estimate.expression - model.expression_mean
    shared_residual = estimate.shared - model.shared_mean
    camera = camera_rows(estimate.rotation, estimate.log_magnification)
    seen = curvature(camera, predicted.rotated, residual, weight)
    matrix, right = shared_equations(model, seen)
    pieces = eliminated(model, seen, expression_residual, dtype)

    precision = shared_precision(model, estimate)
    prior_gradient = precision @ shared_residual
    taken = torch.stack([piece.matrix for piece in pieces]).sum(0)
    taken_right = torch.stack([piece.right for piece in pieces]).sum(0)
    right = right - taken_right - prior_gradient
    precision[: model.num_identity, : model.num_identity] += SIZE_PRECISION * torch.outer(
        model.size_direction, model.size_direction
    )
    factor = cholesky(matrix - taken + precision)
    shared_step = torch.cholesky_solve(right[:, None], factor)[:, 0]
    order = torch.cat([piece.frames for piece in pieces]).argsort()
    frame_step = torch.cat([piece.frame_step(shared_step) for piece in pieces])[order]

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
    by_expression = model.by_expression.to(torch.float32)
    for _ in range(ITERATIONS):
        model = without_perspective(model, estimate)
        predicted = predict(model, estimate)
        weight = inverse_variances(model, estimate)
        camera = camera_rows(estimate.rotation, estimate.log_magnification)
        seen = curvature(camera, predicted.rotated, model.observed - predicted.image, weight)
        residual = estimate.expression - model.expression_mean
        frame_step = _frame_step(model, by_expression, seen, residual)
        estimate = _updated(estimate, torch.zeros_like(estimate.shared), frame_step, predicted.rotated)
    return estimate


def _frame_step(
    model: LinearModel,
    by_expression: CodeColumns,
    seen: Curvature,
    expression_residual: Float[Tensor, "frames expression"],
) -> Float[Tensor, "frames unknowns"]:
    """The step of the frames' own unknowns while the shared ones stay; arguments are those of `frame_equations`."""

    def of_piece(piece: Tensor) -> Tensor:
        kind, residual = model.kind[:, piece], expression_residual[piece]
        return frame_equations(model, by_expression, seen[:, piece], kind, residual).step()

    pieces = pieces_of_frames(model.kind)
    return torch.cat(map_pieces(of_piece, pieces))[torch.cat(pieces).argsort()]


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
