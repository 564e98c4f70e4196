"""What the studies compare: variants, each a configuration and the parameters that the gradient moves."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from neuface.encoders.predictor import Predictor
from neuface.fitting.config import FitConfig
from neuface.fitting.direct import FreeParameters
from neuface.fitting.loop import predict_clip
from neuface.frames import Clip
from neuface.model_inputs import model_inputs
from neuface.models import FaceModel
from neuface.pipeline import optimize
from neuface.results import FitResult
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

    def forward(self, inputs: Float[Tensor, "n c h w"], index: Int[Tensor, " n"] | None = None) -> Prediction:
        """The rows `index` (all of them when None)."""
        free = super().forward(inputs, index)
        return Prediction(
            params=replace(free.params, expression=free.params.expression.sigmoid()),
            camera=free.camera.placed(free.camera.position, free.camera.magnification.exp()),
        )


def encoder_prediction(clip: Clip, model: FaceModel, config: FitConfig) -> Prediction:
    """The predictions of the pretrained encoder for a clip, batch axes `views time`: the start of every fit.

    Its cameras project to the NDC of the model's crops.
    """
    encoder = copy.deepcopy(model.encoder).eval()
    return predict_clip(encoder, model_inputs(clip, model).encoded(model.encoder), config.batch_size)


def fit_clip(
    clip: Clip, model: FaceModel, config: FitConfig, parameters: Parameters = "weights"
) -> FitResult:
    """Fit a clip by `neuface.optimize`, with what the gradient moves in the place of the encoder."""
    moved: Predictor = model.encoder
    if parameters != "weights":
        start = encoder_prediction(clip, model, config)
        moved = FreeParameters(start) if parameters == "free" else BoundedParameters(start)
    return optimize(clip, model=replace(model, encoder=moved), config=config, progress=False)
