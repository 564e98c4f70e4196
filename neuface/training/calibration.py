"""Undoing the shrinkage of regression: predicted identities as varied as people are, at almost no cost in error."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.encoders.open_encoder import OpenEncoder
from neuface.head.model import HeadModel
from neuface.synthetic.training_pictures import TrainingPictures
from neuface.training.validation import PICTURES_AT_ONCE, face_shapes_mm, shape_variance_mm2

# The size keeps a part of the variance out of the gain's reach, so that the gain is found by iteration.
ROUNDS = 8


@torch.no_grad()
def widened(
    head: HeadModel, encoder: OpenEncoder, pictures: TrainingPictures, variance_share: float
) -> tuple[OpenEncoder, float]:
    """A copy whose predicted face shapes have at least `variance_share` of the true variance over people.

    A network trained to least error answers with the mean of all faces that a picture allows, so its answers vary
    less than faces do (a share R^2 of the variance for least squares). The deviation of the answered identity codes
    from their mean is multiplied by one gain, written into the last layer: one for all directions, because the error
    that a gain adds per variance that it adds depends on the gain alone. Only the size is left as it is, which no
    picture shows. The encoder's other answers stay.

    Args:
        pictures: of many people; those of the training will do.

    Returns:
        The widened encoder, in evaluation mode, and the gain; 1 for an encoder that needs none.
    """
    wide = copy.deepcopy(encoder).eval()
    codes = torch.cat(
        [
            wide(pictures[start : start + PICTURES_AT_ONCE].pictures.to(head.template) / 255).params.identity
            for start in range(0, len(pictures.pictures), PICTURES_AT_ONCE)
        ]
    )
    mean = codes.mean(0)
    size = head.log_size(torch.eye(head.num_identity).to(head.template))
    keep_size = torch.outer(size, size) / size.square().sum()
    unit = torch.eye(head.num_identity).to(head.template)
    true = _variance_mm2(head, pictures.identity)
    gain = 1.0
    change = unit
    for _ in range(ROUNDS):
        predicted = _variance_mm2(head, mean + (codes - mean) @ change.mT)
        gain = max(1.0, gain * float((variance_share * true / predicted).sqrt()))
        change = gain * unit + (1 - gain) * keep_size
    rows = slice(0, head.num_identity)
    wide.readout.weight[rows] = change @ wide.readout.weight[rows]
    wide.readout.bias[rows] = change @ (wide.readout.bias[rows] - mean) + mean
    return wide, gain


def _variance_mm2(head: HeadModel, identity: Float[Tensor, "n identity"]) -> Float[Tensor, ""]:
    at_rest = replace(head.neutral(len(identity)), identity=identity)
    return shape_variance_mm2(face_shapes_mm(head, at_rest))
