"""What a detector finds in one frame: faces, before anyone is followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.landmarks.tracking.found_faces import FoundFaces
from neuface.structs import Scheme, TensorStruct


@dataclass(frozen=True, kw_only=True)
class FrameFaces(TensorStruct):
    """All faces that a detector finds in one frame, in any order."""

    points_px: Float[Tensor, "faces points 2"]
    """Frame pixels, pixel centres at integers."""
    confidence: Float[Tensor, "faces points"]
    """0 (missing) to 1; 1 for all points where a detector has no confidence of its own."""
    score: Float[Tensor, " faces"]
    """How surely this is a face, 0 to 1."""
    uncertainty_px: Float[Tensor, "faces points"] | None = None
    """Standard deviation of the points per axis, frame pixels, where the detector estimates it."""

    @classmethod
    def none(cls, points: int) -> FrameFaces:
        """A frame without a face."""
        return cls(
            points_px=torch.zeros(0, points, 2), confidence=torch.zeros(0, points), score=torch.zeros(0)
        )


def faces_of_view(frames: Sequence[FrameFaces], scheme: Scheme) -> FoundFaces:
    """The faces of one camera's frames, with places without a face where a frame has fewer than others."""
    most = max([1, *(len(frame.score) for frame in frames)])

    def stacked(values: Sequence[Tensor]) -> Tensor:
        whole = torch.zeros(1, len(values), most, *values[0].shape[1:])
        for time, item in enumerate(values):
            whole[0, time, : len(item)] = item
        return whole

    uncertainties = [
        torch.zeros(0, scheme.count) if not len(frame.score) else frame.uncertainty_px for frame in frames
    ]
    known = [item for item in uncertainties if item is not None]
    some = any(frame.uncertainty_px is not None for frame in frames)
    return FoundFaces(
        points_px=stacked([frame.points_px for frame in frames]),
        confidence=stacked([frame.confidence for frame in frames]),
        uncertainty_px=stacked(known) if some and len(known) == len(frames) else None,
        scheme=scheme,
    )
