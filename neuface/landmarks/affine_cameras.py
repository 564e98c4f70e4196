"""The affine camera that maps the mean face in three dimensions to a face's landmarks.

Its rows are the image's axes in the axes of the head. Under scaled orthography they have one length, pixels per
millimetre, and are perpendicular, whichever way the head is turned. Affine cameras: Hartley and Zisserman, Multiple
View Geometry, 6.3.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from neuface.landmarks.mean_face import MEAN_FACE_MM

FEWEST_POINTS = 12
"""Bounds the points from which an affine camera is estimated; it has eight unknowns."""
FACES_AT_ONCE = 1024
"""Number of faces that are compared at once, which bounds the memory."""


def affine_cameras(
    values: Float[Tensor, "faces 68 d"], found: Bool[Tensor, "faces 68"]
) -> tuple[Float[Tensor, "faces d 3"], Float[Tensor, " faces"]]:
    """The linear parts of the maps from the mean face (iBUG-68, mm) to the values, by least squares.

    Returns:
        The rows, units of the values per mm, and the residuals: root mean square over that of the values' distances
        from their centre. Both are NaN for faces with fewer than FEWEST_POINTS points.
    """
    rows = torch.full((len(values), values.shape[-1], 3), torch.nan, dtype=torch.float64)
    residuals = torch.full((len(values),), torch.nan, dtype=torch.float64)
    enough = (found.sum(-1) >= FEWEST_POINTS).nonzero()[:, 0]
    for some in enough.split(FACES_AT_ONCE):
        rows[some], residuals[some] = _least_squares(values[some], found[some])
    return rows, residuals


def _least_squares(
    values: Float[Tensor, "faces 68 d"], found: Bool[Tensor, "faces 68"]
) -> tuple[Float[Tensor, "faces d 3"], Float[Tensor, " faces"]]:
    """The same for faces with enough points, all at once."""
    mean = torch.tensor(MEAN_FACE_MM, dtype=torch.float64)
    weights = found.double()[..., None]
    targets = values.double().nan_to_num() * weights
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
