"""Marks on pictures: antialiased dots and short text labels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

__all__ = ["draw_dots", "draw_label"]

DPI = 72
"""Resolution of rendered text, pixels per inch, at which one point of font size is one pixel."""
LABEL_COLOUR = (255.0, 255.0, 255.0)
LABEL_BOX_OPACITY = 0.55


def draw_dots(
    image: UInt8[Tensor, "h w 3"],
    points_px: Float[Tensor, "n 2"],
    color: tuple[float, float, float],
    radius_px: float,
) -> UInt8[Tensor, "h w 3"]:
    """A copy of the picture with round dots; points that are not finite are left out."""
    height, width = image.shape[:2]
    reach = int(radius_px) + 2
    step = torch.arange(-reach, reach + 1, device=image.device)
    points = points_px[points_px.isfinite().all(-1)].to(image.device, torch.float32)
    # Points far outside the picture could exceed the range of integers; the bound is in pixels.
    near = points.clamp(-(2.0**20), 2.0**20).round().long()
    columns = (near[:, 0, None, None] + step[None, None, :]).expand(-1, len(step), -1)
    rows = (near[:, 1, None, None] + step[None, :, None]).expand(-1, -1, len(step))
    distance = torch.hypot(columns - points[:, 0, None, None], rows - points[:, 1, None, None])
    cover = (radius_px + 0.5 - distance).clamp(0, 1)
    visible = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height) & (cover > 0)
    cover_map = torch.zeros(height * width, device=image.device)
    # The largest cover wins, so the order of overlapping dots does not matter.
    cover_map.scatter_reduce_(0, (rows * width + columns)[visible], cover[visible], "amax")
    touched = cover_map.nonzero().squeeze(1)
    old = image.reshape(-1, 3)[touched].float()
    new = old + cover_map[touched, None] * (old.new_tensor(color) - old)
    return image.reshape(-1, 3).index_copy(0, touched, new.round().to(torch.uint8)).reshape(image.shape)


def draw_label(image: UInt8[Tensor, "h w 3"], text: str) -> UInt8[Tensor, "h w 3"]:
    """A copy of the picture with white text on a dark box in its upper left corner."""
    labelled = image.clone()
    if not text.strip():
        return labelled
    size = min(max(image.shape[0] // 24, 11), 28)
    ink = _text_bitmap(text, size)[: image.shape[0], : image.shape[1]].to(image.device)[..., None]
    corner = labelled[: ink.shape[0], : ink.shape[1]]
    boxed = corner.float() * (1 - LABEL_BOX_OPACITY)
    corner.copy_((boxed + ink * (boxed.new_tensor(LABEL_COLOUR) - boxed)).round().to(torch.uint8))
    return labelled


@lru_cache(maxsize=128)
def _text_bitmap(text: str, size_px: int) -> Float[Tensor, "h w"]:
    """How much of each pixel the text covers, 0..1, with a margin around it; shared, so never changed."""
    # On use: matplotlib loads slowly.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    margin = max(2, size_px // 3)
    line = round(size_px * 1.3)
    height = line * (text.count("\n") + 1) + margin
    figure = Figure(figsize=((len(text) + 4) * size_px / DPI, height / DPI), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    left = margin / figure.bbox.width
    figure.text(left, 0.5, text, fontsize=size_px, va="center", parse_math=False)
    canvas.draw()
    ink = 1 - torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., 0] / np.float32(255))
    used = ink.amax(0).nonzero()
    last = int(used[-1]) + 1 if len(used) else 0
    return ink[:, : last + margin]
