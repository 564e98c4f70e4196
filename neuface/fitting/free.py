"""Direct fitting: free parameters in the place of a network (the paper's baseline, Eq. 5)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from neuface.encoders.predictor import Predictor
from neuface.errors import InputError
from neuface.structs import Prediction

CAMERA = ("scale", "offset")
POSE = (*CAMERA, "root_rotvec")
EVERYTHING = (*POSE, "identity", "expression")


class FreeParameters(Predictor):
    """A Predictor that ignores the pictures and answers with its own tensors, one row per image."""

    input_px = 224

    def __init__(self, start: Prediction, trainable: tuple[str, ...] = EVERYTHING) -> None:
        """Start at `start` (batch axes `views time` or one batch axis); only `trainable` fields can move.

        Raises InputError for a name that is not a field of HeadParams or WeakPerspective.
        """
        super().__init__()
        if start.camera.magnification.ndim > 1:
            start = start.flatten_batch(start.camera.magnification.ndim)
        tensors = start.params.named_tensors() | start.camera.named_tensors()
        unknown = set(trainable) - set(tensors)
        if unknown:
            raise InputError(
                f"unknown parameters {sorted(unknown)}: expected names among {', '.join(tensors)}"
            )
        self._start = start.detach()
        self.tensors = nn.ParameterDict(
            {name: nn.Parameter(tensors[name].detach().clone()) for name in trainable}
        )

    def prepare(self, crops: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 1 1"]:
        """Nothing of the pictures is kept."""
        return crops.new_zeros(len(crops), 1, 1, 1)

    def forward(self, inputs: Float[Tensor, "n c h w"], index: Int[Tensor, " n"] | None = None) -> Prediction:
        """The rows `index` (all of them when None)."""
        rows = torch.arange(len(inputs), device=inputs.device) if index is None else index
        start = self._start.to(inputs.device)[rows]
        moved = {name: tensor[rows] for name, tensor in self.tensors.items()}
        return Prediction(params=start.params.with_tensors(moved), camera=start.camera.with_tensors(moved))
