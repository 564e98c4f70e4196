"""The expected error of an ideal estimator of a clip's landmarks."""

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


def rotating(head: HeadModel, views: int, time: int) -> Prediction:
    generator = torch.Generator().manual_seed(0)
    params = head.neutral(views, time)
    rotvec = 0.3 * torch.randn(views, time, 3, generator=generator).to(params.root_rotvec)
    rotvec[..., 1] += 0.6 * (torch.arange(views) - (views - 1) / 2)[:, None]
    scale = params.identity.new_full((views, time), 5.0)
    return Prediction(
        params=replace(params, root_rotvec=rotvec),
        camera=WeakPerspective(scale=scale, offset=scale.new_zeros(views, time, 2)),
    )


def problem_of(head: HeadModel, truth: Prediction, noise_ndc: float = 0.0, seed: int = 0) -> Problem:
    points = truth.camera.project(head.landmarks(truth.params, "ibug68"))
    noise = noise_ndc * torch.randn(points.shape, generator=torch.Generator().manual_seed(seed)).to(points)
    return Problem.in_one_crop(
        observed_ndc=points + noise,
        confidence=torch.ones_like(points[..., 0]),
        valid=torch.ones(points.shape[:2], dtype=torch.bool),
        scheme=IBUG68,
    )


def covariance_of(head: HeadModel, truth: Prediction, problem: Problem, noise_px: float) -> Tensor:
    return identity_covariance(head, truth, problem, noise_px, calibration=OPEN_ENCODER)


def spread(head: HeadModel, truth: Prediction, noise_px: float) -> float:
    return float(covariance_of(head, truth, problem_of(head, truth), noise_px).diagonal().sum())


def test_variance_falls_with_more_images_and_less_noise(tiny_head) -> None:
    head = tiny_head()
    one = spread(head, rotating(head, 1, 4), 0.003)
    assert spread(head, rotating(head, 1, 12), 0.003) < one
    assert spread(head, rotating(head, 3, 4), 0.003) < one
    assert spread(head, rotating(head, 1, 4), 0.0015) < one < spread(head, rotating(head, 1, 4), 0.006)
    # Landmarks with a noise of 100 do not narrow the distribution of the population.
    nothing = covariance_of(head, rotating(head, 1, 4), problem_of(head, rotating(head, 1, 4)), 100.0)
    size_direction = head.log_size(torch.eye(6).double())
    size_direction = size_direction / size_direction.norm()
    expected = torch.eye(6).double() - 0.38 * torch.outer(size_direction, size_direction)
    torch.testing.assert_close(nothing, expected, atol=2e-2, rtol=0)


def test_the_predicted_variance_is_that_of_estimates_of_many_people(open_head: HeadModel) -> None:
    """For people, expressions and noise drawn from the model, the mean squared error is 0.7 to 1.6 times the
    bound.
    """
    noise, people = 0.003, 12
    truth = rotating(open_head, 3, 4)
    exact = problem_of(open_head, truth)
    covariance = covariance_of(open_head, truth, exact, noise)
    of_population = torch.linalg.cholesky(covariance_of(open_head, truth, exact, 1e4))
    mean, expression_covariance = expression_moments(open_head.expression_names)
    of_expressions = torch.linalg.cholesky(expression_covariance)
    by_code = 1000 * (open_head.identity_basis - open_head.identity_basis.mean(0)).double()

    generator = torch.Generator().manual_seed(5)
    squares = []
    for seed in range(people):
        person = of_population @ torch.randn(100, generator=generator).double()
        expressions = mean + torch.randn(4, 52, generator=generator).double() @ of_expressions.mT
        params = replace(
            truth.params,
            identity=person.float().expand(3, 4, -1),
            expression=expressions.float().expand(3, -1, -1),
        )
        problem = problem_of(open_head, replace(truth, params=params), noise, seed)
        error = estimate_person(open_head, truth, problem, calibration=OPEN_ENCODER).identity - person
        squares.append(float((by_code @ error).square().sum(-1).mean()))
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
    # 68 exact points do not determine the whole shape.
    assert 0 < errors[0] < 0.5 * errors[2]
    # Landmarks with 50 px of noise leave the error of the population's mean.
    assert 2.5 < errors[2] < 8
    assert errors[1] == expected_shape_error_mm(case, model, 0.5)


def test_a_case_without_truth_is_refused(model: FaceModel) -> None:
    case = clip(model, 1, 4)
    with pytest.raises(InputError, match="rendered people only"):
        expected_shape_error_mm(replace(case, truth=None), model, 0.5)
