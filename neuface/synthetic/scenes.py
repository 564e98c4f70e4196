"""Rendered images of heads under random light."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from neuface.geometry.meshes import vertex_normals
from neuface.head.model import HeadModel
from neuface.render.rasterize import TorchRasterizer, interpolate, rasterize, vertices_to_px
from neuface.render.shading import sh_basis
from neuface.structs import Camera, HeadParams, TensorStruct
from neuface.synthetic.appearance import Look, Painter

# Share of the lamps that are near the head, and upper bound of their nearness (see `Lighting.nearness`).
NEAR_LAMP_SHARE = 0.35
LARGEST_NEARNESS = 0.45
# Standard deviation of the coefficients of ambient light beyond the constant one, relative to it.
HARMONIC_SPREAD = 0.13
# Lower bound of the ambient light, as a share of its mean.
DARKEST_AMBIENT = 0.15
# Coefficient of the constant harmonic for which the mean light is 1.
MEAN_LIGHT = math.sqrt(4 * math.pi)


@dataclass(frozen=True, kw_only=True)
class Lighting(TensorStruct):
    """Ambient light and two lamps for a batch of images; directions in camera axes."""

    ambient: Float[Tensor, "b 3"]
    harmonics: Float[Tensor, "b 9"]
    """Coefficients of the ambient light as a function of the normal, in the order of `sh_basis`; its mean is 1."""
    color: Float[Tensor, "b lamps 3"]
    toward: Float[Tensor, "b lamps 3"]
    """Unit vectors from the crop's middle to the lamp; x right, y down, z away from the camera."""
    nearness: Float[Tensor, "b lamps"]
    """Half-width of the crop over the distance to the lamp: 0 for an infinitely distant lamp."""
    gloss: Float[Tensor, " b"]


def random_lighting(generator: torch.Generator, count: int, *, plain: bool = False) -> Lighting:
    """Random light; with `plain` it is soft and frontal."""
    spread = torch.tensor((0.5, 0.4, 0.3) if plain else (1.2, 0.8, 0.5))
    toward = torch.randn(count, 2, 3, generator=generator) * spread + torch.tensor((0.0, -0.4, -0.9))
    strength = torch.rand(count, 2, 1, generator=generator) * torch.tensor((0.9, 0.5))[:, None] + 0.1
    tint = 1 + 0.08 * torch.randn(count, 2, 3, generator=generator) * (0.0 if plain else 1.0)
    ambient = 0.25 + 0.4 * torch.rand(count, 1, generator=generator)
    uneven = 0.0 if plain else 1.0
    varying = HARMONIC_SPREAD * torch.randn(count, 8, generator=generator)
    near = torch.rand(count, 2, generator=generator) < NEAR_LAMP_SHARE
    return Lighting(
        ambient=ambient * (1 + 0.05 * torch.randn(count, 3, generator=generator)),
        harmonics=MEAN_LIGHT * torch.cat((torch.ones(count, 1), uneven * varying), dim=-1),
        nearness=uneven * near * LARGEST_NEARNESS * torch.rand(count, 2, generator=generator),
        color=strength * tint.clamp(0.4, 1.6),
        toward=torch.nn.functional.normalize(toward, dim=-1),
        gloss=0.3 * torch.rand(count, generator=generator),
    )


def paint_heads(
    head: HeadModel,
    painter: Painter,
    params: HeadParams,
    camera: Camera,
    look: Look,
    light: Lighting,
    size_px: int,
) -> tuple[Float[Tensor, "b s s 3"], Bool[Tensor, "b s s"]]:
    """Images of heads (display RGB in 0..1, black in the background), and the pixels of the head.

    Args:
        params, camera, look, light: one entry per image.
        size_px: side of the square image, which is the camera's crop.
    """
    return paint_vertices(head, painter, head.vertices(params), camera, look, light, size_px)


def paint_vertices(
    head: HeadModel,
    painter: Painter,
    vertices: Float[Tensor, "b vertices 3"],
    camera: Camera,
    look: Look,
    light: Lighting,
    size_px: int,
) -> tuple[Float[Tensor, "b s s 3"], Bool[Tensor, "b s s"]]:
    """`paint_heads` for posed vertices (metres), which need not follow from parameters."""
    ndc = camera.to_image(vertices)
    pixels = vertices_to_px(ndc, size_px)
    # Faces that point away are never visible on a closed surface; the open end of the neck is not in view.
    fragments = rasterize(pixels, head.faces, (size_px, size_px), TorchRasterizer(cull_backfaces=True))
    normals = vertex_normals(pixels, head.faces)
    attributes = torch.cat((normals, ndc, painter.per_vertex.expand(len(pixels), -1, -1)), dim=-1)
    surface = interpolate(fragments, head.faces, attributes)
    normal = torch.nn.functional.normalize(surface[..., :3], dim=-1)
    color, gloss = painter.albedo(surface[..., 6:], look)
    return shade(color, gloss, normal, surface[..., 3:6], light) * fragments.mask[..., None], fragments.mask


def shade(
    color: Float[Tensor, "b h w 3"],
    gloss: Float[Tensor, "b h w 1"],
    normal: Float[Tensor, "b h w 3"],
    position_ndc: Float[Tensor, "b h w 3"],
    light: Lighting,
) -> Float[Tensor, "b h w 3"]:
    """Lambertian plus Blinn shading under `light`, tone-mapped to display RGB in 0..1."""
    shine = torch.zeros_like(normal[..., :1])
    around = (sh_basis(normal).flatten(1, 2) @ light.harmonics[..., None]).view_as(shine)
    total = light.ambient[:, None, None, :] * around.clamp(min=DARKEST_AMBIENT)
    eye = normal.new_tensor((0.0, 0.0, -1.0))
    for lamp in range(light.color.shape[1]):
        from_middle = position_ndc * light.nearness[:, lamp, None, None, None]
        to_lamp = light.toward[:, lamp, None, None, :] - from_middle
        squared = to_lamp.square().sum(-1, keepdim=True)
        toward = to_lamp * squared.rsqrt()
        cosine = (normal * toward).sum(-1, keepdim=True).clamp(min=0)
        total = total + cosine / squared * light.color[:, lamp, None, None, :]
        half = torch.nn.functional.normalize(toward + eye, dim=-1)
        shine = shine + (normal * half).sum(-1, keepdim=True).clamp(min=0).pow(24) * (cosine > 0)
    lit = color * total + shine * gloss * light.gloss[:, None, None, None]
    return (lit.clamp(min=0) ** (1 / 1.6)).clamp(max=1)
