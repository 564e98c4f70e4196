"""The estimate of a clip's person: the entry of `neuface.fitting.person`, where the model and the method stand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuface.encoders.calibration import EncoderCalibration
from neuface.fitting.person.gauss_newton import (
    ITERATIONS,
    Estimate,
    fit_frames,
    gauss_newton_step,
    initial_estimate,
    inverse_variances,
    predict,
    robust_weights,
    without_perspective,
)
from neuface.fitting.person.linear_model import MM_PER_METRE, LinearModel, linear_model
from neuface.fitting.problem import Problem
from neuface.geometry.interpolation import interpolate_missing
from neuface.geometry.pose_jacobian import POSE_SIZE
from neuface.geometry.sampling import evenly_spread_indices
from neuface.head.model import HeadModel
from neuface.structs import HeadParams, Prediction

__all__ = ["PersonEstimate", "em_iteration", "estimate_person", "frames_in_use", "identity_covariance"]

PROBING_ITERATIONS, FINAL_ITERATIONS = 2, 2
"""Gauss-Newton iterations at each size whose evidence is computed, and at the most probable one, from the solution at
the encoder's size. Three of each would change the code by 0.005 standard deviations; one leaves the evidence of exact
landmarks too inexact."""
MOST_IMAGES, MOST_IMAGES_TIMES_VIEWS = 192, 768
"""Limits of the images that estimate the person, and of their number times the number of views. An image takes about
half a megabyte times the number of views, and more images add little about the shape of one person."""
LEAST_STD_MM = 0.05
"""Lower bound of the estimated standard deviations sigma and s, mm; expectation maximisation would let them collapse
to zero on exact landmarks."""
LARGEST_CORRELATION = 0.95
"""Upper bound of rho; at 1 a clip would count as no image at all."""
DETERMINED_EXPRESSION = 20
"""Upper bound of the degrees of freedom that one frame's expression takes from its landmarks; coefficients beyond it
follow from the prior."""
LARGEST_SIZE_CHANGE = 3.0
"""Bound of the change of log size from the encoder's prediction, in standard deviations of the population."""


@dataclass(frozen=True, kw_only=True)
class PersonEstimate:
    """The most probable codes, and the estimated errors of the landmarks."""

    identity: Float[Tensor, " identity"]
    expression: Float[Tensor, "time expression"]
    """Interpolated over time where no view has landmarks."""
    jaw_rotvec: Float[Tensor, "time 3"]
    """Likewise, radians; the mean over views of the encoder's predictions if these never move the jaw."""
    noise_mm: float
    """Scale sigma of a landmark's noise, mm on the head."""
    displacement_mm: float
    """Standard deviation s of the lasting displacement of an inner landmark, mm on the head."""
    correlation: float
    """Correlation rho of the noise of consecutive frames."""


@torch.no_grad()
def estimate_person(
    head: HeadModel, initial: Prediction, problem: Problem, *, calibration: EncoderCalibration
) -> PersonEstimate:
    """The most probable identity code of a clip's person, and their expression in every frame.

    Computes in float64. The identity is estimated from at most MOST_IMAGES images, evenly spread over the clip. Where
    the solution is not finite, as for landmarks of no face, the encoder's predictions are returned.

    Args:
        initial: the encoder's prediction of every image, batch axes `views time`: the start of the solution, and
            the prior mean of the identity.
        problem: the landmarks; at least one image must be valid.
        calibration: how wrong the encoder is.
    """
    mean_identity = initial.params.identity[problem.valid].mean(0)
    exact = head.to(torch.float64)

    def model_of(frames: Int[Tensor, " frames"]) -> LinearModel:
        predictions = initial[:, frames].to(torch.float64)
        return linear_model(exact, predictions, problem, frames, mean_identity.double(), calibration)

    frames = frames_in_use(problem)
    model = model_of(frames)
    estimate = initial_estimate(model)
    for _ in range(ITERATIONS):
        model = without_perspective(model, estimate)
        estimate = em_iteration(model, estimate)
    estimate = _most_probable_size(model, estimate)
    identity = estimate.shared[: model.num_identity].to(mean_identity)
    if not bool(identity.isfinite().all()):
        identity = mean_identity

    def found() -> Iterator[tuple[Tensor, Tensor]]:
        yield frames, estimate.expression
        for others in _frames_left_out(problem, frames):
            yield others, fit_frames(model_of(others), estimate).expression

    expression, jaw_rotvec = _expression_trajectory(initial.params, problem, found())
    return PersonEstimate(
        identity=identity,
        expression=expression,
        jaw_rotvec=jaw_rotvec,
        noise_mm=estimate.noise_mm,
        displacement_mm=estimate.displacement_mm,
        correlation=estimate.correlation,
    )


