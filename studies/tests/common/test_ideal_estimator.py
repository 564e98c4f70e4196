"""What an ideal estimator of a clip's landmarks would expect."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

import pytest
import torch
from torch import Tensor

from neuface.encoders.calibration import OPEN_ENCODER
from neuface.errors import InputError
from neuface.fitting.person.estimate import estimate_person, identity_covariance
from neuface.fitting.problem import Problem
from neuface.head.expressions import expression_moments
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import IBUG68
from neuface.models import FaceModel, load_model
from neuface.structs import Prediction, WeakPerspective
from studies.common.cases import Case, CaseSpec, make_case
from studies.common.ideal_estimator import expected_shape_error_mm


def turning(head: HeadModel, views: int, time: int) -> Prediction:
    generator = torch.Generator().manual_seed(0)
    params = head.neutral(views, time)
    turn = 0.3 * torch.randn(views, time, 3, generator=generator).to(params.root_rotvec)
    turn[..., 1] += 0.6 * (torch.arange(views) - (views - 1) / 2)[:, None]
    scale = params.identity.new_full((views, time), 5.0)
    return Prediction(
        params=replace(params, root_rotvec=turn),
        camera=WeakPerspective(scale=scale, offset=scale.new_zeros(views, time, 2)),
    )


def seen(head: HeadModel, truth: Prediction, noise_ndc: float = 0.0, seed: int = 0) -> Problem:
    points = truth.camera.project(head.landmarks(truth.params, "ibug68"))
    noise = noise_ndc * torch.randn(points.shape, generator=torch.Generator().manual_seed(seed)).to(points)
    return Problem(
        inputs=points.new_zeros(*points.shape[:2], 0, 0, 0),
        observed_ndc=points + noise,
        confidence=torch.ones_like(points[..., 0]),
        valid=torch.ones(points.shape[:2], dtype=torch.bool),
        scheme=IBUG68,
    )


def covariance_of(head: HeadModel, truth: Prediction, problem: Problem, noise_px: float) -> Tensor:
    return identity_covariance(head, truth, problem, noise_px, calibration=OPEN_ENCODER)


def spread(head: HeadModel, truth: Prediction, noise_px: float) -> float:
    return float(covariance_of(head, truth, seen(head, truth), noise_px).diagonal().sum())


def test_more_is_known_from_more_images_and_with_less_noise(tiny_head) -> None:
    head = tiny_head()
    one = spread(head, turning(head, 1, 4), 0.003)
    assert spread(head, turning(head, 1, 12), 0.003) < one
    assert spread(head, turning(head, 3, 4), 0.003) < one
    assert spread(head, turning(head, 1, 4), 0.0015) < one < spread(head, turning(head, 1, 4), 0.006)
    # Landmarks lost in noise leave what the population tells.
    nothing = covariance_of(head, turning(head, 1, 4), seen(head, turning(head, 1, 4)), 100.0)
    growth = head.log_size(torch.eye(6).double())
    growth = growth / growth.norm()
    expected = torch.eye(6).double() - 0.38 * torch.outer(growth, growth)
    torch.testing.assert_close(nothing, expected, atol=2e-2, rtol=0)


def test_estimates_of_many_people_are_off_by_what_it_says(open_head: HeadModel) -> None:
    """People, expressions and noise drawn as the model has them: no estimator is better, and ours is not far off."""
    noise, people = 0.003, 12
    truth = turning(open_head, 3, 4)
    exact = seen(open_head, truth)
    covariance = covariance_of(open_head, truth, exact, noise)
    of_population = torch.linalg.cholesky(covariance_of(open_head, truth, exact, 1e4))
    mean, spread_of_faces = expression_moments(open_head.expression_names)
    of_faces = torch.linalg.cholesky(spread_of_faces)
    by_code = 1000 * (open_head.identity_basis - open_head.identity_basis.mean(0)).double()

    generator = torch.Generator().manual_seed(5)
    squares = []
    for seed in range(people):
        person = of_population @ torch.randn(100, generator=generator).double()
        faces = mean + torch.randn(4, 52, generator=generator).double() @ of_faces.mT
        params = replace(
            truth.params,
            identity=person.float().expand(3, 4, -1),
            expression=faces.float().expand(3, -1, -1),
        )
        problem = seen(open_head, replace(truth, params=params), noise, seed)
        off = estimate_person(open_head, truth, problem, calibration=OPEN_ENCODER).identity - person
        squares.append(float((by_code @ off).square().sum(-1).mean()))
    expected = float(torch.einsum("vci, ij, vcj -> v", by_code, covariance, by_code).mean())
    unknown = float((by_code @ of_population).square().sum((1, 2)).mean())
    assert expected < 0.3 * unknown
    assert 0.7 * expected < fmean(squares) < 1.6 * expected


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return load_model("open")


def clip(model: FaceModel, views: int, time: int) -> Case:
    spec = CaseSpec(kind="synthetic", role="tuning", views=views, number=3, time=time, size_px=160)
    return make_case(spec, model.head)


def test_the_expected_error_falls_with_the_noise(model: FaceModel) -> None:
    case = clip(model, 1, 4)
    errors = [expected_shape_error_mm(case, model, noise_px) for noise_px in (0.05, 0.5, 50.0)]
    assert errors == sorted(errors)
    # Not everything shows in 68 points: exact ones leave some of the shape unknown.
    assert 0 < errors[0] < 0.5 * errors[2]
    # A person of whom nothing but the population is known.
    assert 2.5 < errors[2] < 8
    assert errors[1] == expected_shape_error_mm(case, model, 0.5)


def test_there_must_be_truth(model: FaceModel) -> None:
    case = clip(model, 1, 4)
    with pytest.raises(InputError, match="rendered people only"):
        expected_shape_error_mm(replace(case, truth=None), model, 0.5)
