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
from torch.nn.functional import grid_sample

from neuface.structs import TensorStruct

# Number of steps of a pixel to which MediaPipe rounds the positions at which it samples.
POSITION_STEPS = 32


@dataclass(frozen=True, kw_only=True)
class Regions(TensorStruct):
    """Turned squares in frames, in pixels with the origin at the corner of the first pixel."""

    frame: Int[Tensor, "*n"]
    """Index of the frame in its block."""
    centre: Float[Tensor, "*n 2"]
    side: Float[Tensor, "*n"]
    angle: Float[Tensor, "*n"]
    """Radians from the frame's x axis to the square's, positive from x to y (clockwise on the screen)."""

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def axes(self) -> Float[Tensor, "*n 2 2"]:
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


def no_regions() -> Regions:
    """None at all."""
    return upright(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2), torch.zeros(0))


def sampled(
    frames: UInt8[Tensor, "n h w 3"], regions: Regions, size_px: int, *, repeat_border: bool
) -> Float[Tensor, "k 3 s s"]:
    """Pictures of regions on the frames' device: bilinear, in whole grey levels 0..255.

    Args:
        regions: on the CPU, where their positions are computed in double precision, which some devices lack.
        repeat_border: outside the frame stands the nearest pixel of its border; otherwise black.
    """
    pictures = torch.empty(len(regions), 3, size_px, size_px, device=frames.device)
    margin = 0 if repeat_border else 1
    for index in range(len(regions)):
        frame = frames[int(regions.frame[index])]
        # Further out stands what stands on the margin.
        limits = [(size - 1 + margin) * POSITION_STEPS for size in (frame.shape[1], frame.shape[0])]
        x, y = (
            position.clamp(-margin * POSITION_STEPS, limit)
            for position, limit in zip(_positions(regions[index], size_px), limits, strict=True)
        )
        # Without a turn a row of the picture comes from two rows of the frame, and the others need not be copied.
        gather = _upright_picture if float(regions.angle[index]) == 0 else _turned_picture
        pictures[index] = torch.floor(gather(frame, x, y) + 0.5)
    return pictures


def _positions(region: Regions, size_px: int) -> tuple[Int[Tensor, "s s"], Int[Tensor, "s s"]]:
    """Where the pixels of one region's picture are sampled, x and y, in steps of a pixel."""
    offsets = (torch.arange(size_px, dtype=torch.float64) / size_px - 0.5) * region.side
    along_x, along_y = region.axes.unbind(-1)
    x, y = (
        region.centre[axis] + along_x[axis] * offsets[None] + along_y[axis] * offsets[:, None]
        for axis in (0, 1)
    )
    return torch.round(x * POSITION_STEPS).long(), torch.round(y * POSITION_STEPS).long()


def _upright_picture(
    frame: UInt8[Tensor, "h w 3"], x: Int[Tensor, "s s"], y: Int[Tensor, "s s"]
) -> Float[Tensor, "3 s s"]:
    """Bilinear values, black outside, where `x` depends on the column alone and `y` on the row."""
    rows, row_weights = _two_taps(y[:, 0], frame.shape[0], frame.device)
    columns, column_weights = _two_taps(x[0], frame.shape[1], frame.device)
    size = x.shape[0]
    chosen = frame[rows][:, columns].float().reshape(2, size, 2, size, 3)
    lines = (chosen * row_weights[:, :, None, None, None]).sum(0)
    return (lines * column_weights[:, :, None]).sum(1).permute(2, 0, 1)


def _two_taps(
    steps: Int[Tensor, " s"], size: int, device: torch.device
) -> tuple[Int[Tensor, " taps"], Float[Tensor, "2 s"]]:
    """The pixels before and after every position along one axis, and their weights: none beyond the frame."""
    before = steps.div(POSITION_STEPS, rounding_mode="floor")
    share = (steps - before * POSITION_STEPS).float() / POSITION_STEPS
    places = torch.stack([before, before + 1])
    weights = torch.stack([1 - share, share]) * ((places >= 0) & (places < size))
    return places.clamp(0, size - 1).flatten().to(device), weights.to(device)


def _turned_picture(
    frame: UInt8[Tensor, "h w 3"], x: Int[Tensor, "s s"], y: Int[Tensor, "s s"]
) -> Float[Tensor, "3 s s"]:
    """Bilinear values, black outside, of any positions: `grid_sample` in the smallest window that holds them."""
    height, width = frame.shape[:2]
    left, right = int(x.min()) // POSITION_STEPS, -(-int(x.max()) // POSITION_STEPS)
    top, bottom = int(y.min()) // POSITION_STEPS, -(-int(y.max()) // POSITION_STEPS)
    # With a power of two between the outer pixels the positions are exact in single precision.
    extent = 1 << (max(right - left, bottom - top, 1) - 1).bit_length()
    window = torch.zeros(1, 3, extent + 1, extent + 1, device=frame.device)
    x0, x1, y0, y1 = max(left, 0), min(right + 1, width), max(top, 0), min(bottom + 1, height)
    window[0, :, y0 - top : y1 - top, x0 - left : x1 - left] = frame[y0:y1, x0:x1].permute(2, 0, 1)
    places = torch.stack([x - left * POSITION_STEPS, y - top * POSITION_STEPS], -1)
    grid = places.float() / (POSITION_STEPS * extent / 2) - 1
    return grid_sample(window, grid[None].to(frame.device), padding_mode="border", align_corners=True)[0]
