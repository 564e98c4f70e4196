"""The study's figures, for errors that are drawn from the estimated deviations themselves."""

from __future__ import annotations

import math

import pytest
import torch

from neuface.landmarks.face_mesh.uncertainty import BIAS, OF_FACE, OF_POINT, OF_SIZE, estimated_px
from neuface.landmarks.schemes import MEDIAPIPE478
from neuface.models import load_head
from studies.landmark_uncertainty.__main__ import Samples, calibration, coefficients


@pytest.fixture(scope="module")
def samples() -> Samples:
    """Faces of many sizes whose errors have exactly the estimated deviations."""
    generator = torch.Generator().manual_seed(0)
    head = load_head("open")
    flat = head.landmarks(head.neutral(), MEDIAPIPE478.name)[:, :2] * torch.tensor([1.0, -1.0])
    size = 300 + 1500 * torch.rand(60, 1, 1, generator=generator)
    points = 300 + size * flat
    unsure = 0.02 * size[..., 0] * torch.rand(60, 1, generator=generator) ** 2
    difference = unsure * (0.2 + torch.rand(60, 478, generator=generator))
    sigma = estimated_px(points, difference)
    noise = torch.randn(2, 60, 478, generator=generator)
    return Samples(points_px=points, difference_px=difference, error_px=sigma * noise.square().mean(0).sqrt())


def test_exact_deviations_have_the_ratios_of_a_normal_distribution(samples: Samples) -> None:
    for each in calibration(samples)["classes"]:
        assert each["rms_ratio"] == pytest.approx(1.0, abs=0.05)
        assert each["median_ratio"] == pytest.approx(math.sqrt(math.log(2)), abs=0.05)
        # Twice the squared ratio is distributed as chi squared with two degrees of freedom.
        assert each["beyond_3_sigma"] == pytest.approx(math.exp(-9), abs=2e-3)


def test_the_coefficients_are_found_again(samples: Samples) -> None:
    found = coefficients(samples)
    # Normal errors have lighter tails than the assumed ones, which moves the bias alone.
    assert found["OF_POINT"] == pytest.approx(OF_POINT, abs=0.05)
    assert found["OF_FACE"] == pytest.approx(OF_FACE, abs=0.05)
    assert found["OF_SIZE"] == pytest.approx(OF_SIZE, abs=0.05)
    assert found["BIAS"] == pytest.approx(BIAS, abs=0.5)
