"""Clips small enough to fit in seconds, with known truth."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor

from neuface.fitting.config import FitConfig, Identity
from neuface.fitting.objective import FromEncoder, Objective, Term
from neuface.fitting.problem import Problem
from neuface.fitting.targets import Priors, Targets
from neuface.fitting.terms import estimate_targets
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import SCHEMES
from neuface.structs import HeadParams, Prediction, WeakPerspective

SCHEME = "mediapipe478"
AS_PREDICTED = FitConfig.neural(
    {"objective.identity_prior": FromEncoder(), "identity": Identity(shared="image", fix_scale=False)}
)
"""Identity codes are left as they are, to the bit."""
PASSES, RATE, WARM_UP, BATCH = (
    "m_step.stop.max_passes", "m_step.adam.learning_rate", "m_step.adam.warm_up_steps", "m_step.batches.size",
)  # fmt: skip


def only(**terms: Term) -> Objective:
    """An objective of these terms alone."""
    return Objective(**{**dict.fromkeys((item.name for item in fields(Objective)), None), **terms})


def limited(passes: int, rate: float = 1e-3) -> FitConfig:
    """Gradient steps with another limit of passes and another learning rate."""
    return FitConfig.neural({PASSES: passes, RATE: rate})


def camera_for(params: HeadParams, scale: float = 5.0) -> WeakPerspective:
    batch = params.root_rotvec.shape[:-1]
    return WeakPerspective(
        scale=params.root_rotvec.new_full(batch, scale), offset=params.root_rotvec.new_zeros(*batch, 2)
    )


def turning_heads(head: HeadModel, views: int, time: int) -> Prediction:
    """A head that turns steadily, seen by cameras 0.4 rad apart; one face for all."""
    params = head.neutral(views, time)
    turn = params.root_rotvec.clone()
    turn[..., 1] = 0.03 * torch.arange(time) + 0.4 * torch.arange(views)[:, None]
    params = replace(params, root_rotvec=turn, identity=params.identity + 0.5)
    return Prediction(params=params, camera=camera_for(params))


def problem_of(head: HeadModel, truth: Prediction, scheme: str = SCHEME) -> Problem:
    """Perfect landmarks of the truth, in crops that are the frames."""
    points = truth.camera.project(head.landmarks(truth.params, scheme))
    views, time = points.shape[:2]
    return Problem.in_one_crop(
        observed_ndc=points,
        confidence=torch.ones_like(points[..., 0]),
        valid=torch.ones(views, time, dtype=torch.bool),
        scheme=SCHEMES[scheme],
    )


def disturbed(truth: Prediction, size: float = 0.15, seed: int = 0) -> Prediction:
    generator = torch.Generator().manual_seed(seed)

    def moved(tensor: Tensor) -> Tensor:
        return tensor + size * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)

    params = replace(truth.params, root_rotvec=moved(truth.params.root_rotvec))
    camera = WeakPerspective(scale=moved(truth.camera.magnification), offset=moved(truth.camera.position))
    return Prediction(params=params, camera=camera)


def same(first: Prediction, second: Prediction) -> bool:
    """Equal to the bit."""
    return all(
        torch.equal(getattr(getattr(first, noun), item.name), getattr(getattr(second, noun), item.name))
        for noun in ("params", "camera")
        for item in fields(getattr(first, noun))
    )


def silenced(problem: Problem, images: list[tuple[int, int]]) -> Problem:
    valid, confidence = problem.valid.clone(), problem.confidence.clone()
    for view, time in images:
        valid[view, time] = False
        confidence[view, time] = 0
    return replace(problem, valid=valid, confidence=confidence)


def targets_of(
    head: HeadModel,
    params: HeadParams,
    valid: Tensor | None = None,
    config: FitConfig | None = None,
    expected_identity: Tensor | None = None,
) -> Targets:
    """The E-step for heads that stand before some camera, batch axes `views time`."""
    prediction = Prediction(params=params, camera=camera_for(params))
    problem = problem_of(head, prediction)
    if valid is not None:
        problem = replace(problem, valid=valid)
    priors = None if expected_identity is None else Priors(identity=expected_identity)
    return estimate_targets(head, prediction, problem, config or FitConfig.neural(), priors)


def merged_mesh(
    head: HeadModel, params: HeadParams, valid: Tensor | None = None, config: FitConfig | None = None
) -> Tensor:
    """The mesh that the E-step merges from all views."""
    return targets_of(head, params, valid, config)["multiview"].value
