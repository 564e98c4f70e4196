"""Faces whose landmarks a network accepted: where they are, whether two are the same, and where to look next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuface.landmarks.face_mesh.boxes import overlap
from neuface.landmarks.face_mesh.looks import LookedAt
from neuface.landmarks.face_mesh.regions import Regions
from neuface.landmarks.schemes import MEDIAPIPE478
from neuface.structs import TensorStruct

LOWEST_PRESENCE = 0.5
"""Probability that a region shows a face, below which its landmarks are not used; the official program's value."""
REGION_PER_LANDMARKS = 1.5
"""Side of the region around known landmarks, in the longer side of their box; the official program's value."""
# Intersection over union of the landmarks' boxes above which two faces are one.
ONE_FACE_OVERLAP = 0.4
# Bounds the longer side of a face's landmarks, pixels; smaller ones carry no shape.
SMALLEST_FACE_PX = 12.0


@dataclass(frozen=True, kw_only=True)
class Faces(TensorStruct):
    """Faces of a block of frames, in any order."""

    frame: Int[Tensor, " n"]
    points_px: Float[Tensor, "n 478 2"]
    """Frame pixels, pixel centres at integers."""
    presence: Float[Tensor, " n"]
    """0..1."""
    detected: Float[Tensor, " n"]
    """The detector's score of the face in the whole frame, 0..1; 0 where it was found otherwise."""

    def __len__(self) -> int:
        return len(self.frame)

    def of_frame(self, frame: int) -> Faces:
        """Those of one frame."""
        return self[self.frame == frame]


def no_faces_yet() -> Faces:
    """None at all."""
    none = torch.zeros(0)
    return Faces(frame=none.long(), points_px=torch.zeros(0, 478, 2), presence=none, detected=none)


def accepted(
    looks: LookedAt,
    regions: Regions,
    size_hw: tuple[int, int],
    detected: Float[Tensor, " k"] | None = None,
) -> Faces:
    """The looks that show a face: by the network's own word, of a size that has a shape, and within the frame.

    Args:
        detected: the detector's scores of the regions, if it has seen these faces in the whole frame.
    """
    flat = looks.points_px[..., :2]
    low, high = flat.amin(1), flat.amax(1)
    size = (high - low).amax(-1)
    middle = (low + high) / 2
    limit = torch.tensor([size_hw[1], size_hw[0]], dtype=middle.dtype)
    inside = ((middle > 0) & (middle < limit)).all(-1)
    good = (looks.presence >= LOWEST_PRESENCE) & (size >= SMALLEST_FACE_PX) & inside
    score = torch.zeros_like(looks.presence) if detected is None else detected.to(looks.presence)
    return Faces(
        frame=regions.frame[good],
        points_px=flat[good],
        presence=looks.presence[good],
        detected=score[good],
    )


def boxes_of(points_px: Float[Tensor, "n 478 2"]) -> Float[np.ndarray, "n 4"]:
    """Left, top, right, bottom of the landmarks."""
    return torch.cat([points_px.amin(1), points_px.amax(1)], -1).numpy()


def regions_around(points_px: Float[Tensor, "n 478 2"], frame: Int[Tensor, " n"]) -> Regions:
    """The regions in which faces are looked for that are known from elsewhere, as in the official tracking.

    The outer eye corners are level in them.
    """
    flat = points_px.double() + 0.5
    right, left = MEDIAPIPE478.outer_eyes
    eyes = flat[:, left] - flat[:, right]
    low, high = flat.amin(1), flat.amax(1)
    return Regions(
        frame=frame,
        centre=(low + high) / 2,
        side=(high - low).amax(-1) * REGION_PER_LANDMARKS,
        angle=torch.atan2(eyes[:, 1], eyes[:, 0]),
    )


def without_doubles(faces: Faces, kept: Faces | None = None) -> Faces:
    """One of each group of faces of a frame that overlap, the likeliest; none that overlaps one of `kept`."""
    taken: dict[int, list[Float[np.ndarray, "4"]]] = {}
    if kept is not None:
        for frame, box in zip(kept.frame.tolist(), boxes_of(kept.points_px), strict=True):
            taken.setdefault(frame, []).append(box)
    chosen: list[int] = []
    boxes = boxes_of(faces.points_px)
    for index in torch.argsort(faces.presence, descending=True, stable=True).tolist():
        others = taken.setdefault(int(faces.frame[index]), [])
        if not others or overlap(boxes[index], np.array(others)).max() <= ONE_FACE_OVERLAP:
            others.append(boxes[index])
            chosen.append(index)
    return faces[torch.tensor(sorted(chosen), dtype=torch.int64)]


def unmatched(faces: Faces, others: Faces) -> Bool[Tensor, " n"]:
    """Which faces have no other within half their size: they may have been lost on the way between two frames."""
    boxes, other_boxes = boxes_of(faces.points_px), boxes_of(others.points_px)
    size = torch.from_numpy((boxes[:, 2:] - boxes[:, :2]).max(-1))
    centres, other_centres = (
        torch.from_numpy((item[:, :2] + item[:, 2:]) / 2) for item in (boxes, other_boxes)
    )
    if not len(others):
        return torch.ones(len(faces), dtype=torch.bool)
    return torch.cdist(centres, other_centres).amin(1) > size / 2