@torch.no_grad()
def identity_covariance(
    head: HeadModel,
    true: Prediction,
    problem: Problem,
    noise_px: float,
    *,
    calibration: EncoderCalibration,
) -> Float[Tensor, "identity identity"]:
    """Covariance of the identity code given landmarks with known white noise: how well it can be known at all.

    It is that of the model without lasting displacements at the true codes (Laplace's approximation), in float64. As
    in `estimate_person`, the prior has the population's variance, less along the size direction.

    Args:
        true: the true codes, batch axes `views time`; orientations and cameras are only a start.
        problem: exact landmarks.
        noise_px: standard deviation of each coordinate, pixels of the frame.
        calibration: how well the encoder knows the size.
    """
    frames = frames_in_use(problem)
    code = true.params.identity[0, 0].double()
    predictions = true[:, frames].to(torch.float64)
    model = linear_model(head.to(torch.float64), predictions, problem, frames, code, calibration)
    magnification = true.camera.magnification
    noise_mm = float((MM_PER_METRE * noise_px * problem.ndc_per_frame_px / magnification)[:, frames].mean())
    start = replace(initial_estimate(model), noise_mm=noise_mm, displacement_mm=LEAST_STD_MM)
    # The size is an unknown here, so no direction is fixed.
    model = replace(model, size_direction=torch.zeros_like(model.size_direction))
    iteration = gauss_newton_step(model, fit_frames(model, start), model.confidence / noise_mm**2)
    return torch.cholesky_inverse(iteration.factor)[: len(code), : len(code)]


# --- Frames


