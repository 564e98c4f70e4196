"""What the fitting loop optimises: anything that answers crops with heads and cameras."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from neuface.structs import Prediction


@runtime_checkable
class Predictor(Protocol):
    """Crops in, a head and a camera for each out. In practice an `nn.Module`, whose weights are optimised."""

    input_px: int
    """Side in pixels of the crops that `prepare` takes."""

    def prepare(self, crops: Float[Tensor, "n 3 h w"]) -> Tensor:
        """The form of RGB crops (0 to 1) that is kept through the fit; one row per crop, no gradient needed."""
        ...

    def forward(self, inputs: Tensor, index: Int[Tensor, "n"] | None = None) -> Prediction:
        """One head and camera per row of prepared inputs.

        `index` says which images of the clip the rows are, for predictors that remember images rather than look
        at them; networks ignore it.
        """
        ...
