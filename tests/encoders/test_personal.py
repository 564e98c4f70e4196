"""The fine-tuned encoder as a model for more footage of the same person."""

from __future__ import annotations

import torch

import neuface
from neuface.encoders.calibration import UNCALIBRATED
from neuface.synthetic.clips import SyntheticClip, make_talking_clip
from neuface.synthetic.people import demo_identity

PASSES = neuface.FitConfig.neural({"m_step.stop.max_passes": 2})


def talking(time: int, seed: int) -> SyntheticClip:
    head = neuface.load_head("open")
    return make_talking_clip(head, demo_identity(), view_yaw_deg=(0.0,), time=time, size_px=128, seed=seed)


def test_it_predicts_on_the_fitted_clip_what_the_fit_returned() -> None:
    clip = talking(6, 1)
    frames, landmarks = clip.frames.numpy(), clip.landmarks_px.numpy()
    result = neuface.optimize(frames, landmarks=landmarks, config=PASSES, progress=False)
    assert result.encoder is not None
    again = neuface.predict(frames, landmarks=landmarks, model=result.encoder, progress=False)
    torch.testing.assert_close(again.params.identity, result.params.identity)
    torch.testing.assert_close(again.params.expression, result.expression, atol=1e-5, rtol=0.0)
    torch.testing.assert_close(again.params.root_rotvec, result.root_rotvec, atol=1e-5, rtol=0.0)
    torch.testing.assert_close(again.camera.position, result.camera.position, atol=1e-2, rtol=0.0)
    torch.testing.assert_close(again.camera.magnification, result.camera.magnification, rtol=1e-4, atol=0.0)


def test_it_fits_other_footage_as_any_model_does() -> None:
    clip, other = talking(6, 1), talking(4, 2)
    first = neuface.optimize(
        clip.frames.numpy(), landmarks=clip.landmarks_px.numpy(), config=PASSES, progress=False
    )
    assert first.encoder is not None
    assert first.encoder.calibration == UNCALIBRATED
    second = neuface.optimize(
        other.frames.numpy(), landmarks=other.landmarks_px.numpy(), model=first.encoder, progress=False
    )
    assert float(second.image_nme_percent.mean()) < 2.0


def test_predict_is_the_encoder_alone() -> None:
    clip = talking(4, 3)
    frames, landmarks = clip.frames.numpy(), clip.landmarks_px.numpy()
    predicted = neuface.predict(frames, landmarks=landmarks, progress=False)
    result = neuface.optimize(frames, landmarks=landmarks, progress=False)
    assert result.encoder is None
    torch.testing.assert_close(predicted.params.expression, result.initial.params.expression)
    torch.testing.assert_close(predicted.camera.position, result.initial.camera.position)
