"""How surely a face is one: the detector's opinion of what the landmark network accepted.

The landmark network sees a crop and accepts much that has the shape of a face, such as fists. The detector, which
was trained to find faces among everything else, sees a wider window around it. Of 308 faces of 16 clips all have a
score of 0.76 or more there; of 389 of real clips that were made small (16 to 60 px), dark, noisy, blurred or half
hidden, 97 % have 0.6 or more. 38 fists that the landmark network took for faces have a median of 0.52, and 82 % less
than 0.6: a single score tells little, the median of a track tells them apart.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from neuface.landmarks.face_mesh.boxes import Boxes, faces_of
from neuface.landmarks.face_mesh.faces import REGION_PER_LANDMARKS, Faces, regions_around
from neuface.landmarks.face_mesh.looks import detector_outputs
from neuface.landmarks.face_mesh.networks import FaceNetworks

# Side of the window, in longer sides of the landmarks' box: the detector is made for faces of about this share.
WINDOW_PER_FACE = 4.0
# Score in the whole frame from which the detector is not asked again: faces have as much in their own window.
SURE = 0.76
# Score below which the detector's boxes are not read.
LOWEST_SCORE = 0.01
# A box is of the face if its centre lies within this distance of the face's (face sizes, along each axis), and its
# side is at least and at most this many times the face's.
NEAR, SMALLEST, LARGEST = 0.5, 0.5, 2.0


def sure_scores(
    networks: FaceNetworks, frames: UInt8[Tensor, "n h w 3"], faces: Faces
) -> Float[Tensor, " faces"]:
    """The detector's score of each face, 0..1: in the whole frame where it is high there, else `detector_scores`."""
    score = faces.detected.clone()
    unsure = score < SURE
    score[unsure] = detector_scores(networks, frames, faces[unsure])
    return score


def detector_scores(
    networks: FaceNetworks, frames: UInt8[Tensor, "n h w 3"], faces: Faces
) -> Float[Tensor, " faces"]:
    """The detector's best score at each face, 0..1, in a window in which the eyes are level."""
    around = regions_around(faces.points_px, faces.frame)
    windows = replace(around, side=around.side * (WINDOW_PER_FACE / REGION_PER_LANDMARKS))
    outputs = detector_outputs(networks, frames, windows)
    found = faces_of(outputs.raw_boxes, outputs.logits, LOWEST_SCORE)
    return torch.tensor([_best_in_the_middle(boxes) for boxes in found], dtype=torch.float32)


def _best_in_the_middle(boxes: Boxes) -> float:
    """The best score of a window's boxes that are of the face in its middle."""
    low, high = boxes.corners[:, :2], boxes.corners[:, 2:]
    away = np.abs((low + high) / 2 - 0.5).max(-1) * WINDOW_PER_FACE
    side = (high - low).max(-1) * WINDOW_PER_FACE
    of_face = (away < NEAR) & (side > SMALLEST) & (side < LARGEST)
    return float(boxes.score[of_face].max(initial=0.0))
