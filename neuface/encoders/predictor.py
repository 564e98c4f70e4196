"""Face encoders: networks that predict heads and cameras from crops."""

from __future__ import annotations

from abc import abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from neuface.structs import Prediction


class Predictor(nn.Module):
    """Crops in, a head and a camera for each out."""

    input_px: int
    """Side in pixels of the crops that `prepare` takes."""

    @abstractmethod
    def prepare(self, crops: Float[Tensor, "n 3 h w"]) -> Tensor:
        """The form of RGB crops (0 to 1) that is kept through the fit; one row per crop, no gradient needed."""

    @abstractmethod
    def forward(self, inputs: Tensor) -> Prediction:
        """One head and camera per row of prepared inputs."""
