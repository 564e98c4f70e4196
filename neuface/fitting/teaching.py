"""An encoder that is taught the solution of some footage, so that it sees more footage of the same person.

Fine-tuning an encoder on landmarks (`neuface.fitting.loop`) has to find expressions, poses and the identity while it
changes the weights. Here they are known, and the encoder is fitted to them: a regression that needs few passes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from neuface.encoders.personal import PersonalEncoder
from neuface.encoders.predictor import Predictor
from neuface.fitting.descent import GRADIENT_NORM_LIMIT, freeze_normalisation
from neuface.fitting.parameterisation import FineTunedEncoder, ImageSource, predict_clip
from neuface.geometry.rotations import rotvec_to_rotmat
from neuface.head.model import HeadModel
from neuface.structs import Prediction

__all__ = ["PASSES", "teach"]

PASSES = 20
"""Number of passes over the images after which unseen footage of the same people is predicted no better by more
(docs/fitting.md)."""
LEARNING_RATE = 3e-4
"""Largest step size of Adam; it rises over the first WARM_UP_STEPS and falls to zero as half a cosine."""
WARM_UP_STEPS = 10
IMAGES_PER_STEP = 16
"""Number of images of a gradient step, which bounds the memory."""
EXPRESSION_WEIGHT = 0.02
"""Weight of the mean squared error of the expression code beside the error of the landmarks, crop half-widths."""
ROTATION_WEIGHT = 0.3
"""Weight of the squared difference of rotation matrices (root and jaw), likewise."""


def teach(
    encoder: Predictor,
    head: HeadModel,
    images: ImageSource,
    solution: Prediction,
    trusted: Bool[Tensor, " images"],
    *,
    passes: int = PASSES,
    seed: int = 0,
    report: Callable[[int, float], None] | None = None,
) -> PersonalEncoder:
    """A copy of an encoder, fitted to the solution of some images of one person.

    Args:
        images: as the encoder takes them.
        solution: weak-perspective cameras of the crops, all images of one identity code; one batch axis.
        trusted: images whose solution is taught.
        report: called after every pass with its number and the mean loss.
    """
    scheme = next(iter(head.embeddings))
    taught = PersonalEncoder(copy.deepcopy(encoder), solution.params.identity[0], torch.ones(()))
    taught = taught.to(solution.params.identity)
    trainable = freeze_normalisation(taught)
    chosen = trusted.nonzero()[:, 0]
    with torch.no_grad():
        # The person may be of another size than the encoder believes.
        guess = predict_clip(
            FineTunedEncoder(taught, images), (1, len(trusted)), IMAGES_PER_STEP, trusted.device
        )
        larger = solution.camera.magnification / guess.camera.magnification[0]
        taught.magnification.copy_(larger[chosen].log().mean().exp())
    optimiser = torch.optim.Adam(trainable, lr=LEARNING_RATE)
    shuffler = torch.Generator().manual_seed(seed)
    per_pass = math.ceil(len(chosen) / IMAGES_PER_STEP)
    for number in range(passes):
        order = chosen[torch.randperm(len(chosen), generator=shuffler).to(chosen.device)]
        total = 0.0
        for step, index in enumerate(order.tensor_split(per_pass), start=number * per_pass):
            loss = _loss(head, scheme, taught(images[index]), solution[index])
            for group in optimiser.param_groups:
                group["lr"] = LEARNING_RATE * _share(step, passes * per_pass)
            optimiser.zero_grad(set_to_none=True)
            loss.mean().backward()
            nn.utils.clip_grad_norm_(trainable, GRADIENT_NORM_LIMIT)
            optimiser.step()
            total += float(loss.detach().sum())
        if report is not None:
            report(number + 1, total / len(chosen))
    return taught.eval()


def _loss(
    head: HeadModel, scheme: str, predicted: Prediction, solved: Prediction
) -> Float[Tensor, " images"]:
    """The distance of landmarks in the image, and of what they do not determine well: expression and rotations."""
    points, wanted = (
        item.camera.project(head.landmarks(item.params, scheme)) for item in (predicted, solved)
    )
    loss = (points - wanted).abs().sum(-1).mean(-1)
    loss = loss + EXPRESSION_WEIGHT * (predicted.params.expression - solved.params.expression).square().mean(
        -1
    )
    for name in ("root_rotvec", "jaw_rotvec"):
        turned, right = (rotvec_to_rotmat(getattr(item.params, name)) for item in (predicted, solved))
        loss = loss + ROTATION_WEIGHT * (turned - right).square().sum((-1, -2))
    return loss


def _share(step: int, steps: int) -> float:
    """The step size as a share of the largest."""
    return min(1.0, (step + 1) / WARM_UP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / steps))
