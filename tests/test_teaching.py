"""An encoder that is taught the result of a fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import neuface
from neuface.encoders.calibration import UNCALIBRATED
from neuface.evaluation.figures import image_nme_percent
from neuface.fitting import teaching
from neuface.structs import Status
from neuface.synthetic.clips import make_talking_clip
from neuface.synthetic.people import demo_identity


@pytest.fixture(scope="module")
def clip() -> neuface.Clip:
    head = neuface.load_head("open")
    made = make_talking_clip(head, demo_identity(), view_yaw_deg=(0.0,), time=6, size_px=96, seed=1)
    return neuface.read_clip(made.frames.numpy(), made.landmarks_px.numpy(), progress=False)


@pytest.fixture(scope="module")
def result(clip: neuface.Clip) -> neuface.FitResult:
    return neuface.optimize(clip, progress=False)


def test_it_comes_nearer_to_the_solution_than_the_pretrained_encoder(
    clip: neuface.Clip, result: neuface.FitResult
) -> None:
    model = neuface.load_model("open")
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    taught = neuface.teach_encoder(result, model=model, passes=20, progress=False)
    assert taught.calibration == UNCALIBRATED
    assert all(torch.equal(value, before[name]) for name, value in model.encoder.state_dict().items())
    alone, personal = (neuface.predict(clip, model=item, progress=False) for item in (model, taught))
    errors = [
        float(image_nme_percent(model.head, predicted, result.landmarks).mean())
        for predicted in (alone, personal)
    ]
    assert errors[1] < 0.8 * errors[0]
    torch.testing.assert_close(personal.params.identity, result.params.identity)
    misses = [
        float((predicted.params.expression - result.expression).square().mean())
        for predicted in (alone, personal)
    ]
    assert misses[1] < misses[0]


def test_the_same_seed_teaches_the_same(result: neuface.FitResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teaching, "IMAGES_PER_STEP", 2)
    first, second, other = (
        neuface.teach_encoder(result, passes=1, seed=seed, progress=False).encoder.state_dict()
        for seed in (3, 3, 4)
    )
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert any(not torch.equal(value, other[name]) for name, value in first.items())


def test_images_without_a_trusted_fit_are_left_out(result: neuface.FitResult) -> None:
    status = torch.full_like(result.status, int(Status.NO_FACE))
    with pytest.raises(neuface.InputError, match="no image has the status FITTED"):
        neuface.teach_encoder(replace(result, status=status), progress=False)
    status[0, 0] = int(Status.FITTED)
    wrong = result.expression.clone()
    wrong[:, 1:] = 5.0
    some = replace(result, status=status)
    first, second = (
        neuface.teach_encoder(item, passes=1, progress=False).encoder.state_dict()
        for item in (some, replace(some, expression=wrong))
    )
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_what_cannot_be_taught_is_refused(result: neuface.FitResult) -> None:
    with pytest.raises(neuface.InputError, match="expected a FitResult or a list of them"):
        neuface.teach_encoder([], progress=False)
    with pytest.raises(neuface.InputError, match="passes: expected at least 1, got 0"):
        neuface.teach_encoder(result, passes=0)
    with pytest.raises(neuface.InputError, match="loaded from a file and does not hold its video"):
        neuface.teach_encoder(replace(result, frames=None), progress=False)
    with pytest.raises(neuface.InputError, match="the video has 6 frames of"):
        neuface.teach_encoder(replace(result, frame_sizes_hw=((95, 96),)), progress=False)
    stranger = replace(result, identity=result.identity + 1)
    with pytest.raises(neuface.InputError, match="expected one identity code for all images"):
        neuface.teach_encoder([result, stranger], progress=False)
    with pytest.raises(neuface.ModelMismatchError):
        neuface.teach_encoder(replace(result, head_hash="0" * 64), progress=False)
