"""Rasterisation behind one small protocol, shading, and rendered images of meshes."""

from neuface.render.rasterize import (
    Fragments,
    Rasterizer,
    TorchRasterizer,
    interpolate,
    interpolate_corners,
    rasterize,
    vertices_to_px,
)
from neuface.render.scene import render_mesh
from neuface.render.shading import (
    Shader,
    blinn,
    grey_clay,
    lambert,
    sh_basis,
    sh_light,
    smooth_shade,
    toward_point,
)

__all__ = [
    "Fragments",
    "Rasterizer",
    "Shader",
    "TorchRasterizer",
    "blinn",
    "grey_clay",
    "interpolate",
    "interpolate_corners",
    "lambert",
    "rasterize",
    "render_mesh",
    "sh_basis",
    "sh_light",
    "smooth_shade",
    "toward_point",
    "vertices_to_px",
]
