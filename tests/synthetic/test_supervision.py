"""Crop jitter moves pictures and truth alike, and the loss is zero at the truth."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from neuface.encoders.open_encoder import OpenEncoder, OpenEncoderConfig
from neuface.head.model import HeadModel
from neuface.structs import Prediction, WeakPerspective
from neuface.synthetic.people import sample_expressions
from neuface.synthetic.supervision import LOSS_WEIGHTS, Supervision, jitter_crops, total_loss
from neuface.synthetic.training import crop_camera, sample_rotations

COUNT, SIZE = 5, 112


@pytest.fixture
def truth(open_head: HeadModel) -> Prediction:
    generator = torch.Generator().manual_seed(2)
    params = replace(
        open_head.neutral(COUNT),
        identity=torch.randn(COUNT, 100, generator=generator),
        expression=sample_expressions(open_head.expression_names, COUNT, generator),
        root_rotvec=sample_rotations(generator, COUNT),
    )
    return Prediction(params=params, camera=crop_camera(open_head, params, generator))


def test_jitter_moves_the_picture_as_it_moves_the_truth(open_head: HeadModel, truth: Prediction) -> None:
    """A soft spot painted at a landmark is found again at the landmark of the moved truth."""
    nose = truth.camera.project(open_head.landmarks(truth.params, "mediapipe478"))[:, 4]
    along = (torch.arange(SIZE) + 0.5) * 2 / SIZE - 1
    y, x = torch.meshgrid(along, along, indexing="ij")
    far = (x - nose[:, 0, None, None]) ** 2 + (y - nose[:, 1, None, None]) ** 2
    spots = torch.exp(-far / 0.01)[:, None].expand(-1, 3, -1, -1)
    moved, moved_truth = jitter_crops(spots, truth, open_head, torch.Generator().manual_seed(9))
    weight = moved[:, 0] / moved[:, 0].sum((1, 2), keepdim=True)
    found = torch.stack(((weight * x).sum((1, 2)), (weight * y).sum((1, 2))), dim=-1)
    expected = moved_truth.camera.project(open_head.landmarks(moved_truth.params, "mediapipe478"))[:, 4]
    assert (expected - nose).norm(dim=-1).max() > 0.03
    assert torch.allclose(found, expected, atol=0.01)


def test_jitter_is_a_similarity_of_all_projected_points(open_head: HeadModel, truth: Prediction) -> None:
    pictures = torch.zeros(COUNT, 3, SIZE, SIZE)
    _, moved = jitter_crops(pictures, truth, open_head, torch.Generator().manual_seed(1))
    before = truth.camera.project(open_head.vertices(truth.params))
    after = moved.camera.project(open_head.vertices(moved.params))
    sizes = [(item - item.mean(1, keepdim=True)).norm(dim=(1, 2)) for item in (before, after)]
    assert torch.allclose(sizes[1] / sizes[0], moved.camera.scale / truth.camera.scale, rtol=1e-4)


def test_loss_is_zero_at_the_truth_and_grows_away_from_it(open_head: HeadModel, truth: Prediction) -> None:
    supervision = Supervision(open_head)
    config = OpenEncoderConfig(widths=(4, 4, 8, 8), reduced_channels=4, hidden=16)
    encoder = OpenEncoder(open_head, config)
    parts = supervision.parts(encoder, truth, truth)
    assert parts.keys() == LOSS_WEIGHTS.keys()
    assert float(total_loss(parts)) < 1e-2
    shifted = WeakPerspective(scale=truth.camera.scale, offset=truth.camera.offset + 0.1)
    parts = supervision.parts(encoder, replace(truth, camera=shifted), truth)
    assert float(parts["image"]) == pytest.approx(0.1, abs=1e-4)
    assert float(parts["shape_mm"]) == pytest.approx(0.0, abs=1e-4)


def test_compared_points_are_where_the_head_puts_them(open_head: HeadModel, truth: Prediction) -> None:
    supervision = Supervision(open_head)
    posed = supervision._posed(supervision.points(truth.params), truth.params)
    assert torch.allclose(posed[:, :478], open_head.landmarks(truth.params, "mediapipe478"), atol=1e-5)
