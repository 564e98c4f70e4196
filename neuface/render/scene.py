"""Rendered images of meshes."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d

from neuface.errors import InputError
from neuface.render.rasterize import Rasterizer, TorchRasterizer, rasterize
from neuface.render.shading import Shader, grey_clay, smooth_shade

__all__ = ["render_mesh"]


def render_mesh(
    vertices_px: Float[Tensor, "b v 3"],
    faces: Int[Tensor, "f 3"],
    size_hw: tuple[int, int],
    colors: Float[Tensor, "*colors_b v 3"] | None = None,
    background: Float[Tensor, "*background_b h w 3"] | None = None,
    *,
    supersample: int = 2,
    shader: Shader = grey_clay,
    rasterizer: Rasterizer | None = None,
) -> tuple[Float[Tensor, "b h w 3"], Float[Tensor, "b h w"]]:
    """A shaded mesh over a background, antialiased by supersampling.

    Args:
        vertices_px: x, y in pixels and z in the same unit, smaller is nearer.
        faces: corner indices, counter-clockwise seen from outside.
        size_hw: height and width of the images, pixels.
        colors: albedo per vertex, 0..1, `b v 3` or shared `v 3`; clay when None.
        background: images 0..1, `b h w 3` or shared `h w 3`; black when None, and the colours are then
            premultiplied by alpha.
        supersample: samples per pixel along each side; 1 disables antialiasing.
        shader: light and material.
        rasterizer: finds the triangles; a `TorchRasterizer` that leaves out back faces when None.

    Returns:
        Colours 0..1, and alpha: the share of each pixel that the mesh covers.

    Raises:
        InputError: shapes, face indices, the image size or `supersample` cannot be used.
    """
    if supersample < 1:
        raise InputError(f"supersample is out of range: expected at least 1, got {supersample}")
    images, height, width = vertices_px.shape[0], *size_hw
    if background is not None and tuple(background.shape) not in (
        (height, width, 3),
        (images, height, width, 3),
    ):
        raise InputError(
            f"background has the wrong shape: expected ({height}, {width}, 3) or "
            f"({images}, {height}, {width}, 3), got {tuple(background.shape)}"
        )
    finder = TorchRasterizer(cull_backfaces=True) if rasterizer is None else rasterizer
    # Pixel centres are integers, so that the fixed point of the enlargement is the image's corner at -0.5.
    corner = vertices_px.new_tensor([0.5, 0.5, 0.0])
    fine = (vertices_px + corner) * supersample - corner
    fragments = rasterize(fine, faces, (height * supersample, width * supersample), finder)
    shaded = smooth_shade(fragments, fine, faces, colors, shader)

    covered = torch.cat([shaded, fragments.mask[..., None].to(shaded.dtype)], -1)
    coarse = avg_pool2d(covered.movedim(-1, 1), supersample).movedim(1, -1)
    rgb, alpha = coarse[..., :3], coarse[..., 3]
    if background is not None:
        rgb = rgb + (1 - alpha[..., None]) * background
    return rgb, alpha
