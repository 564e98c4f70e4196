"""Colours between pixels: positions are those of the crop, and so is their gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuface.render.sampling import sample_colours
from neuface.structs import Crop


@pytest.mark.parametrize("size_px", [4, 112, 224])
def test_colours_are_those_of_pixel_centres_at_integers(size_px: int) -> None:
    """A picture whose red is the column and whose green is the row says where it was sampled, in pixels."""
    line = torch.arange(size_px, dtype=torch.float64)
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    picture = torch.stack((columns, rows, torch.zeros_like(rows)))[None]
    crop = Crop(T_crop_frame=torch.eye(3)[None], size_px=size_px)
    # Between the centres of the outermost pixels.
    points = (
        (2 * torch.rand(1, 50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1)
        * (1 - 1 / size_px)
    ).requires_grad_()
    found = sample_colours(picture, points)
    torch.testing.assert_close(found[..., :2], crop.ndc_to_px(points), atol=1e-9, rtol=0)
    found[..., 0].sum().backward()
    assert points.grad is not None
    torch.testing.assert_close(points.grad[0, :, 0], torch.full((50,), size_px / 2).double())
    assert float(points.grad[..., 1].abs().max()) < 1e-9
    # The documentation's example, in single precision as in a fit.
    if size_px == 224:
        point = sample_colours(picture.float(), torch.tensor([[[0.0, -0.7]]]))
        np.testing.assert_allclose(point[0, 0, :2], [111.5, 33.1], atol=1e-5)
