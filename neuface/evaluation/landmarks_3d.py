"""The 3D landmark error: fitted heads against landmarks that were triangulated from calibrated cameras.

Fits see the landmarks in the images alone, never the calibration, so the triangulated points test depth and shape.
"""

from __future__ import annotations

import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

from neuface.errors import InputError
from neuface.geometry.perspective import PerspectiveCamera
from neuface.geometry.rotations import nearest_rotation
from neuface.geometry.triangulation import Triangulation, triangulate
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import INNER51, to_ibug68
from neuface.structs import HeadParams, Scheme, Track

PER_IMAGE, PER_VIEW = "image", "view"
MM_PER_M = 1000

FEWEST_POINTS = 6
"""An image counts if at least so many of its inner landmarks are triangulated; fewer do not constrain a rotation."""


def triangulate_inner51(
    cameras: PerspectiveCamera, landmarks: Track, *, max_error_px: float | None = None
) -> Triangulation:
    """The inner 51 landmarks of every frame in 3D, batch axis `time`, in the unit of the cameras' translations.

    The 17 contour points are left out: each view sees another part of the skin as the face's contour.

    Args:
        cameras: one per view, calibrated for the frames in whose pixels the landmarks are.
        landmarks: batch axes `views time`.
        max_error_px: largest reprojection error of a point that is accepted, as for `triangulate`; a landmark that
            was detected at a wrong position in one view is inconsistent with the others.

    Raises:
        InputError: as `triangulate`.
    """
    inner = to_ibug68(landmarks)
    return triangulate(
        cameras,
        inner.points_px[..., INNER51, :],
        inner.confidence[..., INNER51],
        max_error_px=max_error_px,
    )


def landmark_3d_errors_mm(
    head: HeadModel,
    params: HeadParams,
    valid: Bool[Tensor, "views time"],
    scheme: Scheme,
    truth: Triangulation,
    *,
    rotation_per: str = PER_IMAGE,
) -> Float[Tensor, "views time 51"]:
    """Distance of every inner landmark of every image's head to its triangulated point, mm.

    The heads are aligned to the points first (orthogonal Procrustes): by one scale for the whole clip and one
    translation per image, neither of which a weak-perspective camera observes, and by the rotations that
    `rotation_per` names. Summarise the distances by their median: triangulated landmarks have outliers.

    Args:
        params: batch axes `views time`.
        valid: images that count. The errors are NaN in other images and in those with fewer than FEWEST_POINTS
            triangulated points.
        scheme: in which the landmarks were fitted.
        truth: by `triangulate_inner51`, batch axis `time`, metres.
        rotation_per: "image" aligns the rotation of every image, so that shape and expression alone are judged.
            "view" aligns one rotation per camera for the whole clip, from the camera's axes to the world's, so that
            head rotations are judged as well.

    Raises:
        InputError: `truth` has another number of frames or points, `rotation_per` is unknown, or the head lacks the
            scheme.
    """
    if rotation_per not in (PER_IMAGE, PER_VIEW):
        raise InputError(f"rotation_per must be 'image' or 'view', got {rotation_per!r}")
    expected = (valid.shape[1], 51)
    if tuple(truth.valid.shape) != expected:
        raise InputError(
            f"triangulated points of shape {tuple(truth.valid.shape)}; expected {expected}, (frames, inner points)"
        )
    # All cameras share the triangulated points, so the head's sliding points are taken as seen from the front.
    points = head.landmarks(params, scheme.name, facing=params.unposed())[..., list(scheme.to_ibug68), :]
    known = truth.valid & valid[..., None]
    known &= known.sum(-1, keepdim=True) >= FEWEST_POINTS
    weight = known.double()
    found = _centred(points[..., INNER51, :].double(), weight)
    target = _centred(
        torch.where(truth.valid[..., None], truth.points, 0.0).double().expand_as(found), weight
    )
    per = "v t" if rotation_per == PER_IMAGE else "v"
    mixed = einsum(weight, target, found, f"v t n, v t n a, v t n b -> {per} a b")
    optimal = nearest_rotation(mixed)
    rotation = optimal.view(len(mixed), -1, 1, 3, 3)
    rotated = (rotation @ found[..., None])[..., 0]
    scale = (weight[..., None] * rotated * target).sum() / (weight[..., None] * found.square()).sum()
    distance = MM_PER_M * torch.linalg.vector_norm(scale * rotated - target, dim=-1)
    return torch.where(known, distance, torch.nan).to(points.dtype)


def _centred(
    points: Float[Tensor, "views time points 3"], weight: Float[Tensor, "views time points"]
) -> Float[Tensor, "views time points 3"]:
    total = weight.sum(-1, keepdim=True).clamp(min=1)
    return points - einsum(weight / total, points, "v t n, v t n c -> v t c")[..., None, :]
