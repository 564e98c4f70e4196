"""Whether given landmarks are a face's, in the pixels of the frame: wrong sizes, mirrored and swapped axes are named.

The points are compared with the mean face in three dimensions by the affine camera that maps it to them best. Of a
face that is seen from the front half, the camera's rows determine which way it looks and where its top is, and both
come out wrong in a known way if the axes do. Affine cameras: Hartley and Zisserman, Multiple View Geometry, 6.3.
"""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from neuface.errors import InputError, InputWarning
from neuface.landmarks.mean_face import MEAN_FACE_MM

LARGEST_RESIDUAL = 0.35
"""Bounds how far points of a face are from the mean face's image, root mean square over that of their distances from
their centre. Faces in real clips stay below 0.15, points in random order are above 0.9."""
LARGEST_DEPTH_RESIDUAL = 0.25
"""The same bound for a third column that is a depth; a confidence is no linear function of the place in the face."""
LEAST_DEPTH_SPREAD = 0.02
"""Bounds the standard deviation of a third column that can be a depth; a constant confidence has none."""
LARGEST_STRETCH = 1.2
"""Bounds the ratio of the scales along x and y. Medians over real clips are 0.91 to 1.04, the smallest of videos
whose pixels are taller than wide."""
SMALLEST_COORDINATE_RANGE_PX = 2.0
"""Bounds the coordinates of a face from below, pixels; smaller ones were divided by the frame's size."""
MOST_OUTSIDE = 0.5
"""Bounds the share of points outside of the frame; a face that is cut off has fewer."""
FEWEST_POINTS = 12
"""Bounds the points from which an affine camera is estimated; it has eight unknowns."""
REMEDIES = {
    "up": "x is mirrored (x = width - 1 - x), as of a mirrored video",
    "down": "y grows upwards (y = height - 1 - y)",
    "left": "x and y are swapped: points[..., [1, 0]]",
    "right": "x and y are swapped and mirrored: points[..., [1, 0]], then x = width - 1 - x",
}
"""What is wrong with the axes of a face that seems to look away, by where its top then is."""


def check_size(
    points_px: Float[Tensor, "*batch points 2"],
    found: Bool[Tensor, "*batch points"],
    size_hw: tuple[int, int],
    what: str,
) -> None:
    """Raises InputError if most points lie outside of the frame; warns if all lie in its first quarter."""
    height, width = size_hw
    points = points_px[found]
    if len(points) == 0 or float(points.abs().max()) <= SMALLEST_COORDINATE_RANGE_PX:
        # Points that are no pixels at all have an error of their own.
        return
    x, y = points.unbind(-1)
    outside = float(((x < -0.5) | (x > width - 0.5) | (y < -0.5) | (y > height - 0.5)).float().mean())
    if outside > MOST_OUTSIDE:
        raise InputError(
            f"{what}: {outside:.0%} of the points lie outside of the frame of {width}x{height} pixels (x up to "
            f"{float(x.max()):.0f}, y up to {float(y.max()):.0f}). If they were found in pictures of another size, "
            f"multiply x by {width} / THEIR_WIDTH and y by {height} / THEIR_HEIGHT"
        )
    if float(x.max()) < width / 2 and float(y.max()) < height / 2:
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
    cameras, residuals = _affine_cameras(points_px, found)
    cameras = cameras[residuals < LARGEST_RESIDUAL]
    if len(cameras) == 0 or len(cameras) * 2 < len(residuals):
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
    if not 1 / LARGEST_STRETCH <= stretch <= LARGEST_STRETCH:
        raise InputError(
            f"{what}: the faces are {stretch:.2f} times as wide as they should be for their height. If they were "
            "found in pictures of another shape (pixels that are not square, or normalised coordinates), scale x and "
            "y to the frame's width and height"
        )


def looks_like_depth(column: Float[Tensor, "faces 68"], found: Bool[Tensor, "faces 68"]) -> bool:
    """Whether a third column is a depth in another unit: a linear function of the place in the mean face."""
    rows, residuals = _affine_cameras(column[..., None], found)
    spread = torch.where(found, column, torch.nan).flatten()
    spread = spread[spread.isfinite()]
    if len(rows) == 0 or len(spread) < 2 or float(spread.std()) < LEAST_DEPTH_SPREAD:
        return False
    return float((residuals < LARGEST_DEPTH_RESIDUAL).float().mean()) > 0.5


def _affine_cameras(
    values: Float[Tensor, "faces 68 d"], found: Bool[Tensor, "faces 68"]
) -> tuple[Float[Tensor, "kept d 3"], Float[Tensor, " kept"]]:
    """The linear parts of the maps from the mean face to the values, and their relative residuals, of whole faces."""
    mean = torch.tensor(MEAN_FACE_MM, dtype=torch.float64)
    enough = found.sum(-1) >= FEWEST_POINTS
    weights = found[enough].double()[..., None]
    targets = values[enough].double().nan_to_num() * weights
    design = torch.cat([mean, torch.ones(len(mean), 1, dtype=torch.float64)], -1) * weights
    normal = design.mT @ design
    # Points of one part of the face alone may lie in a plane.
    ridge = (
        1e-9 * normal.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] * torch.eye(4, dtype=torch.float64)
    )
    maps = torch.linalg.solve(normal + ridge, design.mT @ targets)
    left = (targets - design @ maps).square().sum((-2, -1))
    centres = targets.sum(-2, keepdim=True) / weights.sum(-2, keepdim=True)
    total = ((targets - centres) * weights).square().sum((-2, -1))
    return maps[:, :3].mT, (left / total.clamp(min=1e-12)).sqrt()
