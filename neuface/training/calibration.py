"""Compensation of regression to the mean: predicted identities with the variance of the population."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.encoders.open_encoder import OpenEncoder
from neuface.head.model import HeadModel
from neuface.synthetic.training_pictures import TrainingPictures
from neuface.training.validation import IMAGES_PER_BATCH, face_shapes_mm, shape_variance_mm2

# Number of fixed-point iterations. The gain does not act on the size, which has a share of the variance, so that
# there is no closed form.
ITERATIONS = 8


@torch.no_grad()
def widen_identity(
    head: HeadModel, encoder: OpenEncoder, pictures: TrainingPictures, variance_share: float
) -> tuple[OpenEncoder, float]:
    """A copy whose predicted face shapes have at least `variance_share` of the true variance over people.

    A network trained for the least error predicts the mean of all faces that are consistent with an image. Its
    predictions therefore vary less than faces do (by the factor R^2 of the variance for least squares). The deviation
    of the predicted identity codes from their mean is multiplied by a gain, which is written into the last layer. The
    gain is the same for all directions, because the error it adds per variance it adds depends on the gain alone. The
    direction of the face's size is excepted, because an image does not determine it. The encoder's other predictions
    do not change.

    Args:
        pictures: images of many people, such as those of the training.
        variance_share: share of the true variance of the face shape over people, positive.

    Returns:
        The calibrated encoder, in evaluation mode, and the gain; 1 if the variance is already large enough.
    """
    wide = copy.deepcopy(encoder).eval()
    codes = torch.cat(
        [
            wide(pictures[start : start + IMAGES_PER_BATCH].pictures.to(head.template) / 255).params.identity
            for start in range(0, len(pictures.pictures), IMAGES_PER_BATCH)
        ]
    )
    mean = codes.mean(0)
    size = head.log_size(torch.eye(head.num_identity).to(head.template))
    onto_size = torch.outer(size, size) / size.square().sum()
    unit = torch.eye(head.num_identity).to(head.template)
    true = _variance_mm2(head, pictures.identity)
    gain = 1.0
    change = unit
    for _ in range(ITERATIONS):
        predicted = _variance_mm2(head, mean + (codes - mean) @ change.mT)
        gain = max(1.0, gain * float((variance_share * true / predicted).sqrt()))
        change = gain * unit + (1 - gain) * onto_size
    rows = slice(0, head.num_identity)
    wide.readout.weight[rows] = change @ wide.readout.weight[rows]
    wide.readout.bias[rows] = change @ (wide.readout.bias[rows] - mean) + mean
    return wide, gain


def _variance_mm2(head: HeadModel, identity: Float[Tensor, "n identity"]) -> Float[Tensor, ""]:
    at_rest = replace(head.neutral(len(identity)), identity=identity)
    return shape_variance_mm2(face_shapes_mm(head, at_rest))
