"""How wrong an encoder is on average belongs to the model, and reaches the estimate of the person."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from neuface.encoders.calibration import OPEN_ENCODER, UNCALIBRATED, EncoderCalibration
from neuface.errors import InputError
from neuface.fitting.config import FitConfig
from neuface.models import load_model
from neuface.pipeline import optimize
from neuface.synthetic.clips import make_talking_clip


@pytest.mark.parametrize("share", [0.0, -1.0, math.nan, math.inf])
def test_a_share_that_is_not_positive_is_refused(share: float) -> None:
    with pytest.raises(InputError, match="size_error_share: expected a positive number"):
        EncoderCalibration(size_error_share=share)


def test_the_open_model_carries_the_open_encoders_calibration() -> None:
    assert load_model("open").calibration is OPEN_ENCODER


def test_a_models_calibration_decides_how_far_the_size_follows_the_landmarks() -> None:
    """The size stays at the prediction of an encoder that is said to be exact; otherwise it follows the landmarks."""
    model = load_model("open")
    person = torch.randn(model.head.num_identity, generator=torch.Generator().manual_seed(4))
    clip = make_talking_clip(
        model.head, person, view_yaw_deg=(-25.0, 15.0), time=4, size_px=128, noise_px=0.3
    )

    def change_of_log_size(calibration: EncoderCalibration) -> float:
        result = optimize(
            clip.frames.numpy(),
            landmarks=clip.landmarks_px.numpy(),
            model=replace(model, calibration=calibration),
            config=FitConfig.best({"m_step.stop.max_passes": 1}),
            progress=False,
        )
        predicted = result.initial.params.identity.flatten(0, 1).mean(0)
        fitted = result.params.identity.flatten(0, 1).mean(0)
        return float(model.head.log_size(fitted) - model.head.log_size(predicted))

    exact = change_of_log_size(EncoderCalibration(size_error_share=1e-6))
    assert abs(exact) < 1e-4
    some, most = change_of_log_size(OPEN_ENCODER), change_of_log_size(UNCALIBRATED)
    assert abs(most) > abs(some) > 1e-3
