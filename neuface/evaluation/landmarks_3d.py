"""The 3D landmark error: heads against points triangulated from calibrated cameras, which no fit has seen in 3D."""

from __future__ import annotations

from typing import Any

import roma
import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

from neuface.errors import InputError
from neuface.geometry.perspective import PerspectiveCamera
from neuface.geometry.triangulation import Triangulation, triangulate
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import IBUG68, INNER51, MEDIAPIPE_TO_IBUG68, to_ibug68
from neuface.structs import HeadParams, Landmarks

PER_IMAGE, PER_VIEW = "image", "view"

# Fewer points of a face than this do not tell how it is turned.
FEWEST_POINTS = 6


def triangulate_inner51(
    cameras: PerspectiveCamera, landmarks: Landmarks, *, max_error_px: float | None = None
) -> Triangulation:
    """The inner 51 landmarks of every frame in space, batch axis `time`; the contour is no set of fixed points.

    Args:
        cameras: one per view, for the frames in whose pixels the landmarks are.
        max_error_px: as for `triangulate`: landmarks found in the wrong place in one view do not fit the others.

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
    scheme: str,
    truth: Triangulation,
    *,
    rotation_per: str = PER_IMAGE,
) -> Float[Tensor, "views time 51"]:
    """Distance of every inner landmark of every image's head to its triangulated point, millimetres of the cameras.

    The heads have one scale for the whole clip, for weak perspective does not tell size, and each its own place,
    which it does not tell either. Take the median: triangulated landmarks have outliers of their own.

    Args:
        params: batch axes `views time`.
        valid: images that count; at least six points must be triangulated, too, or the errors are NaN.
        scheme: in which the landmarks were fitted.
        truth: by `triangulate_inner51`, batch axis `time`.
        rotation_per: "image" turns every head by itself, so that shape and expression are judged alone. "view" has
            one rotation per camera for the whole clip, from its axes to the world's: how the head turned counts.

    Raises:
        InputError: another number of frames or points, an unknown `rotation_per`, or a scheme the head has not.
    """
    if rotation_per not in (PER_IMAGE, PER_VIEW):
        raise InputError(f"rotation_per must be 'image' or 'view', got {rotation_per!r}")
    expected = (valid.shape[1], 51)
    if tuple(truth.valid.shape) != expected:
        raise InputError(
            f"triangulated points of shape {tuple(truth.valid.shape)}; expected {expected}, (frames, inner points)"
        )
    # Triangulated points are the same for all cameras; so are those of the head seen from the front.
    points = head.landmarks(params, scheme, facing=params.unposed())
    if scheme != IBUG68:
        points = points[..., list(MEDIAPIPE_TO_IBUG68), :]
    known = truth.valid & valid[..., None]
    known &= known.sum(-1, keepdim=True) >= FEWEST_POINTS
    weight = known.double()
    found = _centred(points[..., INNER51, :].double(), weight)
    target = _centred(
        torch.where(truth.valid[..., None], truth.points, 0.0).double().expand_as(found), weight
    )
    per = "v t" if rotation_per == PER_IMAGE else "v"
    mixed = einsum(weight, target, found, f"v t n, v t n a, v t n b -> {per} a b")
    rotation: Any = roma.special_procrustes(mixed)
    turn = rotation.view(len(mixed), -1, 1, 3, 3)
    turned = (turn @ found[..., None])[..., 0]
    scale = (weight[..., None] * turned * target).sum() / (weight[..., None] * found.square()).sum()
    distance = 1000 * torch.linalg.vector_norm(scale * turned - target, dim=-1)
    return torch.where(known, distance, torch.nan).to(points.dtype)


def _centred(
    points: Float[Tensor, "views time points 3"], weight: Float[Tensor, "views time points"]
) -> Float[Tensor, "views time points 3"]:
    total = weight.sum(-1, keepdim=True).clamp(min=1)
    return points - einsum(weight / total, points, "v t n, v t n c -> v t c")[..., None, :]
