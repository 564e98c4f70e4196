"""Pictures for people: the fitted mesh over its frame, pictures side by side, contact sheets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from neuface.errors import InputError
from neuface.render import Rasterizer, render_mesh
from neuface.viz.draw import draw_dots, draw_label

__all__ = ["contact_sheet", "overlay_mesh", "side_by_side"]

FITTED_COLOUR = (64.0, 224.0, 255.0)
OBSERVED_COLOUR = (255.0, 96.0, 64.0)
GAP_PX = 4
GAP_COLOUR = 32


def overlay_mesh(
    frame: UInt8[Tensor, "h w 3"],
    vertices_px: Float[Tensor, "v 3"],
    faces: Int[Tensor, "f 3"],
    opacity: float = 0.6,
    landmarks_px: Float[Tensor, "n 2"] | None = None,
    observed_px: Float[Tensor, "m 2"] | None = None,
    *,
    colors: Float[Tensor, "v 3"] | None = None,
    supersample: int = 2,
    rasterizer: Rasterizer | None = None,
) -> UInt8[Tensor, "h w 3"]:
    """The frame with the clay mesh over it; pixels without mesh or dots keep their value.

    Args:
        frame: RGB picture; it is not changed.
        vertices_px: x, y in frame pixels and z in the same unit, smaller is nearer.
        faces: corner indices, counter-clockwise seen from outside.
        opacity: 0 shows the frame only, 1 the mesh only.
        landmarks_px: landmarks of the fit, drawn as blue dots.
        observed_px: detected landmarks, drawn as slightly larger red dots below the others.
        colors: albedo per vertex, 0..1; clay when None.
        supersample: samples per pixel along each side.
        rasterizer: as for `render_mesh`.

    Raises:
        InputError: shapes, face indices, `opacity` or `supersample` cannot be used.
    """
    if frame.dim() != 3 or frame.shape[-1] != 3 or frame.dtype != torch.uint8:
        raise InputError(
            f"frame cannot be used: expected uint8 (h, w, 3), got {frame.dtype} {tuple(frame.shape)}"
        )
    if not 0 <= opacity <= 1:
        raise InputError(f"opacity is out of range: expected 0 to 1, got {opacity}")
    picture = frame.clone()
    box = _visible_box(vertices_px, frame.shape[0], frame.shape[1])
    if box is not None:
        top, bottom, left, right = box
        local = vertices_px.detach() - vertices_px.new_tensor([left, top, 0])
        rgb, alpha = render_mesh(
            local[None],
            faces,
            (bottom - top, right - left),
            colors,
            supersample=supersample,
            rasterizer=rasterizer,
        )
        region = picture[top:bottom, left:right]
        mixed = region * (1 - opacity * alpha[0, ..., None]) + (255 * opacity) * rgb[0]
        region.copy_(mixed.round().clamp(0, 255))
    radius = max(1.5, min(frame.shape[:2]) / 280)
    for points, colour, size in (
        (observed_px, OBSERVED_COLOUR, 1.3 * radius),
        (landmarks_px, FITTED_COLOUR, radius),
    ):
        if points is not None and len(points):
            picture = draw_dots(picture, points.detach(), colour, size)
    return picture


def side_by_side(images: Sequence[tuple[str, UInt8[Tensor, "_ _ 3"]]]) -> UInt8[Tensor, "h w 3"]:
    """Labelled pictures in a row; smaller ones are padded at the bottom. An empty label writes nothing.

    Raises:
        InputError: there is no picture, or one is not uint8 (h, w, 3).
    """
    return contact_sheet([draw_label(_checked(image), text) for text, image in images], max(1, len(images)))


def contact_sheet(images: Sequence[UInt8[Tensor, "_ _ 3"]], columns: int) -> UInt8[Tensor, "h w 3"]:
    """Pictures in a grid, row by row; every column and every row is as large as its largest picture.

    Raises:
        InputError: there is no picture, one is not uint8 (h, w, 3), or `columns` is below 1.
    """
    if not images:
        raise InputError("images is empty: expected at least one picture, got none")
    if columns < 1:
        raise InputError(f"columns is out of range: expected at least 1, got {columns}")
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    cells = [_checked(image) for image in images]
    heights = [max(cell.shape[0] for cell in cells[r * columns : (r + 1) * columns]) for r in range(rows)]
    widths = [max(cell.shape[1] for cell in cells[c::columns]) for c in range(columns)]
    size = (sum(heights) + GAP_PX * (rows - 1), sum(widths) + GAP_PX * (columns - 1), 3)
    sheet = torch.full(size, GAP_COLOUR, dtype=torch.uint8, device=cells[0].device)
    for index, cell in enumerate(cells):
        row, column = divmod(index, columns)
        top = sum(heights[:row]) + GAP_PX * row
        left = sum(widths[:column]) + GAP_PX * column
        sheet[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    return sheet


def _checked(image: Tensor) -> UInt8[Tensor, "h w 3"]:
    if image.dim() != 3 or image.shape[-1] != 3 or image.dtype != torch.uint8:
        raise InputError(
            f"picture cannot be used: expected uint8 (h, w, 3), got {image.dtype} {tuple(image.shape)}"
        )
    return image


def _visible_box(
    vertices_px: Float[Tensor, "v 3"], height: int, width: int
) -> tuple[int, int, int, int] | None:
    """Rows and columns (top, bottom, left, right; half-open) that the mesh can touch, None if none."""
    points = vertices_px[vertices_px.isfinite().all(-1), :2]
    if not len(points):
        return None
    limits = points.new_tensor([width, height])
    # A pixel reaches half a pixel to each side of its centre: one more on each side holds every sample.
    low = (points.amin(0).floor() - 1).clamp(min=0).minimum(limits)
    high = (points.amax(0).ceil() + 2).clamp(min=0).minimum(limits)
    (left, top), (right, bottom) = low.long().tolist(), high.long().tolist()
    return (top, bottom, left, right) if bottom > top and right > left else None
