"""The linear model of the landmarks: it is the head's, and its priors have the variances that are documented."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from talking_people import landmarks_of, talking, weak_prediction

from neuface.encoders.calibration import OPEN_ENCODER, UNCALIBRATED, EncoderCalibration
from neuface.fitting.person.gauss_newton import initial_estimate, predict
from neuface.fitting.person.linear_model import LinearModel, linear_model
from neuface.landmarks.schemes import IBUG68
from neuface.structs import Prediction


def model_of(head, initial: Prediction, truth: Prediction, calibration=OPEN_ENCODER) -> LinearModel:
    time = initial.params.identity.shape[1]
    problem = landmarks_of(head, truth)
    return linear_model(
        head, initial, problem, torch.arange(time), initial.params.identity[0, 0], calibration
    )


def test_the_true_codes_predict_the_landmarks(tiny_head) -> None:
    """Landmarks of another person and expression follow from the derivatives, exactly."""
    head = tiny_head()
    truth = talking(head, 2, 4)
    unknown = replace(truth.params, identity=torch.zeros_like(truth.params.identity))
    initial = replace(truth, params=replace(unknown, expression=torch.zeros_like(unknown.expression)))
    model = model_of(head, initial, truth)
    shared = model.shared_mean.clone()
    shared[: model.num_identity] = truth.params.identity[0, 0]
    estimate = replace(initial_estimate(model), shared=shared, expression=truth.params.expression[0])
    # Rotation is about the root joint in the head and about the origin in the model: the images differ by a shift.
    found, expected = predict(model, estimate).image, model.observed
    found, expected = found - found.mean(2, keepdim=True), expected - expected.mean(2, keepdim=True)
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=0)


@pytest.mark.parametrize("calibration", [OPEN_ENCODER, UNCALIBRATED])
def test_the_prior_of_the_identity_has_the_calibrated_variance_of_size(
    tiny_head, calibration: EncoderCalibration
) -> None:
    head = tiny_head()
    truth = talking(head, 1, 2)
    model = model_of(head, weak_prediction(truth), truth, calibration)
    covariance, direction = torch.linalg.inv(model.identity_precision), model.size_direction
    assert float(direction @ covariance @ direction) == pytest.approx(calibration.size_error_share)
    others = torch.eye(len(direction)).to(direction) - torch.outer(direction, direction)
    torch.testing.assert_close(others @ covariance @ others, others)


def test_displacements_of_the_contour_are_larger_and_neighbours_have_similar_ones(tiny_head) -> None:
    head = tiny_head()
    truth = talking(head, 2, 1)
    model = model_of(head, weak_prediction(truth), truth)
    covariance = torch.linalg.inv(model.displacement_precision)
    variance = covariance.diagonal().view(2, 3, 68).mT
    torch.testing.assert_close(variance[:, 17:], torch.ones(2, 51, 3).double())
    torch.testing.assert_close(variance[:, :17], torch.full((2, 17, 3), 1.7**2).double())
    of_view = covariance.view(2, 3, 68, 2, 3, 68).permute(0, 2, 1, 3, 5, 4)
    assert float(of_view[0, :, :, 1].abs().max()) < 1e-9
    x = of_view[0, 17:, 0, 0, 17:, 0]
    points = 1000 * head.landmarks(head.neutral(), "ibug68")[17:]
    expected = 0.9 * torch.exp(-torch.cdist(points, points) / 20) + 0.1 * torch.eye(51).double()
    torch.testing.assert_close(x, expected)


def test_the_scheme_says_which_points_are_its_contour_and_how_noisy_they_are(tiny_head) -> None:
    head = tiny_head()
    truth = talking(head, 1, 1)
    few = replace(IBUG68, groups=(("contour", (5, 8, 11)),), contour_noise=3.0)
    problem = replace(landmarks_of(head, truth), scheme=few)
    initial = weak_prediction(truth)
    model = linear_model(head, initial, problem, torch.arange(1), initial.params.identity[0, 0], OPEN_ENCODER)
    std = torch.linalg.inv(model.displacement_precision).diagonal().view(3, 68).mT.sqrt()
    expected = torch.ones(68, 3).double()
    expected[[5, 8, 11]] = 3.0
    torch.testing.assert_close(std, expected)


def test_a_larger_head_has_proportionally_larger_priors(tiny_head) -> None:
    head = tiny_head()
    truth = talking(head, 1, 2)
    model = model_of(head, weak_prediction(truth), truth)
    larger = model.resized(torch.tensor(1.1).log().item())
    for name in ("expression_precision", "displacement_precision"):
        std, larger_std = (
            torch.linalg.inv(getattr(item, name)).diagonal().sqrt() for item in (model, larger)
        )
        torch.testing.assert_close(larger_std, 1.1 * std)
    torch.testing.assert_close(larger.identity_precision, model.identity_precision)
