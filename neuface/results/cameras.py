"""The cameras of a result in OpenCV's convention."""

from __future__ import annotations

import math

import torch

from neuface.errors import InputError
from neuface.geometry.head_perspective import Perspective
from neuface.geometry.perspective import PerspectiveCamera
from neuface.results.fit_result import FitResult


def perspective_cameras(result: FitResult, focal_px: float | None = None) -> PerspectiveCamera:
    """Cameras K, R, t that see the posed head as the fit does, batch axes `views time`.

    Perspective cameras are given as they were fitted. A weak-perspective camera has no focal length: with the one
    that is stated, the head is put at the distance at which it has its size, turned as it is seen along the line of
    sight, and the optical axis meets the frame's centre. The image of the head frame's origin does not move. Points
    nearer to the camera than the origin appear larger than in the fit, further ones smaller; the difference is their
    distance in depth over that distance.

    Args:
        focal_px: focal length for weak-perspective cameras, pixels; the frame's width gives a view of 53 degrees.

    Returns:
        `x_camera = R x_head + t`, metres; axes as in OpenCV: x right, y down, z along the optical axis.

    Raises:
        InputError: the focal length is no positive number, is missing, or is given for perspective cameras.
    """
    seen = result.camera
    if isinstance(seen, Perspective):
        if focal_px is not None:
            raise InputError(
                "focal_px is for weak perspective: these cameras were fitted with a focal length"
            )
    else:
        if focal_px is None:
            raise InputError("weak-perspective cameras have no focal length: state one, focal_px=...")
        if not (math.isfinite(focal_px) and focal_px > 0):
            raise InputError(f"focal_px must be a positive number of pixels, got {focal_px}")
        position = seen.position
        centre_px = position.new_tensor([((w - 1) / 2, (h - 1) / 2) for h, w in result.frame_sizes_hw])
        seen = Perspective(
            scale=seen.magnification,
            offset=position,
            focal=torch.full_like(seen.magnification, focal_px),
            principal=centre_px[:, None].expand_as(position),
        )
    K = seen.offset.new_zeros(*seen.focal.shape, 3, 3)
    K[..., 0, 0] = K[..., 1, 1] = seen.focal
    K[..., :2, 2] = seen.principal
    K[..., 2, 2] = 1.0
    return PerspectiveCamera(
        K=K,
        distortion=K.new_zeros(*seen.focal.shape, 5),
        rotation=seen.rotation,
        translation=seen.translation,
    )
