"""Light on surfaces: spherical harmonics, Lambert and Blinn terms, and the grey clay of the overlays.

Convention:
    Directions are unit vectors in camera axes, like the rasterised vertices: x right, y down, z away from the camera.
    A surface that faces the camera has the normal (0, 0, -1); the direction towards a light at the upper left of the
    image is (-1, -1, 0) / sqrt(2).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from neuface.errors import InputError
from neuface.geometry.meshes import face_normals, vertex_normals
from neuface.render.rasterize import Fragments, interpolate

__all__ = ["Shader", "blinn", "grey_clay", "lambert", "sh_basis", "sh_light", "smooth_shade", "toward_point"]

Shader = Callable[[Tensor, Tensor | None], Tensor]
"""A function `(unit normals "n 3", albedo "n 3" or None) -> colours "n 3"`, colours 0..1."""

# Direction from the surface to a viewer at infinity in front of the image.
TOWARD_EYE = (0.0, 0.0, -1.0)

# Reflectance of the clay, per colour channel.
CLAY_ALBEDO = (0.80, 0.80, 0.82)
# Lights of the clay as (direction towards the light, strength, wrap): a soft key light from the upper left, a weak
# fill light from the right, and a rim light from above and behind that separates the outline from dark backgrounds.
CLAY_LIGHTS = (
    ((-0.45, -0.62, -0.80), 0.66, 0.15),
    ((0.85, -0.05, -0.50), 0.20, 0.30),
    ((0.10, -0.85, 0.55), 0.16, 0.0),
)
# Strength of the uniform light, and strength and exponent of the highlight.
CLAY_AMBIENT = 0.17
CLAY_GLOSS = 0.10
CLAY_SHININESS = 24.0


def sh_basis(directions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 9"]:
    """The nine real spherical harmonics up to degree 2 at unit directions.

    Convention:
        They are orthonormal over the sphere, without the Condon-Shortley sign, in the order (l, m) = (0,0), (1,-1),
        (1,0), (1,1), (2,-2), (2,-1), (2,0), (2,1), (2,2), that is::

            1/2 sqrt(1/pi),
            sqrt(3/(4 pi)) * (y, z, x),
            1/2 sqrt(15/pi) * (x y, y z), 1/4 sqrt(5/pi) * (3 z^2 - 1),
            1/2 sqrt(15/pi) * x z, 1/4 sqrt(15/pi) * (x^2 - y^2)

    Example:
        >>> sh_basis(torch.tensor([0.0, 0.0, 1.0]))
        tensor([0.2821, 0.0000, 0.4886, 0.0000, 0.0000, 0.0000, 0.6308, 0.0000, 0.0000])
    """
    x, y, z = directions.unbind(-1)
    constant = 0.5 * math.sqrt(1 / math.pi)
    linear = math.sqrt(3 / (4 * math.pi))
    product = 0.5 * math.sqrt(15 / math.pi)
    parts = [
        torch.full_like(x, constant),
        linear * y,
        linear * z,
        linear * x,
        product * x * y,
        product * y * z,
        0.25 * math.sqrt(5 / math.pi) * (3 * z * z - 1),
        product * x * z,
        0.5 * product * (x * x - y * y),
    ]
    return torch.stack(parts, -1)


def sh_light(
    normals: Float[Tensor, "*batch 3"], coefficients: Float[Tensor, "*#batch 9 c"]
) -> Float[Tensor, "*batch c"]:
    """Light reflected by a white Lambertian surface, from nine coefficients per channel in the order of `sh_basis`.

    The coefficients describe the reflected light, which is the incident light convolved with the cosine lobe
    (Ramamoorthi and Hanrahan, 2001). The model is linear, so that the result can be negative; it is not clamped.
    """
    return (sh_basis(normals).unsqueeze(-2) @ coefficients).squeeze(-2)


def lambert(
    normals: Float[Tensor, "*batch 3"], toward_light: Float[Tensor, "*#batch 3"], wrap: float = 0.0
) -> Float[Tensor, "*batch"]:
    """Share of the light that a Lambertian surface reflects: the cosine to the light, 0 where it faces away.

    Args:
        normals: unit normals.
        toward_light: unit vectors from the surface to the light; one `(3,)` vector is a directional light,
            and `toward_point` gives those of a point light.
        wrap: 0 for Lambert's law. Larger values, up to 1, extend the lit region beyond the terminator, as a
            large light source does: the result is (cosine + wrap) / (1 + wrap), clamped at 0.

    Example:
        >>> normals = torch.tensor([[0.0, 0.0, -1.0], [0.6, 0.0, -0.8], [0.0, 0.0, 1.0]])
        >>> lambert(normals, torch.tensor([0.0, 0.0, -1.0]))
        tensor([1.0000, 0.8000, 0.0000])
    """
    cosine = _dot(normals, toward_light)
    return ((cosine + wrap) / (1 + wrap)).clamp(min=0)


def blinn(
    normals: Float[Tensor, "*batch 3"],
    toward_light: Float[Tensor, "*#batch 3"],
    shininess: float = 32.0,
    toward_eye: Float[Tensor, "*#batch 3"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Blinn's specular highlight, 0..1 (Blinn, 1977); by default the viewer is at infinity in front of the image."""
    eye = normals.new_tensor(TOWARD_EYE) if toward_eye is None else toward_eye
    half = normalize(toward_light + eye, dim=-1)
    lit = _dot(normals, toward_light) > 0
    return _dot(normals, half).clamp(min=0).pow(shininess) * lit


