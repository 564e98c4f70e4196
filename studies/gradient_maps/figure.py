"""A figure of maps over the face, one row per image: on the picture and on the mesh, with a colour bar per column."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from neuface.errors import InputError
from neuface.render import render_mesh

__all__ = ["gradient_figure"]

DPI = 100
COLOURS = "inferno"
# Quantile of a map's values at which its scale ends, so that a few extreme values do not darken the rest.
SCALE_QUANTILE = 0.995
# Brightness of a surface seen edge-on, relative to the colour bar; the shading makes the face recognisable.
EDGE_BRIGHTNESS = 0.55
# Sizes of the figure's parts, pixels: between cells, of the titles, of the colour bars.
GAP_PX, TITLE_PX, BAR_PX = 6, 26, 44


def gradient_figure(
    crops: UInt8[Tensor, "images size size 3"],
    vertices_px: Float[Tensor, "_ vertices 3"],
    faces: Int[Tensor, "faces 3"],
    *,
    pixel_maps: Mapping[str, tuple[str, Float[Tensor, "_ _ _"]]],
    vertex_maps: Mapping[str, tuple[str, Float[Tensor, "_ _"]]],
    cell_px: int = 200,
) -> UInt8[Tensor, "h w 3"]:
    """Rows are images; columns the crop, then the pixel maps, then the vertex maps on the rendered mesh.

    Every map has a scale of its own, from 0 to its 99.5 % quantile, so that patterns can be compared. The value at
    the scale's end is written into the map; the colour bars below the columns are relative to it.

    Args:
        crops: square RGB pictures.
        vertices_px: x, y in crop pixels and z in the same unit, smaller is nearer.
        faces: corner indices, counter-clockwise seen from outside.
        pixel_maps: title -> unit and values of at least 0, one per pixel of some resolution of the crop.
        vertex_maps: title -> unit and values of at least 0, one per vertex.
        cell_px: side of every picture in the figure.

    Raises:
        InputError: there is no image, or a map has another shape or values that are not finite.
    """
    _check(crops, vertices_px, pixel_maps, vertex_maps)
    columns: dict[str, list[tuple[np.ndarray, str]]] = {
        "crop": [(crop, "") for crop in crops.cpu().numpy()],
    }
    for title, (unit, values) in pixel_maps.items():
        tops = [_scale_top(of_image) for of_image in values]
        pictures = [_coloured(*pair).cpu().numpy() for pair in zip(values, tops, strict=True)]
        columns[title] = [(picture, f"{top:.2g} {unit}") for picture, top in zip(pictures, tops, strict=True)]
    for title, (unit, values) in vertex_maps.items():
        tops = [_scale_top(of_image) for of_image in values]
        colours = torch.stack([_coloured(*pair) for pair in zip(values, tops, strict=True)])
        pictures = _on_mesh(vertices_px, faces, colours, crops.shape[1])
        columns[title] = [(picture, f"{top:.2g} {unit}") for picture, top in zip(pictures, tops, strict=True)]
    return _drawn(columns, len(crops), cell_px)


def _drawn(
    columns: Mapping[str, list[tuple[np.ndarray, str]]], rows: int, cell_px: int
) -> UInt8[Tensor, "h w 3"]:
    """Draw the columns: title -> pictures, each with the value at the end of its scale, or empty for no colour
    bar.
    """
    width = len(columns) * (cell_px + GAP_PX) + GAP_PX
    height = TITLE_PX + rows * (cell_px + GAP_PX) + BAR_PX
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    canvas = FigureCanvasAgg(figure)

    def axes_at(column: int, top: int, wide: int, high: int) -> Axes:
        left = GAP_PX + column * (cell_px + GAP_PX) + (cell_px - wide) / 2
        return figure.add_axes((left / width, 1 - (top + high) / height, wide / width, high / height))

    for column, (title, cells) in enumerate(columns.items()):
        for row, (image, scale_end) in enumerate(cells):
            axes = axes_at(column, TITLE_PX + row * (cell_px + GAP_PX), cell_px, cell_px)
            axes.imshow(image, interpolation="antialiased")
            axes.set_axis_off()
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.8}
            if scale_end:
                axes.text(
                    0.02,
                    0.02,
                    f"1 = {scale_end}",
                    transform=axes.transAxes,
                    fontsize=7,
                    bbox=box,
                    parse_math=False,
                )
            if row == 0:
                axes.set_title(title, fontsize=9, pad=4, parse_math=False)
        if cells[0][1]:
            below = TITLE_PX + rows * (cell_px + GAP_PX) + 2
            scale = ScalarMappable(Normalize(0, 1), COLOURS)
            bar = figure.colorbar(
                scale,
                cax=axes_at(column, below, cell_px * 17 // 20, 10),
                orientation="horizontal",
                extend="max",
            )
            bar.ax.tick_params(labelsize=8)
    canvas.draw()
    return torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _check(
    crops: Tensor,
    vertices_px: Tensor,
    pixel_maps: Mapping[str, tuple[str, Tensor]],
    vertex_maps: Mapping[str, tuple[str, Tensor]],
) -> None:
    images = len(crops)
    if not images:
        raise InputError("crops is empty: expected at least one image")
    if len(vertices_px) != images:
        raise InputError(f"vertices_px: expected meshes of {images} images, got {len(vertices_px)}")
    for title, (_, values) in (*pixel_maps.items(), *vertex_maps.items()):
        if len(values) != images:
            raise InputError(f"{title}: expected maps of {images} images, got {len(values)}")
        if not bool(values.isfinite().all()):
            raise InputError(f"{title}: expected finite values, got some that are not")
    for title, (_, values) in vertex_maps.items():
        if values.shape != vertices_px.shape[:2]:
            raise InputError(
                f"{title}: expected one value per vertex, {tuple(vertices_px.shape[:2])}, got {tuple(values.shape)}"
            )


def _scale_top(values: Tensor) -> float:
    """The value at which a map's scale ends; 1 for a map of zeros."""
    top = float(values.flatten().quantile(SCALE_QUANTILE))
    return top if top > 0 else float(values.max()) or 1.0


def _coloured(values: Tensor, top: float) -> Float[Tensor, "*shape 3"]:
    shares = (values / top).clamp(0, 1).cpu().numpy()
    return torch.from_numpy(colormaps[COLOURS](shares)[..., :3].astype(np.float32)).to(values.device)


def _on_mesh(
    vertices_px: Float[Tensor, "images vertices 3"],
    faces: Int[Tensor, "faces 3"],
    colours: Float[Tensor, "images vertices 3"],
    size_px: int,
) -> np.ndarray:
    white = vertices_px.new_ones(size_px, size_px, 3)
    rgb, _ = render_mesh(
        vertices_px,
        faces,
        (size_px, size_px),
        colours.to(vertices_px.dtype),
        white,
        shader=_faintly_shaded,
    )
    return rgb.clamp(0, 1).cpu().numpy()


def _faintly_shaded(normals: Tensor, albedo: Tensor | None) -> Tensor:
    """The given colours where the surface faces the viewer, darker where it is seen edge-on."""
    facing = -normals[..., 2:].clamp(max=0)
    colours = torch.ones_like(normals) if albedo is None else albedo
    return colours * (EDGE_BRIGHTNESS + (1 - EDGE_BRIGHTNESS) * facing)
