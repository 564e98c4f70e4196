"""Whether given landmarks are a face's, in the pixels of the frame: wrong sizes, mirrored and swapped axes are named.

The points are compared with the mean face in three dimensions by the affine camera that maps it to them best. Of a
face that is seen from the front half, the camera's rows determine which way it looks and where its top is, and both
come out wrong in a known way if the axes do.
"""

from __future__ import annotations

import math
import warnings

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from neuface.errors import InputError, InputWarning
from neuface.landmarks.affine_cameras import affine_cameras

LARGEST_RESIDUAL = 0.35
"""Bounds how far points of a face are from the mean face's image, root mean square over that of their distances from
their centre. Faces in real clips stay below 0.15, points in random order are above 0.9."""
LARGEST_DEPTH_RESIDUAL = 0.25
"""The same bound for a third column that is a depth; a confidence is no linear function of the place in the face."""
LEAST_DEPTH_SPREAD = 0.02
"""Bounds the standard deviation of a third column that can be a depth; a constant confidence has none."""
SMALLEST_STRETCH, LARGEST_STRETCH = 0.78, 1.2
"""Bounds the ratio of the scales along x and y. Medians over real clips are 0.91 to 1.04, the smallest of videos
whose pixels are taller than wide. Perspective makes faces narrow: to 0.83 to 0.94 at 40 cm. Pictures of 4:3 that were
stretched to 16:9, or back, differ by 1.33."""
SMALLEST_COORDINATE_RANGE_PX = 2.0
"""Bounds the coordinates of a face from below, pixels; smaller ones were divided by the frame's size."""
MOST_OUTSIDE = 0.5
"""Bounds the share of points outside of the frame; a face that is cut off has fewer."""
FACES_AT_ONCE = 1024
"""Number of faces that are compared at once, which bounds the memory."""
REMEDIES = {
    "up": "x is mirrored (x = width - 1 - x), as of a mirrored video",
    "down": "y grows upwards (y = height - 1 - y)",
    "left": "x and y are swapped: points[..., [1, 0]]",
    "right": "x and y are swapped and mirrored: points[..., [1, 0]], then x = width - 1 - x",
}
"""What is wrong with the axes of a face that seems to look away, by where its top then is."""


def check_size(
    points_px: Float[Tensor, "*batch points 2"],
    confidence: Float[Tensor, "*batch points"],
    size_hw: tuple[int, int],
    what: str,
) -> None:
    """Raises InputError if most points lie outside of the frame; warns if all lie in its first quarter.

    Points that are not finite, at (-1, -1) or without confidence are missing and do not count.
    """
    height, width = size_hw
    count, number_outside, magnitude = 0, 0, 0.0
    x_max = y_max = -math.inf
    faces = zip(
        points_px.flatten(0, -3).split(FACES_AT_ONCE),
        confidence.flatten(0, -2).split(FACES_AT_ONCE),
        strict=True,
    )
    for all_points, confident in faces:
        found = all_points.isfinite().all(-1) & (confident > 0) & (all_points != -1).any(-1)
        points = all_points[found]
        if len(points) == 0:
            continue
        x, y = points.unbind(-1)
        outside = (x < -0.5) | (x > width - 0.5) | (y < -0.5) | (y > height - 0.5)
        count, number_outside = count + len(points), number_outside + int(outside.sum())
        magnitude = max(magnitude, float(points.abs().max()))
        x_max, y_max = max(x_max, float(x.max())), max(y_max, float(y.max()))
    if magnitude <= SMALLEST_COORDINATE_RANGE_PX:
        # Points that are no pixels at all have an error of their own.
        return
    share = number_outside / count
    if share > MOST_OUTSIDE:
        raise InputError(
            f"{what}: {share:.0%} of the points lie outside of the frame of {width}x{height} pixels (x up to "
            f"{x_max:.0f}, y up to {y_max:.0f}). If they were found in pictures of another size, "
            f"multiply x by {width} / THEIR_WIDTH and y by {height} / THEIR_HEIGHT"
        )
    if x_max < width / 2 and y_max < height / 2:
        warnings.warn(
            f"{what}: all points lie in the upper left quarter of the frame of {width}x{height} pixels; if they were "
            "found in smaller pictures, scale them",
            InputWarning,
            stacklevel=2,
        )


def check_axes(points_px: Float[Tensor, "faces 68 2"], found: Bool[Tensor, "faces 68"], what: str) -> None:
    """Compare the axes of iBUG-68 points with the mean face; points that are no face's are not judged.

    Raises:
        InputError: most faces are mirrored, have their axes swapped, or are stretched along one of them.
    """
    cameras, residuals = affine_cameras(points_px, found)
    cameras = cameras[residuals < LARGEST_RESIDUAL]
    if len(cameras) == 0 or len(cameras) * 2 < int(residuals.isfinite().sum()):
        return
    rows_x, rows_y = cameras.unbind(-2)
    # The head's z points out of the face and the image's y down: a face that is seen looks against this product.
    looks_away = torch.linalg.cross(rows_x, rows_y)[:, 2] > 0
    if float(looks_away.float().mean()) > 0.5:
        x, y = cameras[looks_away, :, 1].median(0).values.tolist()
        top = ("right" if x > 0 else "left") if abs(x) > abs(y) else ("down" if y > 0 else "up")
        raise InputError(
            f"{what}: the faces are mirrored, as if seen from inside the head. It looks as if {REMEDIES[top]}"
        )
    stretch = float(
        (torch.linalg.vector_norm(rows_x, dim=-1) / torch.linalg.vector_norm(rows_y, dim=-1)).median()
    )
    if not SMALLEST_STRETCH <= stretch <= LARGEST_STRETCH:
        raise InputError(
            f"{what}: the faces are {stretch:.2f} times as wide as they should be for their height. If they were "
            "found in pictures of another shape (pixels that are not square, or normalised coordinates), scale x and "
            "y to the frame's width and height"
        )


def looks_like_depth(column: Float[Tensor, "faces 68"], found: Bool[Tensor, "faces 68"]) -> bool:
    """Whether a third column is a depth in another unit: a linear function of the place in the mean face."""
    residuals = affine_cameras(column[..., None], found)[1]
    residuals = residuals[residuals.isfinite()]
    spread = torch.where(found, column, torch.nan).flatten()
    spread = spread[spread.isfinite()]
    if len(residuals) == 0 or len(spread) < 2 or float(spread.std()) < LEAST_DEPTH_SPREAD:
        return False
    return float((residuals < LARGEST_DEPTH_RESIDUAL).float().mean()) > 0.5
