"""Widening reaches the requested variance and changes neither the size nor anything but the identity."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_encoder import SMALL_ENCODER

from neuface.encoders.open_encoder import OpenEncoder
from neuface.head.model import HeadModel
from neuface.synthetic.training_pictures import TrainingPictures
from neuface.training.calibration import widen_identity
from neuface.training.validation import face_shapes_mm, shape_variance_mm2

COUNT = 40


@pytest.fixture
def encoder(open_head: HeadModel) -> OpenEncoder:
    """An encoder whose predictions differ little between images."""
    torch.manual_seed(0)
    network = OpenEncoder(open_head, SMALL_ENCODER).eval()
    torch.nn.init.normal_(network.readout.weight, std=0.3)
    return network


@pytest.fixture
def pictures() -> TrainingPictures:
    generator = torch.Generator().manual_seed(1)
    return TrainingPictures(
        pictures=torch.randint(0, 256, (COUNT, 3, 112, 112), generator=generator, dtype=torch.uint8),
        identity=torch.randn(COUNT, 100, generator=generator),
        expression=torch.zeros(COUNT, 52),
        root_rotvec=torch.zeros(COUNT, 3),
        scale=torch.ones(COUNT),
        offset=torch.zeros(COUNT, 2),
    )


@torch.no_grad()
def variance(head: HeadModel, identity: torch.Tensor) -> float:
    return float(shape_variance_mm2(face_shapes_mm(head, replace(head.neutral(COUNT), identity=identity))))


def test_the_requested_variance_is_reached_and_other_predictions_are_unchanged(
    open_head: HeadModel, encoder: OpenEncoder, pictures: TrainingPictures
) -> None:
    before = encoder(pictures.pictures / 255)
    true = variance(open_head, pictures.identity)
    assert variance(open_head, before.params.identity) < 0.5 * true
    wide, gain = widen_identity(open_head, encoder, pictures, 0.6)
    after = wide(pictures.pictures / 255)
    assert gain > 1
    assert variance(open_head, after.params.identity) / true == pytest.approx(0.6, abs=0.01)
    for name in ("expression", "root_rotvec"):
        assert torch.equal(getattr(after.params, name), getattr(before.params, name))
    assert torch.equal(after.camera.magnification, before.camera.magnification)
    sizes = [open_head.log_size(item.params.identity) for item in (before, after)]
    assert torch.allclose(sizes[0], sizes[1], atol=1e-5)
    assert torch.allclose(before.params.identity.mean(0), after.params.identity.mean(0), atol=1e-4)


def test_an_encoder_of_sufficient_variance_is_unchanged(
    open_head: HeadModel, encoder: OpenEncoder, pictures: TrainingPictures
) -> None:
    same, gain = widen_identity(open_head, encoder, pictures, 0.0)
    assert gain == 1
    for one, other in zip(same.parameters(), encoder.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
