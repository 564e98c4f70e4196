"""The line of sight: the ray from a pinhole camera to a head, which plays the optical axis of a crop around it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["line_of_sight_rotation"]


def line_of_sight_rotation(direction: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The least rotation that takes the optical axis, (0, 0, 1), to a direction in camera axes.

    It is differentiable everywhere but at the direction straight backwards, where the least rotation is not unique.

    Args:
        direction: of any length but zero; x right, y down, z along the optical axis.

    Example:
        >>> right = torch.tensor([1.0, 0.0, 0.0])
        >>> (line_of_sight_rotation(right) @ torch.tensor([0.0, 0.0, 1.0])).round()
        tensor([1., 0., 0.])
    """
    x, y, z = torch.nn.functional.normalize(direction, dim=-1).unbind(-1)
    # Rodrigues' formula for the axis (-y, x, 0), whose length is the sine and z the cosine of the angle.
    shrink = 1 / (1 + z)
    mixed = -x * y * shrink
    rows = (
        torch.stack((1 - x * x * shrink, mixed, x), -1),
        torch.stack((mixed, 1 - y * y * shrink, y), -1),
        torch.stack((-x, -y, z), -1),
    )
    return torch.stack(rows, -2)
