"""Rendered pictures of random people with exact truth: identity, expression, pose, camera, landmarks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from neuface.geometry.meshes import vertex_normals
from neuface.head.model import HeadModel
from neuface.render.rasterize import TorchRasterizer, interpolate, rasterize
from neuface.render.shading import sh_basis
from neuface.structs import HeadParams, TensorStruct, WeakPerspective
from neuface.synthetic.appearance import Appearance, Painter

NEAR_LAMP_SHARE = 0.35
LARGEST_NEARNESS = 0.45
HARMONIC_SPREAD = 0.13
DARKEST_AMBIENT = 0.15
# The coefficient of the constant harmonic for which the mean light is 1.
MEAN_LIGHT = math.sqrt(4 * math.pi)


@dataclass(frozen=True, kw_only=True)
class Lighting(TensorStruct):
    """Light from everywhere and two lamps for a batch of pictures; directions in camera axes."""

    ambient: Float[Tensor, "b 3"]
    harmonics: Float[Tensor, "b 9"]
    """How the ambient light varies with the surface's direction, in the order of `sh_basis`; mean 1."""
    color: Float[Tensor, "b lamps 3"]
    toward: Float[Tensor, "b lamps 3"]
    """Unit vectors from the crop's middle to the lamp; x right, y down, z away from the camera."""
    nearness: Float[Tensor, "b lamps"]
    """Half-widths of the crop per distance to the lamp: 0 for a lamp as far as the sun."""
    gloss: Float[Tensor, " b"]


def random_lighting(generator: torch.Generator, count: int, *, plain: bool = False) -> Lighting:
    """Draw lights; `plain` keeps them soft and frontal."""
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
    camera: WeakPerspective,
    look: Appearance,
    light: Lighting,
    size_px: int,
) -> tuple[Float[Tensor, "b s s 3"], Bool[Tensor, "b s s"]]:
    """Pictures of heads (display RGB in 0..1, black where there is no head) and where the head is.

    Args:
        params, camera, look, light: one entry per picture.
        size_px: side of the square picture, which is the camera's crop.
    """
    return paint_vertices(head, painter, head.vertices(params), camera, look, light, size_px)


def paint_vertices(
    head: HeadModel,
    painter: Painter,
    vertices: Float[Tensor, "b vertices 3"],
    camera: WeakPerspective,
    look: Appearance,
    light: Lighting,
    size_px: int,
) -> tuple[Float[Tensor, "b s s 3"], Bool[Tensor, "b s s"]]:
    """Like `paint_heads`, of posed vertices (metres) that need not follow from parameters."""
    ndc = camera.to_image(vertices)
    half = size_px / 2
    pixels = ndc * half + ndc.new_tensor((half - 0.5, half - 0.5, 0.0))
    # Hidden triangles that face away are never seen on a closed head; the cut at the neck is out of sight.
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
    place_ndc: Float[Tensor, "b h w 3"],
    light: Lighting,
) -> Float[Tensor, "b h w 3"]:
    """Lambert plus Blinn under `light`, tone-mapped to display RGB in 0..1."""
    shine = torch.zeros_like(normal[..., :1])
    around = (sh_basis(normal).flatten(1, 2) @ light.harmonics[..., None]).view_as(shine)
    total = light.ambient[:, None, None, :] * around.clamp(min=DARKEST_AMBIENT)
    eye = normal.new_tensor((0.0, 0.0, -1.0))
    for lamp in range(light.color.shape[1]):
        from_middle = place_ndc * light.nearness[:, lamp, None, None, None]
        to_lamp = light.toward[:, lamp, None, None, :] - from_middle
        squared = to_lamp.square().sum(-1, keepdim=True)
        toward = to_lamp * squared.rsqrt()
        cosine = (normal * toward).sum(-1, keepdim=True).clamp(min=0)
        total = total + cosine / squared * light.color[:, lamp, None, None, :]
        half = torch.nn.functional.normalize(toward + eye, dim=-1)
        shine = shine + (normal * half).sum(-1, keepdim=True).clamp(min=0).pow(24) * (cosine > 0)
    lit = color * total + shine * gloss * light.gloss[:, None, None, None]
    return (lit.clamp(min=0) ** (1 / 1.6)).clamp(max=1)
