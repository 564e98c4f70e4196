"""The two landmark schemes, how the dense one is read as the sparse one, and in which other orders points are read.

`IBUG68`: the iBUG-68 points, numbered from the subject's right to their left (left to right in the image).
`MEDIAPIPE478`: MediaPipe's 468 face-mesh points followed by 5 points of each iris.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.errors import InputError
from neuface.structs import Scheme, Track

MEDIAPIPE_MESH_POINTS = 468
"""Points of MediaPipe's mesh without the two irises; the 10 iris points come last."""

INNER51 = slice(17, 68)
"""The iBUG points that are fixed to the face: all but the contour, which slides over the skin with the view."""

CONTOUR_NOISE = 1.7
"""Ratio of the errors of the contour's points to those of the inner points, on real video: detectors and annotators
differ along the contour, which lies on no feature of the face. The estimate of the person expects such errors
(`neuface.fitting.person`), and the hard synthetic clips have them (`neuface.synthetic.landmark_noise`, where the
measurements stand)."""

IBUG68 = Scheme(
    name="ibug68",
    count=68,
    groups=(
        ("contour", tuple(range(17))),
        ("brows", tuple(range(17, 27))),
        ("nose", tuple(range(27, 36))),
        ("eyes", tuple(range(36, 48))),
        ("lips", tuple(range(48, 68))),
    ),
    outer_eyes=(36, 45),
    to_ibug68=tuple(range(68)),
    mirrored=(
        *range(16, -1, -1),
        *range(26, 16, -1),
        *range(27, 31),
        *range(35, 30, -1),
        *(45, 44, 43, 42, 47, 46),
        *(39, 38, 37, 36, 41, 40),
        *range(54, 47, -1),
        *range(59, 54, -1),
        *(64, 63, 62, 61, 60, 67, 66, 65),
    ),
    contour_noise=CONTOUR_NOISE,
)

