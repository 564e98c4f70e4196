"""Square regions of frames, and the pictures that the networks see of them.

MediaPipe reports coordinates with the origin at the first corner of the picture, but samples as if pixel centres were
at integers: half a pixel is lost, and the networks answer best where their inputs are made in the same way. It also
works on whole grey levels and on positions of 1/32 pixel; both are kept, so that results equal the official ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from neuface.structs import TensorStruct

# Fraction of a pixel to which MediaPipe's sampling positions are rounded.
POSITION_STEPS = 32


@dataclass(frozen=True, kw_only=True)
class Regions(TensorStruct):
    """Turned squares in frames, in pixels with the origin at the corner of the first pixel."""

    frame: Int[Tensor, " n"]
    """Index of the frame in its block."""
    centre: Float[Tensor, "n 2"]
    side: Float[Tensor, " n"]
    angle: Float[Tensor, " n"]
    """Radians from the frame's x axis to the square's, positive from x to y (clockwise on the screen)."""

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def axes(self) -> Float[Tensor, "n 2 2"]:
        """The unit vectors along the square's x and y axis, as columns."""
        cos, sin = torch.cos(self.angle), torch.sin(self.angle)
        return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)

    def to_frame(self, points: Float[Tensor, "n points 2"]) -> Float[Tensor, "n points 2"]:
        """From the square (0..1 between its edges) to the frame, origin at the corner of the first pixel.

        >>> square = upright([0], [[100.0, 50.0]], [40.0])
        >>> square.to_frame(torch.tensor([[[0.0, 0.0], [0.5, 1.0]]])).tolist()
        [[[80.0, 30.0], [100.0, 70.0]]]
        """
        scaled = (points - 0.5) * self.side[:, None, None]
        return scaled @ self.axes.transpose(1, 2) + self.centre[:, None]


def upright(
    frame: list[int] | Tensor, centre: list[list[float]] | Tensor, side: list[float] | Tensor
) -> Regions:
    """Squares whose sides are parallel to the frame's."""
    sides = torch.as_tensor(side, dtype=torch.float64)
    return Regions(
        frame=torch.as_tensor(frame, dtype=torch.int64, device=sides.device),
        centre=torch.as_tensor(centre, dtype=torch.float64),
        side=sides,
        angle=torch.zeros_like(sides),
    )


def sampled(
    frames: UInt8[Tensor, "n h w 3"], regions: Regions, size_px: int, *, repeat_border: bool
) -> Float[Tensor, "k 3 s s"]:
    """Pictures of regions: bilinear, in whole grey levels 0..255.

    Args:
        repeat_border: outside the frame stands the nearest pixel of its border; otherwise black.
    """
    steps = torch.arange(size_px, dtype=torch.float64, device=regions.side.device) / size_px - 0.5
    offsets = steps * regions.side[:, None]
    along_x, along_y = regions.axes.unbind(-1)
    taps = [
        # Axis by axis: the squares' columns and rows, in 32nds of a pixel.
        torch.round(
            (regions.centre[:, axis, None, None] + along_x[:, axis, None, None] * offsets[:, None])
            .add(along_y[:, axis, None, None] * offsets[..., None])
            .mul(POSITION_STEPS)
        ).to(torch.int64)
        for axis in (0, 1)
    ]
    height, width = frames.shape[1:3]
    columns, rows = (
        _two_taps(tap, size, repeat_border) for tap, size in zip(taps, (width, height), strict=True)
    )
    pixels = frames.reshape(-1, 3)
    first = regions.frame[:, None, None] * (height * width)
    total = torch.zeros(*taps[0].shape, 3, device=frames.device)
    for row, row_weight in rows:
        for column, column_weight in columns:
            # Positions beyond the frame carry no weight; whole numbers, so that the sum is exact.
            values = pixels[first + row * width + column].float()
            total += values * (row_weight * column_weight)[..., None]
    levels = torch.floor(total / POSITION_STEPS**2 + 0.5)
    return levels.permute(0, 3, 1, 2)


def _two_taps(
    steps: Int[Tensor, "k s s"], size: int, repeat_border: bool
) -> list[tuple[Int[Tensor, "k s s"], Float[Tensor, "k s s"]]]:
    """The two pixels around every position along one axis, and their weights in 32nds."""
    before = steps.div(POSITION_STEPS, rounding_mode="floor")
    share = (steps - before * POSITION_STEPS).float()
    taps = []
    for place, weight in ((before, POSITION_STEPS - share), (before + 1, share)):
        inside = place.clamp(0, size - 1)
        taps.append((inside, weight if repeat_border else weight * (inside == place)))
    return taps