def toward_point(
    points: Float[Tensor, "*batch 3"], position: Float[Tensor, "*#batch 3"]
) -> Float[Tensor, "*batch 3"]:
    """Unit vectors from surface points to a point light."""
    return normalize(position - points, dim=-1)


def grey_clay(
    normals: Float[Tensor, "*batch 3"], albedo: Float[Tensor, "*batch 3"] | None = None
) -> Float[Tensor, "*batch 3"]:
    """Matt clay under a key, a fill and a rim light with a weak highlight; display colours 0..1.

    Args:
        normals: unit normals in camera axes.
        albedo: colour of the surface, 0..1; light grey when None.
    """
    colour = normals.new_tensor(CLAY_ALBEDO) if albedo is None else albedo
    light = torch.full_like(normals[..., 0], CLAY_AMBIENT)
    for direction, strength, wrap in CLAY_LIGHTS:
        toward = normalize(normals.new_tensor(direction), dim=0)
        light = light + strength * lambert(normals, toward, wrap)
    key = normalize(normals.new_tensor(CLAY_LIGHTS[0][0]), dim=0)
    gloss = CLAY_GLOSS * blinn(normals, key, CLAY_SHININESS)
    return (colour * light[..., None] + gloss[..., None]).clamp(0, 1)


def smooth_shade(
    fragments: Fragments,
    vertices_px: Float[Tensor, "b v 3"],
    faces: Int[Tensor, "f 3"],
    colors: Float[Tensor, "*colors_b v 3"] | None = None,
    shader: Shader = grey_clay,
) -> Float[Tensor, "b h w 3"]:
    """Colour of every pixel from smoothly interpolated vertex normals; 0 in the background.

    Args:
        fragments: from `rasterize` with the same vertices and faces.
        vertices_px: x, y, z in one unit (z scaled like x), so that the normals are correct.
        faces: corner indices, counter-clockwise seen from outside; the inside is shaded as seen from inside.
        colors: albedo per vertex, 0..1, `b v 3` or shared `v 3`; the shader's own when None.
        shader: light and material, for example `grey_clay` or a function around `sh_light`.

    Raises:
        InputError: the colours or the result of the shader have another shape than expected.
    """
    if colors is not None and (colors.shape[-1] != 3 or colors.shape[-2] != vertices_px.shape[1]):
        raise InputError(
            f"colors have the wrong shape: expected (..., {vertices_px.shape[1]}, 3), "
            f"got {tuple(colors.shape)}"
        )
    seen = fragments.mask.flatten().nonzero().squeeze(1)
    pixels = fragments.triangle_id.shape
    normals = _foreground(interpolate(fragments, faces, vertex_normals(vertices_px, faces)), seen)
    # The face decides whether its inside is visible: the interpolated normal can point away at outlines.
    inside = face_normals(vertices_px, faces)[..., 2] > 0
    image = seen // (pixels[1] * pixels[2])
    flipped = inside[image, fragments.triangle_id.flatten()[seen]]
    normals = normalize(torch.where(flipped[:, None], -normals, normals), dim=-1)
    albedo = None if colors is None else _foreground(interpolate(fragments, faces, colors), seen)
    shaded = shader(normals, albedo)
    if shaded.shape != normals.shape:
        raise InputError(
            f"shader returned the wrong shape: expected {tuple(normals.shape)}, got {tuple(shaded.shape)}"
        )
    return shaded.new_zeros(pixels.numel(), 3).index_copy(0, seen, shaded).reshape(*pixels, 3)


def _foreground(images: Float[Tensor, "b h w c"], seen: Int[Tensor, " n"]) -> Float[Tensor, "n c"]:
    return images.flatten(0, 2).index_select(0, seen)


def _dot(a: Float[Tensor, "*batch 3"], b: Float[Tensor, "*#batch 3"]) -> Float[Tensor, "*batch"]:
    # The sum is written out, because torch reduces an axis of three more slowly than it adds three tensors.
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]
