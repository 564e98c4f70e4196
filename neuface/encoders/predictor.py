"""What the loop optimises: anything that answers pictures with a head and a camera."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from neuface.structs import Prediction


@runtime_checkable
class Predictor(Protocol):
    """Crops in, `Prediction` out; in practice a `torch.nn.Module`."""

    input_px: int
    """Side of the square crop it is given."""

    def prepare(self, crops: Float[Tensor, "n 3 h w"]) -> Tensor:
        """What the loop keeps of each crop, computed once per clip."""
        ...

    def __call__(self, inputs: Tensor, index: Int[Tensor, " n"] | None = None) -> Prediction:
        """Answer for prepared crops; `index` is each image's position in the flattened clip."""
        ...

    def __getattr__(self, name: str) -> Any:
        """Everything else of a `torch.nn.Module`."""
        ...