# Where several mesh points are near an iBUG point, the one was taken whose position relative to the eye
# and mouth corners is nearest on frontal faces; the contour's subset is the most evenly spaced one.
_MEDIAPIPE_TO_IBUG68 = (
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

# The mesh points on the face's midline, which are their own mirror images. The others are numbered side by side.
_MEDIAPIPE_MIDLINE = (*(0, 1, 2, 4, 5, 6, *range(8, 20), 94, 151, 152, 164, 168, 175, 195, 197, 199, 200),)
_FIRST_LEFT_POINT = 248
"""The mesh points of the face's left half begin here, in the order of their counterparts in the right half."""


def _mediapipe_mirrored() -> tuple[int, ...]:
    right = [point for point in range(_FIRST_LEFT_POINT) if point not in _MEDIAPIPE_MIDLINE]
    left = list(range(_FIRST_LEFT_POINT, MEDIAPIPE_MESH_POINTS))
    # Each iris: its centre, then four points of its edge, counted from the subject's left in both eyes.
    right += [468, 469, 470, 471, 472]
    left += [473, 476, 475, 474, 477]
    counterpart = dict(zip([*right, *left], [*left, *right], strict=True))
    return tuple(counterpart.get(point, point) for point in range(478))


MEDIAPIPE478 = Scheme(
    name="mediapipe478",
    count=478,
    groups=tuple(
        (name, tuple(_MEDIAPIPE_TO_IBUG68[point] for point in points)) for name, points in IBUG68.groups
    ),
    outer_eyes=(33, 263),
    to_ibug68=_MEDIAPIPE_TO_IBUG68,
    mirrored=_mediapipe_mirrored(),
    contour_noise=CONTOUR_NOISE,
)
"""Its groups are the counterparts of the iBUG points."""

SCHEMES = MappingProxyType({scheme.name: scheme for scheme in (IBUG68, MEDIAPIPE478)})


@dataclass(frozen=True, kw_only=True)
class PointLayout:
    """An order of points in which landmarks may be given, and which points of a scheme they are."""

    name: str
    count: int
    """Number of points that are given."""
    scheme: Scheme
    """The scheme as which they are read, because heads have an embedding of it."""
    taken: tuple[int, ...]
    """The given points that the scheme has."""
    placed: tuple[int, ...]
    """Which points of the scheme these are; the others are missing."""

    def in_scheme(self, given: Float[Tensor, "*batch given d"]) -> Float[Tensor, "*batch points d"]:
        """The scheme's points; those that are not given are NaN.

        >>> layout_named("ibug51").in_scheme(torch.zeros(51, 2))[16:18, 0]
        tensor([nan, 0.])
        """
        points = given.new_full((*given.shape[:-2], self.scheme.count, given.shape[-1]), float("nan"))
        points[..., list(self.placed), :] = given[..., list(self.taken), :]
        return points


WFLW_TO_IBUG68 = (
    *range(0, 33, 2),  # 0-16, every second point of the contour
    *range(33, 38),  # 17-21, upper edge of the right brow, outer end first
    *range(42, 47),  # 22-26, upper edge of the left brow, inner end first
    *range(51, 60),  # 27-35, nose
    *(60, 61, 63, 64, 65, 67),  # 36-41, right eye: WFLW has a third point on each lid
    *(68, 69, 71, 72, 73, 75),  # 42-47, left eye
    *range(76, 96),  # 48-67, lips
)
"""The 68 of WFLW's 98 points that are at iBUG's places; the others are the contour's between them, the brows' lower
edges, the lids' middles and the pupils. Wu et al., Look at Boundary (CVPR 2018), figure 7."""


def _whole(scheme: Scheme) -> PointLayout:
    every = tuple(range(scheme.count))
    return PointLayout(name=scheme.name, count=scheme.count, scheme=scheme, taken=every, placed=every)


IBUG51 = PointLayout(
    name="ibug51", count=51, scheme=IBUG68, taken=tuple(range(51)), placed=tuple(range(17, 68))
)
"""iBUG's points without the contour."""
WFLW98 = PointLayout(name="wflw98", count=98, scheme=IBUG68, taken=WFLW_TO_IBUG68, placed=tuple(range(68)))
MEDIAPIPE468 = PointLayout(
    name="mediapipe468",
    count=MEDIAPIPE_MESH_POINTS,
    scheme=MEDIAPIPE478,
    taken=tuple(range(MEDIAPIPE_MESH_POINTS)),
    placed=tuple(range(MEDIAPIPE_MESH_POINTS)),
)
"""MediaPipe's mesh without the irises."""
_OTHER_LAYOUTS = (IBUG51, WFLW98, MEDIAPIPE468)


def known_layouts() -> tuple[PointLayout, ...]:
    """All orders of points that are read, by their number."""
    layouts = (*map(_whole, SCHEMES.values()), *_OTHER_LAYOUTS)
    return tuple(sorted(layouts, key=lambda layout: layout.count))


def layout_with(points: int) -> PointLayout | None:
    """The layout with this number of points, if there is one."""
    return next((layout for layout in known_layouts() if layout.count == points), None)


def layout_named(name: str) -> PointLayout:
    """The layout of this name, as it stands in files.

    Raises:
        InputError: no layout has this name.

    >>> layout_named("wflw98").scheme.name
    'ibug68'
    """
    layouts = {layout.name: layout for layout in known_layouts()}
    if name not in layouts:
        raise InputError(
            f"unknown landmark scheme {name!r}: expected {' or '.join(repr(item) for item in layouts)}"
        )
    return layouts[name]


def layouts_in_words() -> str:
    """The numbers of points that are read, for error messages.

    >>> layouts_in_words()
    '51 (ibug51), 68 (ibug68), 98 (wflw98), 468 (mediapipe468) or 478 (mediapipe478)'
    """
    *others, last = [f"{layout.count} ({layout.name})" for layout in known_layouts()]
    return f"{', '.join(others)} or {last}"


def scheme_named(name: str) -> Scheme:
    """The scheme of this name.

    Raises:
        InputError: no scheme has this name.

    >>> scheme_named("mediapipe478").count
    478
    """
    if name not in SCHEMES:
        known = " or ".join(repr(item) for item in SCHEMES)
        raise InputError(f"unknown landmark scheme {name!r}: expected {known}")
    return SCHEMES[name]


def scheme_with(points: int) -> Scheme | None:
    """The scheme as which this number of points is read, if there is one."""
    layout = layout_with(points)
    return None if layout is None else layout.scheme


def outer_eye_distance_px(landmarks: Track) -> Float[Tensor, "views time"]:
    """Distance between the outer eye corners in frame pixels; 0 where one of them is missing."""
    corners = list(landmarks.scheme.outer_eyes)
    right, left = landmarks.points_px[..., corners, :].unbind(-2)
    both_found = (landmarks.confidence[..., corners] > 0).all(-1)
    return torch.linalg.vector_norm(left - right, dim=-1) * both_found


def to_ibug68(landmarks: Track) -> Track:
    """The iBUG-68 counterparts of landmarks of any scheme, with their confidence and
    uncertainty.

    Landmarks that are in `IBUG68` already are returned as they are.
    """
    if landmarks.scheme == IBUG68:
        return landmarks
    chosen = list(landmarks.scheme.to_ibug68)
    return replace(
        landmarks,
        points_px=landmarks.points_px[..., chosen, :],
        confidence=landmarks.confidence[..., chosen],
        uncertainty_px=None if landmarks.uncertainty_px is None else landmarks.uncertainty_px[..., chosen],
        scheme=IBUG68,
    )
