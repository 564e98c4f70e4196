"""The open encoder: shapes, ranges, and the algebra that decouples rotation from translation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_encoder import SMALL_ENCODER

from neuface.encoders.open_encoder import OpenEncoder, anchor_centre, face_anchor
from neuface.encoders.predictor import Predictor
from neuface.errors import InputError
from neuface.head.model import HeadModel


@pytest.fixture
def encoder(open_head: HeadModel) -> OpenEncoder:
    torch.manual_seed(3)
    made = OpenEncoder(open_head, SMALL_ENCODER)
    # With these weights predictions differ between images, as a trained network's do.
    torch.nn.init.normal_(made.readout.weight, std=0.3)
    return made.eval()


def test_is_a_predictor_and_averages_pixels_once(encoder: OpenEncoder) -> None:
    assert isinstance(encoder, Predictor)
    assert encoder.input_px == 224
    crops = torch.rand(2, 3, 224, 224)
    inputs = encoder.prepare(crops)
    assert inputs.shape == (2, 3, 112, 112)
    assert torch.allclose(inputs[1, 2, 5, 7], crops[1, 2, 10:12, 14:16].mean())


def test_refuses_crops_of_another_size(encoder: OpenEncoder) -> None:
    with pytest.raises(InputError, match="224"):
        encoder.prepare(torch.rand(2, 3, 256, 256))


def test_predictions_have_the_heads_shapes_and_expressions_in_range(
    encoder: OpenEncoder, open_head: HeadModel
) -> None:
    prediction = encoder(torch.rand(3, 3, 112, 112))
    prediction = prediction.detach()
    assert prediction.params.identity.shape == (3, open_head.num_identity)
    assert prediction.params.expression.shape == (3, open_head.num_expression)
    assert prediction.params.eyes_rotvec.shape == (3, 2, 3)
    assert (prediction.params.expression > 0).all()
    assert (prediction.params.expression < 1).all()
    assert (prediction.camera.magnification > 0).all()
    for still in (prediction.params.neck_rotvec, prediction.params.jaw_rotvec, prediction.params.eyes_rotvec):
        assert not still.any()


def test_same_weights_and_images_give_the_same_prediction(encoder: OpenEncoder) -> None:
    images = torch.rand(2, 3, 112, 112)
    first, again = encoder(images), encoder(images)
    assert torch.equal(first.params.identity, again.params.identity)
    assert torch.equal(first.camera.position, again.camera.position)


def test_untrained_network_starts_at_a_typical_face(open_head: HeadModel) -> None:
    with torch.no_grad():
        prediction = OpenEncoder(open_head, SMALL_ENCODER).eval()(torch.rand(1, 3, 112, 112))
    assert torch.allclose(prediction.camera.magnification, torch.tensor(9.0), rtol=0.1)
    assert float(prediction.params.expression.max()) < 0.1


def test_the_posed_anchor_projects_to_the_predicted_position(
    encoder: OpenEncoder, open_head: HeadModel
) -> None:
    images = torch.rand(4, 3, 112, 112)
    outputs: list[torch.Tensor] = []
    encoder.readout.register_forward_hook(lambda module, inputs, output: outputs.append(output.detach()))
    with torch.no_grad():
        prediction = encoder(images)
    # The anchor is the only vertex of a head that only the root moves, posed by the usual skinning.
    rooted = torch.zeros(1, 5)
    rooted[0, 0] = 1
    one_point = replace(
        open_head,
        template=face_anchor(open_head)[None],
        identity_basis=torch.zeros(1, 3, open_head.num_identity),
        expression_basis=torch.zeros(1, 3, open_head.num_expression),
        skinning_weights=rooted,
        joint_expression_basis=torch.zeros_like(open_head.joint_expression_basis),
        regions={},
        embeddings={},
    )
    seen = prediction.camera.project(one_point.vertices(prediction.params))[:, 0]
    assert torch.allclose(seen, outputs[0][:, -2:], atol=1e-4)
    posed = encoder.posed_anchor(prediction.params.identity, prediction.params.root_rotvec)
    assert torch.allclose(anchor_centre(prediction.camera, posed), seen, atol=1e-4)


def test_gradients_reach_every_weight(encoder: OpenEncoder, open_head: HeadModel) -> None:
    prediction = encoder.train()(torch.rand(4, 3, 112, 112))
    seen = prediction.camera.project(open_head.landmarks(prediction.params, "ibug68"))
    seen.square().sum().backward()
    for name, weight in encoder.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        assert weight.grad.abs().sum() > 0, name
