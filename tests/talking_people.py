"""People who turn and talk before cameras, their landmarks, and how far an estimate of them is off."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from neuface.encoders.calibration import OPEN_ENCODER
from neuface.fitting.person.estimate import PersonEstimate, estimate_person
from neuface.fitting.problem import Problem
from neuface.fitting.targets import expression_landmarks
from neuface.head.expressions import sample_expressions
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import IBUG68
from neuface.structs import Prediction, WeakPerspective

NDC_PER_METRE = 5.0


def talking(head: HeadModel, views: int, time: int, seed: int = 0) -> Prediction:
    """One person of another size than the mean's, who turns and talks before cameras 0.6 rad apart."""
    generator = torch.Generator().manual_seed(seed)
    params = head.neutral(views, time)
    like = params.identity
    person = 0.8 * torch.randn(head.num_identity, generator=generator).to(like)
    faces = sample_expressions(head.expression_names, time, generator) if head.num_expression == 52 else None
    if faces is None:
        faces = 0.7 * torch.randn(time, head.num_expression, generator=generator)
    root = 0.15 * torch.randn(views, time, 3, generator=generator).to(like)
    root[..., 1] += 0.6 * (torch.arange(views) - (views - 1) / 2)[:, None]
    return Prediction(
        params=replace(
            params,
            identity=person.expand(views, time, -1),
            expression=faces.to(like).expand(views, -1, -1),
            root_rotvec=root,
        ),
        camera=WeakPerspective(
            scale=like.new_full((views, time), NDC_PER_METRE), offset=like.new_zeros(views, time, 2)
        ),
    )


def landmarks_of(head: HeadModel, truth: Prediction, noise_mm: Tensor | None = None) -> Problem:
    """The iBUG-68 landmarks that the cameras see, with noise of any shape that broadcasts to theirs."""
    points = truth.camera.project(head.landmarks(truth.params, "ibug68"))
    if noise_mm is not None:
        points = points + noise_mm.to(points) * (NDC_PER_METRE / 1000)
    views, time = points.shape[:2]
    return Problem.in_one_crop(
        observed_ndc=points,
        confidence=torch.ones_like(points[..., 0]),
        valid=torch.ones(views, time, dtype=torch.bool),
        scheme=IBUG68,
    )


def white_noise_mm(truth: Prediction, std_mm: float, seed: int = 3) -> Tensor:
    views, time = truth.camera.magnification.shape
    return std_mm * torch.randn(views, time, 68, 2, generator=torch.Generator().manual_seed(seed))


def correlated_noise_mm(truth: Prediction, std_mm: float, correlation: float) -> Tensor:
    """First-order autoregressive noise: every frame's is that of the frame before, partly renewed."""
    fresh = white_noise_mm(truth, std_mm)
    frames = [fresh[:, 0]]
    for now in fresh[:, 1:].unbind(1):
        frames.append(correlation * frames[-1] + (1 - correlation**2) ** 0.5 * now)
    return torch.stack(frames, 1)


def weak_prediction(truth: Prediction, seed: int = 7) -> Prediction:
    """As from an encoder that knows nothing of the person, and the poses and cameras only roughly."""
    generator = torch.Generator().manual_seed(seed)
    params = truth.params
    error = 0.05 * torch.randn(params.root_rotvec.shape, generator=generator)
    return Prediction(
        params=replace(
            params,
            identity=torch.zeros_like(params.identity),
            expression=torch.zeros_like(params.expression),
            root_rotvec=params.root_rotvec + error.to(params.root_rotvec),
        ),
        camera=truth.camera.placed(truth.camera.position, 1.05 * truth.camera.magnification),
    )


def estimate(head: HeadModel, initial: Prediction, problem: Problem) -> PersonEstimate:
    """With the calibration of the open encoder."""
    return estimate_person(head, initial, problem, calibration=OPEN_ENCODER)


def shape_error_mm(head: HeadModel, identity: Tensor, truth: Prediction) -> float:
    """RMS distance of the landmarks at rest."""
    codes = torch.stack((identity, truth.params.identity[0, 0]))
    found, true = head.landmarks(replace(head.neutral(2), identity=codes), "ibug68")
    return 1000 * float((found - true - (found - true).mean(0)).square().sum(-1).mean().sqrt())


def expression_error_mm(head: HeadModel, expression: Tensor, truth: Prediction) -> Tensor:
    """RMS distance, per frame, of the landmarks with this expression to those with the true one."""
    params = truth.params[0]
    found = expression_landmarks(head, replace(params, expression=expression.to(params.expression)), "ibug68")
    error = found - expression_landmarks(head, params, "ibug68")
    return 1000 * error.square().sum(-1).mean(-1).sqrt()
