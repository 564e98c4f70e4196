"""A clip's overlay, picture by picture: every view a row, every prediction a column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from jaxtyping import UInt8
from torch import Tensor

from neuface.devices import map_pieces
from neuface.head.model import HeadModel
from neuface.structs import FrameSource, Prediction
from neuface.viz.overlay import overlay_mesh, side_by_side

PANEL_WIDTH_PX = 640
"""Largest width of a panel, pixels. Larger frames are scaled down: the time of drawing grows with the pixels."""
FRAMES_PER_READ = 8
"""Number of frames that are read and drawn at once, divided among threads; it bounds the memory for them."""


def overlay_frames(
    source: FrameSource, head: HeadModel, predictions: Mapping[str, Prediction]
) -> Iterator[UInt8[Tensor, "_ _ 3"]]:
    """One picture per time: for each view a row of the frame and the frame with each prediction's mesh.

    Args:
        source: the frames, RGB.
        head: the model of the predictions' parameters.
        predictions: label of each column -> batch axes `views time`, cameras in frame pixels.
    """
    for start in range(0, source.time, FRAMES_PER_READ):
        stop = min(start + FRAMES_PER_READ, source.time)
        frames = [source.read(view, start, stop) for view in range(source.views)]
        places = [(view, time) for time in range(start, stop) for view in range(source.views)]

        def row(place: tuple[int, int], start: int = start, frames: list[Tensor] = frames) -> Tensor:
            view, time = place
            return _row(frames[view][time - start], head, _at(predictions, view, time))

        rows = map_pieces(row, places)
        for first in range(0, len(rows), source.views):
            yield _stacked(rows[first : first + source.views])


def _at(predictions: Mapping[str, Prediction], view: int, time: int) -> dict[str, Prediction]:
    return {label: prediction[view, time] for label, prediction in predictions.items()}


def _row(
    frame: UInt8[Tensor, "_ _ 3"], head: HeadModel, predictions: Mapping[str, Prediction]
) -> UInt8[Tensor, "_ _ 3"]:
    shrink = min(1.0, PANEL_WIDTH_PX / frame.shape[1])
    small = _resized(frame, shrink)
    # Pixel centres are integers: (x + 0.5) scales, not x.
    shift = torch.tensor((0.5 * shrink - 0.5, 0.5 * shrink - 0.5, 0.0))
    panels = [("frame", small)]
    for label, prediction in predictions.items():
        vertices_px = prediction.camera.to_image(head.vertices(prediction.params))
        panels.append((label, overlay_mesh(small, vertices_px * shrink + shift, head.faces)))
    return side_by_side(panels)


def _resized(frame: UInt8[Tensor, "_ _ 3"], factor: float) -> UInt8[Tensor, "_ _ 3"]:
    if factor == 1.0:
        return frame
    size = (round(frame.shape[0] * factor), round(frame.shape[1] * factor))
    image = frame.permute(2, 0, 1)[None].float()
    small = torch.nn.functional.interpolate(image, size=size, mode="bilinear", antialias=True)
    return small[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()


def _stacked(rows: list[UInt8[Tensor, "_ _ 3"]]) -> UInt8[Tensor, "_ _ 3"]:
    """Rows of possibly different width below each other, filled up with black."""
    width = max(row.shape[1] for row in rows)
    padded = [torch.nn.functional.pad(row, (0, 0, 0, width - row.shape[1])) for row in rows]
    return torch.cat(padded)
