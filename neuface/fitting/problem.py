"""A clip as the loop sees it: encoder inputs and observations as tensors on one device."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from neuface.structs import Crop, Landmarks, TensorStruct


@dataclass(frozen=True, kw_only=True)
class Problem(TensorStruct):
    """What is known about every image of a clip."""

    inputs: Float[Tensor, "views time c h w"]
    """The crops, as the predictor's `prepare` keeps them."""
    observed_ndc: Float[Tensor, "views time points 2"]
    confidence: Float[Tensor, "views time points"]
    """0 for every point of a frame that is not valid."""
    valid: Bool[Tensor, "views time"]
    scheme: str

    @property
    def views(self) -> int:
        return self.inputs.shape[0]

    @property
    def time(self) -> int:
        return self.inputs.shape[1]


def make_problem(
    inputs: Float[Tensor, "views time c h w"],
    landmarks: Landmarks,
    crops: Crop,
    valid: Bool[Tensor, "views time"],
) -> Problem:
    """Observations in crop NDC, with the frames that cannot be used silenced."""
    return Problem(
        inputs=inputs,
        observed_ndc=crops.frame_to_ndc(landmarks.points_px),
        confidence=landmarks.confidence * valid[..., None],
        valid=valid,
        scheme=landmarks.scheme,
    )
