"""What the studies compare: variants, each a configuration and the parameters that the gradient moves."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from neuface.fitting.config import FitConfig
from neuface.fitting.parameterisation import (
    FineTunedEncoder,
    FreeParameters,
    Parameterisation,
    predict_clip,
)
from neuface.fitting.problem import Problem
from neuface.frames import Clip
from neuface.model_inputs import encode_images, model_inputs
from neuface.models import FaceModel
from neuface.pipeline import fit_clips
from neuface.results.fit_result import FitResult
from neuface.structs import Prediction

ENCODER = "encoder"
"""Name of the variant without a fit: the predictions of the pretrained encoder."""

Parameters = Literal["weights", "free", "bounded"]
"""What the gradient moves. `weights`: those of the encoder. `free`: scale, offset, orientation, identity and
expression of every image (`FreeParameters`). `bounded`: the same parameters behind the activations of the encoder's
last layer (`BoundedParameters`)."""

SMALLEST_AMOUNT = 1e-4
"""Expression amounts are clamped to this distance from 0 and 1, whose logits are infinite."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of a study's tables."""

    name: str
    title: str
    config: FitConfig | None
    """None: the predictions of the pretrained encoder, without a fit."""
    parameters: Parameters = "weights"


class BoundedParameters(FreeParameters):
    """Free parameters behind the activations of the encoder's last layer.

    Expression passes through a sigmoid, which keeps it within 0..1, and scale through an exponential.
    """

    def __init__(self, start: Prediction) -> None:
        """Start at `start`, batch axes `views time` or one batch axis; scales must be positive."""
        amounts = start.params.expression.clamp(SMALLEST_AMOUNT, 1 - SMALLEST_AMOUNT)
        super().__init__(
            Prediction(
                params=replace(start.params, expression=amounts.logit()),
                camera=start.camera.placed(start.camera.position, start.camera.magnification.log()),
            )
        )

    def predict(self, index: Int[Tensor, " images"]) -> Prediction:
        """The rows of these images."""
        free = super().predict(index)
        return Prediction(
            params=replace(free.params, expression=free.params.expression.sigmoid()),
            camera=free.camera.placed(free.camera.position, free.camera.magnification.exp()),
        )


def encoder_prediction(clip: Clip, model: FaceModel, config: FitConfig) -> Prediction:
    """The predictions of the pretrained encoder for a clip, batch axes `views time`: the start of every fit.

    Its cameras project to the NDC of the model's crops.
    """
    encoder = copy.deepcopy(model.encoder).eval()
    images = encode_images([model_inputs(clip, model)], model.encoder).images
    shape = (clip.views, clip.time)
    return predict_clip(FineTunedEncoder(encoder, images), shape, config.m_step.images_at_once)


def fit_clip(
    clip: Clip, model: FaceModel, config: FitConfig, parameters: Parameters = "weights"
) -> FitResult:
    """Fit a clip as `neuface.optimize` does, with what the gradient moves in the place of the encoder."""

    def parameterised(tuned: FineTunedEncoder, problem: Problem) -> Parameterisation:
        shape = (problem.views, problem.time)
        start = predict_clip(tuned.copy().eval(), shape, config.m_step.images_at_once)
        return FreeParameters(start) if parameters == "free" else BoundedParameters(start)

    (result,) = fit_clips(
        [clip],
        model,
        config,
        torch.device("cpu"),
        progress=False,
        parameterise=None if parameters == "weights" else parameterised,
    )
    return result
