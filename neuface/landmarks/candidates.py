"""What a detector finds in one frame: faces, before anyone is followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.landmarks.tracking.found_faces import FoundFaces
from neuface.structs import Scheme, TensorStruct

FEWEST_ROWS = 1024
"""Least number of faces for which there is room; then the room doubles when it is full."""


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


class FoundFrames:
    """The faces of the frames of one camera, in a few large tensors.

    Small tensors that stay, allocated between the large ones of a network's layers, keep the allocator
    from using the space of the large ones again: memory would grow by megabytes with every frame.
    """

    def __init__(self, scheme: Scheme) -> None:
        self._scheme = scheme
        self._rows: list[tuple[int, ...]] = []
        self._count = 0
        self._points_px = torch.zeros(0, scheme.count, 2)
        self._confidence, self._uncertainty_px = torch.zeros(0, scheme.count), torch.zeros(0, scheme.count)
        self._score = torch.zeros(0)
        self._uncertain = False
        """Whether all faces so far have an uncertainty."""

    def __len__(self) -> int:
        """The number of frames."""
        return len(self._rows)

    def append(self, frames: Sequence[FrameFaces]) -> None:
        """The faces of the next frames."""
        self._rows += [self._kept(faces) for faces in frames]

    def replace(self, start: int, frames: Sequence[FrameFaces]) -> None:
        """Other faces for the frames from `start` on."""
        self._rows[start : start + len(frames)] = [self._kept(faces) for faces in frames]

    def between(self, start: int, stop: int) -> list[FrameFaces]:
        """The faces of the frames `start <= t < stop`."""
        return [self._faces(rows) for rows in self._rows[max(0, start) : stop]]

    def joined(self) -> FoundFaces:
        """The faces of all frames, with places without a face where a frame has fewer than others."""
        most = max([1, *map(len, self._rows)])
        places = torch.full((len(self._rows), most), -1)
        for time, rows in enumerate(self._rows):
            places[time, : len(rows)] = torch.tensor(rows, dtype=torch.int64)
        return FoundFaces(
            points_px=self._placed(self._points_px, places),
            confidence=self._placed(self._confidence, places),
            uncertainty_px=self._placed(self._uncertainty_px, places) if self._has_uncertainty else None,
            score=self._placed(self._score, places),
            scheme=self._scheme,
        )

    def _kept(self, faces: FrameFaces) -> tuple[int, ...]:
        """The rows in which these faces are kept from now on."""
        start, stop = self._count, self._count + len(faces.score)
        if start == stop:
            return ()
        known = faces.uncertainty_px is not None
        self._uncertain = known if start == 0 else self._uncertain and known
        self._make_room(stop)
        self._points_px[start:stop], self._confidence[start:stop] = faces.points_px, faces.confidence
        self._score[start:stop] = faces.score
        if faces.uncertainty_px is not None:
            self._uncertainty_px[start:stop] = faces.uncertainty_px
        self._count = stop
        return tuple(range(start, stop))

    def _make_room(self, rows: int) -> None:
        if rows <= len(self._score):
            return
        capacity = max(rows, FEWEST_ROWS, 2 * len(self._score))

        def larger(values: Tensor) -> Tensor:
            grown = values.new_empty(capacity, *values.shape[1:])
            grown[: self._count] = values[: self._count]
            return grown

        self._points_px, self._confidence = larger(self._points_px), larger(self._confidence)
        self._uncertainty_px, self._score = larger(self._uncertainty_px), larger(self._score)

    def _faces(self, rows: tuple[int, ...]) -> FrameFaces:
        kept = slice(rows[0], rows[-1] + 1) if rows else slice(0, 0)
        return FrameFaces(
            points_px=self._points_px[kept],
            confidence=self._confidence[kept],
            score=self._score[kept],
            uncertainty_px=self._uncertainty_px[kept] if self._has_uncertainty else None,
        )

    @property
    def _has_uncertainty(self) -> bool:
        """Whether the uncertainty is known; of no face at all, it is."""
        return self._uncertain or not self._count

    def _placed(self, values: Tensor, places: Tensor) -> Tensor:
        if places.shape[1] == 1 and bool((places[:, 0] == torch.arange(len(places))).all()):
            # One face in every frame needs no copy.
            return values[None, : len(places), None]
        if self._count == 0:
            return values.new_zeros(1, *places.shape, *values.shape[1:])
        placed = values[places.clamp(min=0)]
        missing = (places < 0).view(*places.shape, *[1] * (values.ndim - 1))
        return placed.masked_fill_(missing, 0)[None]
