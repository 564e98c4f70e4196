"""The losses are zero at the truth and have the stated units."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_encoder import SMALL_ENCODER

from neuface.encoders.open_encoder import OpenEncoder
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import SCHEMES
from neuface.structs import Prediction, WeakPerspective
from neuface.training.recordings import RecordedFrames
from neuface.training.supervision import FOOTAGE_WEIGHTS, LOSS_WEIGHTS, Supervision, total_loss

COUNT, SIZE = 5, 112


def test_loss_is_zero_at_the_truth_and_grows_away_from_it(open_head: HeadModel, truth: Prediction) -> None:
    supervision = Supervision(open_head)
    encoder = OpenEncoder(open_head, SMALL_ENCODER)
    parts = supervision.parts(encoder, truth, truth)
    assert parts.keys() == LOSS_WEIGHTS.keys()
    assert float(total_loss(parts)) < 1e-2
    shifted = WeakPerspective(scale=truth.camera.magnification, offset=truth.camera.position + 0.1)
    parts = supervision.parts(encoder, replace(truth, camera=shifted), truth)
    assert float(parts["image"]) == pytest.approx(0.1, abs=1e-4)
    assert float(parts["shape_mm"]) == pytest.approx(0.0, abs=1e-4)


def test_compared_points_equal_the_heads_landmarks(open_head: HeadModel, truth: Prediction) -> None:
    supervision = Supervision(open_head)
    posed = supervision._posed(supervision.points(truth.params), truth.params)
    fixed = open_head.landmarks(truth.params, "mediapipe478", facing=truth.params.unposed())
    assert torch.allclose(posed[:, :478], fixed, atol=1e-5)


def observed_as(head: HeadModel, prediction: Prediction, scheme: str) -> RecordedFrames:
    """Frames whose landmarks are exactly those of the prediction, two of each person."""
    points = prediction.camera.project(head.landmarks(prediction.params, scheme))
    return RecordedFrames(
        pictures=torch.zeros(COUNT, 3, 8, 8, dtype=torch.uint8),
        points_ndc=points,
        confidence=torch.ones(points.shape[:2]),
        clip=torch.zeros(COUNT, dtype=torch.long),
        person=torch.arange(COUNT) // 2,
        scheme=SCHEMES[scheme],
        clip_names=("clip",),
        persons=("a", "b", "c"),
    )


@pytest.mark.parametrize("scheme", ["ibug68", "mediapipe478"])
def test_footage_losses_are_zero_at_the_observed_landmarks(
    open_head: HeadModel, truth: Prediction, scheme: str
) -> None:
    supervision = Supervision(open_head)
    frames = observed_as(open_head, truth, scheme)
    parts = supervision.footage_parts(truth, frames)
    assert parts.keys() == FOOTAGE_WEIGHTS.keys()
    assert float(parts["footage_image"]) == pytest.approx(0, abs=1e-6)
    assert float(parts["footage_closure"]) == pytest.approx(0, abs=1e-6)
    moved = replace(frames, points_ndc=frames.points_ndc + 0.1)
    parts = supervision.footage_parts(truth, moved)
    # The loss is L1 per coordinate. A shift of the whole face opens neither eyes nor lips.
    assert float(parts["footage_image"]) == pytest.approx(0.1, abs=1e-5)
    assert float(parts["footage_closure"]) == pytest.approx(0, abs=1e-6)


def test_a_closed_eye_raises_the_closure_loss(open_head: HeadModel, truth: Prediction) -> None:
    supervision = Supervision(open_head)
    shut = observed_as(open_head, truth, "ibug68")
    points = shut.points_ndc.clone()
    points[:, [37, 38]] = points[:, [41, 40]]
    parts = supervision.footage_parts(truth, replace(shut, points_ndc=points))
    opening = (shut.points_ndc[:, [37, 38]] - shut.points_ndc[:, [41, 40]]).abs().sum() / (2 * 7 * COUNT)
    assert float(parts["footage_closure"]) == pytest.approx(float(opening), rel=1e-4)


def test_consistency_is_the_spread_within_each_person(open_head: HeadModel, truth: Prediction) -> None:
    supervision = Supervision(open_head)
    frames = observed_as(open_head, truth, "ibug68")
    identity = truth.params.identity
    spread = float(supervision.footage_parts(truth, frames)["footage_consistency"])
    # Two people have two frames each; the third has one frame and therefore no spread.
    pairs = [(identity[0] - identity[1]).square() / 2, (identity[2] - identity[3]).square() / 2]
    assert spread == pytest.approx(float(sum(pair.sum() for pair in pairs)) / identity.numel(), rel=1e-4)
    everyone_else = replace(frames, person=torch.arange(COUNT))
    assert float(supervision.footage_parts(truth, everyone_else)["footage_consistency"]) == 0
