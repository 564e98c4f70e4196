"""Focal lengths from landmarks: exact ones determine them, distant cameras leave the prior."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from small_problems import turning_heads

from neuface import HeadModel, Perspective, Prediction
from neuface.encoders.calibration import UNCALIBRATED
from neuface.fitting.person.estimate import estimate_person
from neuface.fitting.person.focal import LOG_FOCAL_STD, FocalEstimate, estimate_focal
from neuface.fitting.problem import Problem
from neuface.geometry.alignment import align_points
from neuface.landmarks.schemes import IBUG68

SCALE, TIME = 5.0, 12


def filmed(head: HeadModel, distances_m: tuple[float, ...]) -> tuple[Prediction, Problem]:
    """Talking heads before cameras at these distances, with landmarks of a detector's noise."""
    generator = torch.Generator().manual_seed(0)
    heads = turning_heads(head, len(distances_m), TIME)
    expression = 0.3 * torch.rand(1, TIME, head.num_expression, generator=generator) ** 4
    identity = 0.7 * torch.randn(head.num_identity, generator=generator)
    turn = heads.params.root_rotvec - torch.tensor([0.0, 0.3, 0.0])
    params = replace(
        heads.params,
        identity=identity.expand_as(heads.params.identity),
        expression=expression.expand(len(distances_m), -1, -1),
        root_rotvec=turn,
    )
    camera = seen_from(distances_m, torch.zeros(len(distances_m), TIME, 2))
    points = camera.project(head.landmarks(params, IBUG68.name))
    noise = 0.002 * torch.randn(points.shape, generator=generator)
    problem = Problem.in_one_crop(
        observed_ndc=points + noise,
        confidence=torch.ones(points.shape[:-1]),
        valid=torch.ones(points.shape[:2], dtype=torch.bool),
        scheme=IBUG68,
    )
    return Prediction(params=params, camera=camera), problem


def seen_from(distances_m: tuple[float, ...], principal: torch.Tensor) -> Perspective:
    scale = torch.full(principal.shape[:-1], SCALE)
    focal = scale * torch.tensor(distances_m)[:, None]
    return Perspective(scale=scale, offset=torch.zeros_like(principal), focal=focal, principal=principal)


def estimated(
    head: HeadModel, truth: Prediction, problem: Problem, focal: float, unknown: tuple[bool, ...]
) -> FocalEstimate:
    """From the mean face, and cameras of one focal length where it is unknown."""
    camera = truth.camera
    assert isinstance(camera, Perspective)
    wanted = torch.tensor(unknown)
    start = replace(camera, focal=torch.where(wanted[:, None], focal, camera.focal))
    params = replace(truth.params, identity=torch.zeros_like(truth.params.identity))
    initial = Prediction(params=params, camera=start)
    return estimate_focal(head, initial, problem, wanted, calibration=UNCALIBRATED)


@pytest.mark.parametrize("start", [0.6, 2.0])
def test_a_near_camera_is_found_from_shorter_and_from_longer_focal_lengths(
    open_head: HeadModel, start: float
) -> None:
    truth, problem = filmed(open_head, (0.5,))
    estimate = estimated(open_head, truth, problem, start * 0.5 * SCALE, (True,))
    error = math.log(float(estimate.factor[0]) * start)
    assert abs(error) < 0.15
    assert float(estimate.log_std[0]) < 0.1


def test_a_distant_camera_leaves_much_of_the_prior(open_head: HeadModel) -> None:
    near = estimated(open_head, *filmed(open_head, (0.5,)), 0.6 * SCALE, (True,))
    far = estimated(open_head, *filmed(open_head, (20.0,)), 20.0 * SCALE, (True,))
    assert 3 * float(near.log_std[0]) < float(far.log_std[0]) <= LOG_FOCAL_STD


def test_a_focal_length_that_is_known_stays(open_head: HeadModel) -> None:
    truth, problem = filmed(open_head, (0.5, 0.6))
    estimate = estimated(open_head, truth, problem, 0.8 * SCALE, (False, True))
    assert float(estimate.factor[0]) == 1.0
    assert float(estimate.log_std[0]) == 0.0
    assert abs(math.log(float(estimate.factor[1]) * 0.8 / 0.6)) < 0.15


def test_the_person_before_a_near_camera_is_known_better_with_its_perspective(open_head: HeadModel) -> None:
    truth, problem = filmed(open_head, (0.5,))
    code = truth.params.identity[0, 0]
    start = replace(truth.params, identity=torch.zeros_like(truth.params.identity))
    errors_mm = []
    for distance_m in (0.5, 1000.0):
        camera = seen_from((distance_m,), torch.zeros(1, TIME, 2))
        person = estimate_person(
            open_head, Prediction(params=start, camera=camera), problem, calibration=UNCALIBRATED
        )
        neutral = open_head.neutral(1)
        found, true = (
            open_head.vertices(replace(neutral, identity=one[None]))[0, open_head.region("face")]
            for one in (person.identity, code)
        )
        # The size of a head is not observed.
        gap = align_points(found, true, with_scale=True) - true
        errors_mm.append(1000 * float(gap.norm(dim=-1).mean()))
    assert errors_mm[0] < 0.75 * errors_mm[1]