def frames_in_use(problem: Problem) -> Int[Tensor, " frames"]:
    """Frames with landmarks in any view, evenly spread where there are more than the limits allow."""
    with_landmarks = problem.valid.any(0).nonzero()[:, 0]
    most = max(1, min(MOST_IMAGES // problem.views, MOST_IMAGES_TIMES_VIEWS // problem.views**2))
    return with_landmarks[evenly_spread_indices(len(with_landmarks), most, with_landmarks.device)]


def _frames_left_out(problem: Problem, in_use: Int[Tensor, " in_use"]) -> Iterator[Int[Tensor, " frames"]]:
    """The other frames with landmarks, in pieces of the same memory."""
    with_landmarks = problem.valid.any(0).nonzero()[:, 0]
    others = with_landmarks[~torch.isin(with_landmarks, in_use)]
    yield from others.split(max(1, len(in_use))) if len(others) else ()


def _expression_trajectory(
    predicted: HeadParams,
    problem: Problem,
    found: Iterable[tuple[Int[Tensor, " _"], Float[Tensor, "_ _"]]],
) -> tuple[Float[Tensor, "time expression"], Float[Tensor, "time 3"]]:
    """Expressions and rotations of the jaw over the whole clip, interpolated where there are no finite estimates.

    Args:
        predicted: by the encoder; they remain where a clip has no estimate at all.
        found: frames, and their expressions with the jaw's rotation behind them if it moves.
    """
    trajectory = torch.cat((predicted.expression, predicted.jaw_rotvec), -1).mean(0)
    known = torch.zeros(problem.time, dtype=torch.bool, device=trajectory.device)
    for frames, codes in found:
        finite = codes.isfinite().all(-1)
        trajectory[frames[finite], : codes.shape[-1]] = codes[finite].to(trajectory)
        known[frames[finite]] = True
    trajectory = interpolate_missing(trajectory[None], known[None], problem.starts)[0]
    expression, jaw_rotvec = trajectory.split((predicted.expression.shape[-1], 3), -1)
    return expression, jaw_rotvec


# --- Size


def _most_probable_size(model: LinearModel, estimate: Estimate) -> Estimate:
    """The most probable estimate of the most probable size.

    The log evidence is nearly a parabola in the log size, so three sizes (one standard deviation apart) determine it.
    If it has no maximum, the size stays.
    """
    weight = inverse_variances(model, estimate)
    smaller, same, larger = (_log_evidence(model, estimate, weight, change) for change in (-1.0, 0.0, 1.0))
    curvature = smaller + larger - 2 * same
    if not curvature < 0:
        return estimate
    change = 0.5 * (smaller - larger) / curvature
    change = max(-LARGEST_SIZE_CHANGE, min(LARGEST_SIZE_CHANGE, change))
    return _at_size(model, estimate, weight, change, FINAL_ITERATIONS)[1]


def _log_evidence(
    model: LinearModel, estimate: Estimate, weight: Float[Tensor, "views frames points"], change: float
) -> float:
    """The log evidence of another size of the face; arguments are those of `_at_size`."""
    resized_model, resized = _at_size(model, estimate, weight, change, PROBING_ITERATIONS)
    step = gauss_newton_step(resized_model, resized, weight, dtype=torch.float32)
    return step.log_evidence + resized_model.log_density()


def _at_size(
    model: LinearModel,
    estimate: Estimate,
    weight: Float[Tensor, "views frames points"],
    change: float,
    iterations: int,
) -> tuple[LinearModel, Estimate]:
    """The model, and the most probable estimate, for another size of the face.

    Args:
        change: of the log size from that of `estimate`, in standard deviations of the population.
    """
    log_change = change * model.size_std
    resized_model = model.resized(log_change)
    identity, displacement = estimate.shared.tensor_split([model.num_identity])
    resized = replace(
        estimate,
        shared=torch.cat((identity + change * model.size_direction, displacement * math.exp(log_change))),
        expression=estimate.expression * math.exp(log_change),
        log_magnification=estimate.log_magnification - log_change,
    )
    observed = (model.confidence > 0).any(-1)
    for _ in range(iterations):
        resized = gauss_newton_step(resized_model, resized, weight, dtype=torch.float32).estimate
        # The size of a face need not be that of its landmarks. The priors therefore follow the mean change of the
        # cameras' magnification, which is how much the landmarks have really grown.
        shrunk = (estimate.log_magnification - resized.log_magnification) * observed
        resized_model = model.resized(float(shrunk.sum() / observed.sum().clamp(min=1)))
    return resized_model, resized


# --- Expectation maximisation


def em_iteration(model: LinearModel, estimate: Estimate) -> Estimate:
    """One Gauss-Newton step with the current scales, then the scales of its result."""
    weight = inverse_variances(model, estimate)
    iteration = gauss_newton_step(model, estimate, weight, dtype=torch.float32)
    covariance = torch.cholesky_inverse(iteration.factor)
    return _with_scales(model, iteration.estimate, covariance[model.num_identity :, model.num_identity :])


def _with_scales(
    model: LinearModel, estimate: Estimate, covariance: Float[Tensor, "displacement displacement"]
) -> Estimate:
    """The M-step: sigma, rho and s that are most probable given the other unknowns.

    Args:
        covariance: of the displacements.
    """
    residual = model.observed - predict(model, estimate).image
    weight = robust_weights(model, estimate, residual)
    correlation = _correlation(model, weight.sqrt()[..., None] * residual)
    displacement = estimate.shared[model.num_identity :]
    square = displacement @ model.displacement_precision @ displacement
    square = square + (model.displacement_precision * covariance).sum()
    return replace(
        estimate,
        noise_mm=max(LEAST_STD_MM, _noise_mm(model, estimate, residual, weight)),
        correlation=float(correlation.clamp(0.0, LARGEST_CORRELATION)),
        displacement_mm=max(LEAST_STD_MM, float((square / len(displacement)).sqrt())),
    )


def _noise_mm(
    model: LinearModel,
    estimate: Estimate,
    residual: Float[Tensor, "views frames points 2"],
    weight: Float[Tensor, "views frames points"],
) -> float:
    """Sigma: the root of the weighted squared residuals over their degrees of freedom.

    The per-frame unknowns absorb some of the noise, so their number is subtracted from that of the coordinates, of
    which at least a quarter is counted.
    """
    views, frames = residual.shape[:2]
    coordinates = 2 * int((model.confidence > 0).sum())
    absorbed = frames * (POSE_SIZE * views + min(DETERMINED_EXPRESSION, estimate.expression.shape[-1]))
    variance = (weight * residual.square().sum(-1)).sum() / max(coordinates - absorbed, coordinates / 4)
    return float(variance.sqrt())


def _correlation(model: LinearModel, weighted: Float[Tensor, "views frames points 2"]) -> Float[Tensor, ""]:
    """Rho: the correlation of weighted residuals of consecutive frames, over landmarks that both frames have."""
    earlier, later = weighted[:, :-1], weighted[:, 1:]
    has = model.confidence > 0
    both = model.consecutive[..., None] * (has[:, 1:] & has[:, :-1])
    product = (later * earlier).sum(-1) * both
    square = 0.5 * (later.square() + earlier.square()).sum(-1) * both
    return product.sum() / square.sum().clamp(min=1e-9)
