"""From the detector's raw outputs to faces: anchors, scores, and the average of boxes that overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuface.landmarks.face_mesh.networks import ANCHORS_COARSE, ANCHORS_FINE, DETECTOR_PX

# Cells along each side of the detector's two maps.
CELLS_FINE, CELLS_COARSE = 16, 8
# Bounds the score logits, as MediaPipe does.
LARGEST_LOGIT = 100.0
# Intersection over union above which two boxes are of one face.
SAME_FACE_OVERLAP = 0.5


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """Faces in one picture, best first, in units of the picture's side."""

    corners: Float[np.ndarray, "faces 4"]
    """Left, top, right, bottom."""
    keypoints: Float[np.ndarray, "faces 6 2"]
    """Right eye, left eye (the person's), nose, mouth, right ear, left ear."""
    score: Float[np.ndarray, " faces"]
    """0..1."""


def anchor_centres() -> Float[Tensor, "anchors 2"]:
    """The centres of the 896 anchors, row by row, in units of the picture's side; all have the same size."""
    maps = []
    for cells, anchors in ((CELLS_FINE, ANCHORS_FINE), (CELLS_COARSE, ANCHORS_COARSE)):
        places = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
        y, x = torch.meshgrid(places, places, indexing="ij")
        maps.append(torch.stack([x, y], -1).reshape(-1, 2).repeat_interleave(anchors, 0))
    return torch.cat(maps)


def faces_of(
    raw_boxes: Float[Tensor, "n anchors 16"], logits: Float[Tensor, "n anchors"], lowest_score: float
) -> list[Boxes]:
    """The faces in every picture whose score is at least `lowest_score`.

    Boxes of which one overlaps the best by more than SAME_FACE_OVERLAP are averaged, weighted by their scores, and
    the average keeps the best score.
    """
    scores = torch.sigmoid(logits.double().clamp(-LARGEST_LOGIT, LARGEST_LOGIT)).cpu()
    values = raw_boxes.double().cpu() / DETECTOR_PX
    centres = anchor_centres()
    found = []
    for picture in range(len(scores)):
        kept = (scores[picture] >= lowest_score).nonzero()[:, 0]
        kept = kept[torch.argsort(scores[picture, kept], descending=True, stable=True)]
        raw, anchor = values[picture, kept], centres[kept]
        centre, half = raw[:, :2] + anchor, raw[:, 2:4] / 2
        keypoints = raw[:, 4:].reshape(-1, 6, 2) + anchor[:, None]
        found.append(
            averaged(
                torch.cat([centre - half, centre + half], 1).numpy(),
                keypoints.numpy(),
                scores[picture, kept].numpy(),
            )
        )
    return found


def averaged(
    corners: Float[np.ndarray, "n 4"], keypoints: Float[np.ndarray, "n 6 2"], score: Float[np.ndarray, " n"]
) -> Boxes:
    """One box for each face, from boxes whose scores descend."""
    flat = np.concatenate([corners, keypoints.reshape(len(corners), 12)], 1)
    overlapping = overlap(corners[:, None], corners) > SAME_FACE_OVERLAP
    left = np.ones(len(score), dtype=bool)
    means, best = [], []
    for number in range(len(score)):
        if left[number]:
            same = overlapping[number] & left
            same[number] = True  # even a box without area ends with itself
            means.append(score[same] @ flat[same] / score[same].sum())
            best.append(score[number])
            left &= ~same
    merged = np.array(means).reshape(-1, flat.shape[1])
    return Boxes(
        corners=merged[:, :4],
        keypoints=merged[:, 4:].reshape(-1, 6, 2),
        score=np.array(best, dtype=np.float64),
    )


def overlap(
    boxes: Float[np.ndarray, "*#batch 4"], others: Float[np.ndarray, "*#batch 4"]
) -> Float[np.ndarray, "*batch"]:
    """Intersection over union of boxes with others, whose leading axes broadcast; 0 where a box has no area.

    >>> overlap(np.array([0.0, 0.0, 2.0, 1.0]), np.array([[1.0, 0.0, 3.0, 1.0]])).round(3).tolist()
    [0.333]
    """
    low = np.maximum(boxes[..., :2], others[..., :2])
    high = np.minimum(boxes[..., 2:], others[..., 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    size, other_size = (np.clip(some[..., 2:] - some[..., :2], 0, None) for some in (boxes, others))
    union = size.prod(-1) + other_size.prod(-1) - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1.0), 0.0)
