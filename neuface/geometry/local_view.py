"""A camera near one point, to first order: what fitted and calibrated cameras, of any lens, have in common."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.structs import TensorStruct

__all__ = ["LocalView", "local_view"]


@dataclass(frozen=True, kw_only=True)
class LocalView(TensorStruct):
    """How a camera sees the surroundings of a point: turned, magnified and placed, but not distorted."""

    rotation: Float[Tensor, "*batch 3 3"]
    """The points' axes to those of the view: x right, y down, z away along the line of sight to the point."""
    position: Float[Tensor, "*batch 2"]
    """Where the point is seen, image units."""
    magnification: Float[Tensor, "*batch"]
    """Image units per metre, geometric mean over the directions across the line of sight."""


def local_view(position: Float[Tensor, "*batch 2"], jacobian: Float[Tensor, "*batch 2 3"]) -> LocalView:
    """The view of a point from where a camera projects it, and the derivative of that.

    The polar decomposition `jacobian = stretch @ rows`, with a symmetric stretch and orthonormal rows, separates what
    the camera does across the line of sight (magnify, shear) from how it is turned. For a pinhole the rotation is the
    least one that takes its optical axis to the line of sight; of a lens it contains the distortion as well.

    Example:
        >>> ahead = torch.tensor([[500.0, 0.0, 0.0], [0.0, 500.0, 0.0]])  # focal length 1000 px, 2 m away
        >>> local_view(torch.tensor([320.0, 240.0]), ahead).magnification
        tensor(500.)
    """
    gram = jacobian @ jacobian.mT
    area = (gram[..., 0, 0] * gram[..., 1, 1] - gram[..., 0, 1] * gram[..., 1, 0]).sqrt()
    # The square root of a symmetric 2 x 2 matrix is (A + sqrt(det A) 1) / sqrt(trace A + 2 sqrt(det A)).
    trace = gram[..., 0, 0] + gram[..., 1, 1]
    one = torch.eye(2).to(gram)
    stretch = (gram + area[..., None, None] * one) / (trace + 2 * area).sqrt()[..., None, None]
    (a, b), (c, d) = (row.unbind(-1) for row in stretch.unbind(-2))
    adjugate = torch.stack((torch.stack((d, -b), -1), torch.stack((-c, a), -1)), -2)
    across = adjugate @ jacobian / area[..., None, None]
    along = torch.linalg.cross(across[..., 0, :], across[..., 1, :])
    return LocalView(
        rotation=torch.cat((across, along[..., None, :]), -2), position=position, magnification=area.sqrt()
    )
