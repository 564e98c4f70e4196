"""All faces that were found in a recording, before anyone is followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.structs import Scheme, TensorStruct, Track


@dataclass(frozen=True, kw_only=True)
class FoundFaces(TensorStruct):
    """The landmarks of every face in every frame, in frame pixels; the order of the faces in a frame means nothing.

    A missing point has confidence 0 and position 0, and so have all points of a place without a face.
    """

    points_px: Float[Tensor, "views time faces points 2"]
    confidence: Float[Tensor, "views time faces points"]
    """0 (missing) to 1."""
    uncertainty_px: Float[Tensor, "views time faces points"] | None = None
    """Standard deviation of the points per axis, frame pixels, where the detector estimates it."""
    score: Float[Tensor, "views time faces"] | None = None
    """How surely each is a face, 0 to 1, where a detector has found them; 0 where there is none."""
    scheme: Scheme
    one_person: bool = False
    """Whoever gave the landmarks says that they are of one person throughout: nobody needs to be followed."""

    @classmethod
    def of_track(cls, track: Track) -> FoundFaces:
        """One person's landmarks, as the only face of every frame."""
        return cls(
            points_px=track.points_px[:, :, None],
            confidence=track.confidence[:, :, None],
            uncertainty_px=None if track.uncertainty_px is None else track.uncertainty_px[:, :, None],
            scheme=track.scheme,
            one_person=True,
        )


def join_views(views: Sequence[FoundFaces]) -> FoundFaces:
    """The faces of several cameras as those of one recording; places without a face are added where one has fewer."""
    if len(views) == 1:
        return views[0]
    most = max(item.points_px.shape[2] for item in views)

    def padded(values: Tensor, axes: int) -> Tensor:
        missing = most - values.shape[2]
        return torch.nn.functional.pad(values, (0, 0) * axes + (0, missing))

    def joined(values: list[Tensor | None], axes: int) -> Tensor | None:
        known = [item for item in values if item is not None]
        return torch.cat([padded(item, axes) for item in known]) if len(known) == len(views) else None

    return FoundFaces(
        points_px=torch.cat([padded(item.points_px, 2) for item in views]),
        confidence=torch.cat([padded(item.confidence, 1) for item in views]),
        uncertainty_px=joined([item.uncertainty_px for item in views], 1),
        score=joined([item.score for item in views], 0),
        scheme=views[0].scheme,
        one_person=all(item.one_person for item in views),
    )
