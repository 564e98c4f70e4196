"""Colours of pictures at points between their pixels."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import grid_sample

__all__ = ["sample_colours"]


def sample_colours(
    pictures: Float[Tensor, "images 3 s s"] | UInt8[Tensor, "images 3 s s"],
    points_ndc: Float[Tensor, "images points 2"],
) -> Float[Tensor, "images points 3"]:
    """Colours from 0 to 1 at points of crops, interpolated bilinearly, with a gradient with respect to the points.

    Convention:
        NDC -1 and 1 are the picture's edges. In a picture 4 px wide, the NDC positions -0.75, -0.25, 0.25 and 0.75
        are the centres of its pixels. Beyond the centres of the outermost pixels the colour is constant.

    Args:
        pictures: RGB, uint8 or 0 to 1.
        points_ndc: crop NDC.

    Example:
        >>> picture = torch.tensor([0.0, 0.2, 0.4, 0.6]).expand(1, 3, 4, 4)
        >>> sample_colours(picture, torch.tensor([[[-0.25, 0.0], [0.0, 0.0]]]))[0, :, 0]
        tensor([0.2000, 0.3000])
    """
    values = pictures.to(points_ndc.dtype) / (255 if pictures.dtype == torch.uint8 else 1)
    grid = points_ndc[:, None]
    sampled = grid_sample(values, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled[:, :, 0].mT
