"""The two landmark schemes, and how the dense one is read as the sparse one.

`ibug68`: the iBUG-68 points, numbered from the subject's right to their left (left to right in the image).
`mediapipe478`: MediaPipe's 468 face-mesh points followed by 5 points of each iris.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.errors import InputError
from neuface.structs import Landmarks

IBUG68 = "ibug68"
MEDIAPIPE478 = "mediapipe478"

POINTS_BY_SCHEME = MappingProxyType({IBUG68: 68, MEDIAPIPE478: 478})

# MediaPipe's mesh without the two irises; the 10 iris points come last.
MEDIAPIPE_MESH_POINTS = 468

GROUPS_IBUG68 = MappingProxyType(
    {
        "contour": slice(0, 17),
        "brows": slice(17, 27),
        "nose": slice(27, 36),
        "eyes": slice(36, 48),
        "lips": slice(48, 68),
    }
)

CONTOUR_NOISE_IBUG68 = 1.7
"""How many times as large the errors of the contour's points are as those of the inner points, on real video.

The contour lies on no feature of the face, and detectors and annotators differ along it. The estimate of the person
expects such errors (`neuface.fitting.person`), and the hard synthetic clips have them
(`neuface.synthetic.landmark_noise`, where the measurements stand)."""

INNER51 = slice(17, 68)
"""The iBUG points that are fixed to the face: everything but the contour, which slides with the view."""

# Right outer eye corner, left outer eye corner: their distance normalises landmark errors.
OUTER_EYES_IBUG68 = (36, 45)
OUTER_EYES_MEDIAPIPE478 = (33, 263)

# Where several mesh points are near an iBUG point, the one was taken whose position relative to the eye
# and mouth corners is nearest on frontal faces; the contour's subset is the most evenly spaced one.
MEDIAPIPE_TO_IBUG68: tuple[int, ...] = (
    *(234, 93, 132, 58, 172, 136, 149, 148),  # 0-7, contour: right ear towards the chin
    *(152, 377, 378, 365, 397, 288, 361, 323, 454),  # 8-16, chin to left ear
    *(70, 63, 105, 66, 107),  # 17-21, right brow, outer end first
    *(336, 296, 334, 293, 300),  # 22-26, left brow, inner end first
    *(168, 197, 5, 4),  # 27-30, nose bridge down to the tip
    *(98, 97, 2, 326, 327),  # 31-35, below the nose
    *(33, 160, 158, 133, 153, 144),  # 36-41, right eye: outer corner, upper lid, inner corner, lower lid
    *(362, 385, 387, 263, 373, 380),  # 42-47, left eye: inner corner, upper lid, outer corner, lower lid
    *(61, 39, 37, 0, 267, 269, 291),  # 48-54, outer lips: right corner, upper edge, left corner
    *(405, 314, 17, 84, 181),  # 55-59, outer lips: lower edge, from the left back to the right
    *(78, 82, 13, 312, 308, 317, 14, 87),  # 60-67, inner lips, in the same sense
)

MIRROR_IBUG68: tuple[int, ...] = (
    *range(16, -1, -1),
    *range(26, 16, -1),
    *range(27, 31),
    *range(35, 30, -1),
    *(45, 44, 43, 42, 47, 46),
    *(39, 38, 37, 36, 41, 40),
    *range(54, 47, -1),
    *range(59, 54, -1),
    *(64, 63, 62, 61, 60, 67, 66, 65),
)
"""`points[..., MIRROR_IBUG68, :]` renumbers the points of a left-right flipped image. Its own inverse."""


def number_of_points(scheme: str) -> int:
    """How many points a scheme has. Raises InputError for a name that is not a scheme."""
    if scheme not in POINTS_BY_SCHEME:
        known = " or ".join(repr(name) for name in POINTS_BY_SCHEME)
        raise InputError(f"unknown landmark scheme {scheme!r}: expected {known}")
    return POINTS_BY_SCHEME[scheme]


def outer_eye_distance_px(landmarks: Landmarks) -> Float[Tensor, "views time"]:
    """Distance between the outer eye corners in frame pixels; 0 where one of them is missing."""
    corners = list(OUTER_EYES_IBUG68 if landmarks.scheme == IBUG68 else OUTER_EYES_MEDIAPIPE478)
    right, left = landmarks.points_px[..., corners, :].unbind(-2)
    both_found = (landmarks.confidence[..., corners] > 0).all(-1)
    return torch.linalg.vector_norm(left - right, dim=-1) * both_found


def to_ibug68(landmarks: Landmarks) -> Landmarks:
    """The iBUG-68 counterparts of landmarks of any scheme, with their confidence.

    Landmarks that are in `ibug68` already are returned as they are. Raises InputError for an unknown scheme.
    """
    number_of_points(landmarks.scheme)
    if landmarks.scheme == IBUG68:
        return landmarks
    chosen = list(MEDIAPIPE_TO_IBUG68)
    return replace(
        landmarks,
        points_px=landmarks.points_px[..., chosen, :],
        confidence=landmarks.confidence[..., chosen],
        scheme=IBUG68,
    )
