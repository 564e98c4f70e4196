"""The focal lengths of a clip's cameras, from how much larger the near parts of the face appear.

A pinhole camera's distance shows in the proportions of the face, and its focal length is that distance times the
magnification. Both follow from the landmarks where the camera is near; far away the proportions no longer change, and
the estimate stays at its prior. The evidence of the landmarks (`gauss_newton.Iteration.log_evidence`) is nearly a
parabola in the log focal length, so Newton's method on three values finds the most probable one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from neuface.encoders.calibration import EncoderCalibration
from neuface.fitting.person.estimate import em_iteration, frames_in_use
from neuface.fitting.person.gauss_newton import (
    ITERATIONS,
    Estimate,
    gauss_newton_step,
    initial_estimate,
    inverse_variances,
    without_perspective,
)
from neuface.fitting.person.linear_model import LinearModel, linear_model
from neuface.fitting.problem import Problem
from neuface.geometry.head_perspective import Perspective
from neuface.geometry.sampling import evenly_spread_indices
from neuface.head.model import HeadModel
from neuface.structs import Prediction

__all__ = ["FocalEstimate", "estimate_focal"]

LOG_FOCAL_STD = 0.5
"""Standard deviation of the prior of the log focal length about the one to start from: phones, webcams and the usual
lenses of cameras lie within a factor of two of it."""
PROBE = 0.1
"""Distance of the probed log focal lengths from the middle one."""
LARGEST_MOVE = 0.7
"""Bound of the change of the log focal length in one round."""
MOST_ROUNDS = 8
"""Bound of how often every view's focal length is estimated anew, with the person as estimated with the last one."""
SETTLED = 0.2
"""Change of the log focal length, in its standard deviations, below which no further round is needed."""
EM_ITERATIONS = 4
"""Iterations that estimate the person in every round but the first, from the person of the round before."""
MOST_STEPS = 12
"""Bound of the Gauss-Newton steps from the current solution to that of a probed focal length."""
SETTLED_EVIDENCE = 0.2
"""Change of the log evidence below which a solution has been found."""
MOST_FRAMES = 48
"""Bound of the frames in use: more add little about a lens and cost as much as they are."""


@dataclass(frozen=True, kw_only=True)
class FocalEstimate:
    """By how much the focal lengths differ from those to start from."""

    factor: Float[Tensor, " views"]
    log_std: Float[Tensor, " views"]
    """Standard deviation of the log focal length given the landmarks; at most that of the prior, 0 if known."""


@torch.no_grad()
def estimate_focal(
    head: HeadModel,
    initial: Prediction,
    problem: Problem,
    unknown: Bool[Tensor, " views"],
    *,
    calibration: EncoderCalibration,
) -> FocalEstimate:
    """The most probable focal length of every camera, the same for all its frames.

    Args:
        initial: the encoder's predictions before perspective cameras of the focal lengths to start from, batch axes
            `views time`.
        problem: the landmarks; at least one image must be valid.
        unknown: the cameras whose focal length is estimated; that of the others is exact.
        calibration: as for `estimate_person`.
    """
    frames = frames_in_use(problem)
    frames = frames[evenly_spread_indices(len(frames), MOST_FRAMES, frames.device)]
    mean_identity = initial.params.identity[problem.valid].mean(0).double()
    model = linear_model(
        head.to(torch.float64),
        initial[:, frames].to(torch.float64),
        problem,
        frames,
        mean_identity,
        calibration,
    )
    log_factor = [0.0] * problem.views
    log_std = [LOG_FOCAL_STD if each else 0.0 for each in unknown.tolist()]
    wanted = unknown.nonzero()[:, 0].tolist()
    estimate, iterations = initial_estimate(model), ITERATIONS
    for _ in range(MOST_ROUNDS):
        for _ in range(iterations):
            model = without_perspective(model, estimate)
            estimate = em_iteration(model, estimate)
        moves = [_newton_move(model, estimate, view, log_factor[view]) for view in wanted]
        for view, (move, deviation) in zip(wanted, moves, strict=True):
            log_factor[view] += move
            log_std[view] = deviation
            model = _zoomed(model, view, move)
        if all(abs(move) < SETTLED * deviation for move, deviation in moves):
            break
        iterations = EM_ITERATIONS
    like = problem.observed_px
    return FocalEstimate(factor=like.new_tensor(log_factor).exp(), log_std=like.new_tensor(log_std))


def _newton_move(model: LinearModel, estimate: Estimate, view: int, log_factor: float) -> tuple[float, float]:
    """How far the most probable log focal length of a view lies from the current one, and its deviation."""
    in_image = inverse_variances(model, estimate) / model.nearness.square()
    shorter, same, longer = (
        _log_evidence(_zoomed(model, view, change), estimate, in_image)
        - 0.5 * ((log_factor + change) / LOG_FOCAL_STD) ** 2
        for change in (-PROBE, 0.0, PROBE)
    )
    curvature = (shorter + longer - 2 * same) / PROBE**2
    slope = (longer - shorter) / (2 * PROBE)
    if not (math.isfinite(curvature) and math.isfinite(slope)):
        return 0.0, LOG_FOCAL_STD
    # Far from the maximum the parabola may be open upwards; the prior alone then bounds the step.
    curvature = min(curvature, -1 / LOG_FOCAL_STD**2)
    return max(-LARGEST_MOVE, min(LARGEST_MOVE, -slope / curvature)), (-curvature) ** -0.5


def _log_evidence(
    model: LinearModel, estimate: Estimate, in_image: Float[Tensor, "views frames points"]
) -> float:
    """Log evidence of the most probable solution for the focal lengths of the model.

    Args:
        in_image: weights of the squared distances in the image, which are the same for all focal lengths.
    """
    last = math.inf
    for _ in range(MOST_STEPS):
        model = without_perspective(model, estimate)
        step = gauss_newton_step(model, estimate, in_image * model.nearness.square())
        if abs(step.log_evidence - last) < SETTLED_EVIDENCE:
            break
        last, estimate = step.log_evidence, step.estimate
    return last


def _zoomed(model: LinearModel, view: int, log_change: float) -> LinearModel:
    """The model with another focal length of one view; the head keeps its size in the image."""
    camera = model.camera
    assert isinstance(camera, Perspective), "a weak-perspective camera has no focal length"
    factor = torch.ones_like(camera.focal)
    factor[view] = math.exp(log_change)
    return replace(model, camera=replace(camera, focal=camera.focal * factor))
