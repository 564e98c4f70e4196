"""The photometric term: one texture, and the light before each camera, explain the colours of the visible vertices.

As with the other latent targets, texture and light are estimated in the E-step from the whole clip, without gradient;
the M-step moves the geometry until the picture, sampled where each vertex lands, has the colour expected there. There
is no rasteriser in the gradient's way. Not part of NeuFace's objective; the paper tries such a term in Table S3a.

Convention:
    Colours are display RGB, 0 to 1, as in the pictures. The model is `albedo * gain * light(normal)`. Display values
    are powers of linear light, so that a product stays a product; the rest is left to the light's coefficients (order
    and axes of `neuface.render.shading.sh_basis`). Lamps and camera stand still: a view has one light, and an image
    a gain per colour (exposure, white balance). A light of its own for every image could take over smooth parts of
    the albedo, and the errors of the pose with them. Over all that is seen, the mean of `gain * light` is 1 in each
    colour, so that the albedo is the vertex' usual colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import grid_sample

from neuface.geometry.meshes import vertex_normals
from neuface.geometry.sampling import evenly_spread_indices
from neuface.head.model import HeadModel
from neuface.losses import COLOUR_SOFTNESS
from neuface.render.shading import sh_basis
from neuface.structs import HEAD_TO_IMAGE_SIGNS, Prediction, TensorStruct

Visibility = Callable[[Tensor], Tensor]
"""Posed vertices `images vertices 3` (metres) to how well each is seen, `images vertices`, 0 if hidden; for example
`lambda posed: vertex_confidence(posed, head.faces, config)`."""

# Colours outside, by their brightest channel, say nothing about the surface: noise and clipping.
DARKEST, BRIGHTEST = 0.04, 0.98
# Images from which the albedo is estimated, evenly spread over a longer clip, and images looked at at once.
MOST_ALBEDO_IMAGES = 96
IMAGES_PER_CHUNK = 32
# Alternating steps are short where albedo and light nearly explain the same: going further than each step says needs
# a third of the rounds.
ALBEDO_ROUNDS, OVERSTEP = 24, 1.7
GAIN_ROUNDS = 4
# What pulls a light towards the even one of strength 1, per squared coefficient and mean squared albedo: a face that
# hardly turns shows at most half the directions.
LIGHT_PULL = 1e-6
# Added to sums of weights, of which one well seen vertex has about 1, so that nothing is divided by zero.
SMALLEST_WEIGHT = 1e-9


@dataclass(frozen=True, kw_only=True)
class Appearance(TensorStruct):
    """What the E-step knows about colours."""

    albedo: Float[Tensor, "vertices 3"]
    """Usual display colour of every vertex; 0 where it was never seen."""
    known: Float[Tensor, " vertices"]
    """How far an image's colour can contradict the albedo: 1 - 1/n for a vertex that n images see equally well. A
    vertex that a single image sees only repeats it, and counts 0, as does one outside the face."""
    light: Float[Tensor, "views time 9 3"]
    """Coefficients of the light for every colour: the view's, times the image's gain."""
    judged: Bool[Tensor, "views time"]
    """Images that have a photometric term."""


@dataclass(frozen=True, kw_only=True)
class _Seen(TensorStruct):
    """What images show at the face's vertices."""

    colour: Float[Tensor, "images face 3"]
    basis: Float[Tensor, "images face 9"]
    """`sh_basis` of the normals."""
    weight: Float[Tensor, "images face"]


def photometric_residuals(
    head: HeadModel,
    prediction: Prediction,
    pictures: Float[Tensor, "images 3 s s"] | UInt8[Tensor, "images 3 s s"],
    appearance: Appearance,
    index: Int[Tensor, " images"],
    visible: Visibility,
) -> tuple[Float[Tensor, "images face 3"], Float[Tensor, "images face 3"], Float[Tensor, "images face"]]:
    """Colours seen and expected at the face's vertices, and their weights: the arguments of `photometric_loss`.

    The colour has a gradient with respect to where the vertices land, the expected colour with respect to their
    normals, the weights none. The vertices are those of the head's region `face`, or all if it has none.

    Args:
        prediction: one batch axis, the images.
        pictures: the crops of these images, RGB, uint8 or 0 to 1, of any size; the camera's square.
        index: which images of the flattened (views, time) clip these are.
    """
    seen = _look(head, prediction, pictures, visible)
    face = _face(head)
    expected = appearance.albedo[face] * (seen.basis @ appearance.light.flatten(0, 1)[index])
    judged = appearance.judged.flatten()[index]
    return seen.colour, expected, seen.weight * appearance.known[face] * judged[:, None]


@torch.no_grad()
def estimate_appearance(
    head: HeadModel,
    prediction: Prediction,
    pictures: Float[Tensor, "views time 3 s s"] | UInt8[Tensor, "views time 3 s s"],
    valid: Bool[Tensor, "views time"],
    visible: Visibility,
) -> Appearance:
    """One E-step: the albedo of the whole clip, the light of every view and the gain of every image.

    All minimise `photometric_loss`, in turn, each by reweighted least squares; the light with a weak pull towards an
    even one. Albedo and lights follow from at most MOST_ALBEDO_IMAGES valid images, the gains from all.

    Args:
        prediction: the current answers, batch axes `views time`.
        pictures: all crops of the clip, RGB, uint8 or 0 to 1.
        valid: images that have a say; the others get an even light.
    """
    flat, flat_pictures = prediction.flatten_batch(2), pictures.flatten(0, 1)
    judged = valid.flatten().nonzero().squeeze(1)
    albedo, known = head.template.new_zeros(head.num_vertices, 3), head.template.new_zeros(head.num_vertices)
    light = _even_light(head.template).repeat(valid.numel(), 1, 1)
    face = _face(head)
    if len(judged):
        used = judged[evenly_spread_indices(len(judged), MOST_ALBEDO_IMAGES, judged.device)]
        pieces = [
            _look(head, flat[part], flat_pictures[part], visible) for part in used.split(IMAGES_PER_CHUNK)
        ]
        views, time = valid.shape
        albedo[face], known[face], view_light = _fitted_appearance(_joined(pieces), used // time, views)
        for part in judged.split(IMAGES_PER_CHUNK):
            seen = _look(head, flat[part], flat_pictures[part], visible)
            diffuse = seen.basis @ view_light[part // time]
            light[part] = view_light[part // time] * _robust_gain(seen, albedo[face] * diffuse)
    return Appearance(albedo=albedo, known=known, light=light.unflatten(0, tuple(valid.shape)), judged=valid)


def _look(head: HeadModel, prediction: Prediction, pictures: Tensor, visible: Visibility) -> _Seen:
    """Sample the pictures where the face's vertices land."""
    posed = head.vertices(prediction.params)
    face = _face(head)
    places = prediction.camera.project(posed[:, face])
    colour = sampled_colours(pictures, places)
    normals = vertex_normals(posed, head.faces)[:, face] * posed.new_tensor(HEAD_TO_IMAGE_SIGNS)
    brightest = colour.detach().amax(-1)
    # Half a pixel inside the edges, where there is still something to interpolate.
    inside = (places.detach().abs() <= 1 - 1 / pictures.shape[-1]).all(-1)
    usable = inside & (brightest >= DARKEST) & (brightest <= BRIGHTEST)
    return _Seen(
        colour=colour, basis=sh_basis(normals), weight=visible(posed.detach())[:, face].detach() * usable
    )


def sampled_colours(
    pictures: Float[Tensor, "images 3 s s"] | UInt8[Tensor, "images 3 s s"],
    places_ndc: Float[Tensor, "images points 2"],
) -> Float[Tensor, "images points 3"]:
    """Colours at places in crop NDC, 0 to 1, interpolated bilinearly, with a gradient with respect to the places.

    Convention:
        NDC -1 and 1 are the picture's edges. In a picture 4 px wide, the NDC places -0.75, -0.25, 0.25 and 0.75 are
        the centres of its pixels. Beyond the centres of the outermost pixels the picture continues evenly.
    """
    values = pictures.to(places_ndc.dtype) / (255 if pictures.dtype == torch.uint8 else 1)
    grid = places_ndc[:, None]
    found = grid_sample(values, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return found[:, :, 0].mT


def _fitted_appearance(
    seen: _Seen, view: Int[Tensor, " images"], views: int
) -> tuple[Float[Tensor, "face 3"], Float[Tensor, " face"], Float[Tensor, "views 9 3"]]:
    """Albedo, how far it is known, and the lights, from the images used for them."""
    shading = torch.ones_like(seen.colour)
    gain = shading[:, :1]
    albedo = _fitted_albedo(seen, shading, seen.weight)
    light = _even_light(albedo).repeat(views, 1, 1)
    total = seen.weight.sum(0)
    for _ in range(ALBEDO_ROUNDS):
        weight = _robust_weight(seen, albedo * shading)
        light = _fitted_light(seen, albedo * gain, weight, view, views)
        diffuse = seen.basis @ light[view]
        gain = _fitted_gain(seen, albedo * diffuse, weight)
        shading = gain * diffuse
        # Only the product of all is seen: the scale is set by the mean shading being 1.
        mean = (seen.weight[..., None] * shading).sum((0, 1)) / (total.sum() + SMALLEST_WEIGHT)
        mean = mean.clamp(min=1e-3)
        gain, shading = gain / mean, shading / mean
        before = albedo * mean
        fitted = _fitted_albedo(seen, shading, _robust_weight(seen, before * shading))
        albedo = torch.lerp(before, fitted, OVERSTEP)
    images = total.square() / (seen.weight.square().sum(0) + SMALLEST_WEIGHT)
    return albedo, (1 - 1 / images.clamp(min=1)) * (total > 0), light


def _fitted_albedo(
    seen: _Seen, shading: Float[Tensor, "images face 3"], weight: Float[Tensor, "images face"]
) -> Float[Tensor, "face 3"]:
    """The albedo by weighted least squares over the images; 0 if never seen."""
    weighted = weight[..., None] * shading
    return (weighted * seen.colour).sum(0) / (weighted * shading).sum(0).clamp(min=SMALLEST_WEIGHT)


def _fitted_light(
    seen: _Seen,
    surface: Float[Tensor, "images face 3"],
    weight: Float[Tensor, "images face"],
    view: Int[Tensor, " images"],
    views: int,
) -> Float[Tensor, "views 9 3"]:
    """The light of every view by weighted least squares, for surfaces of these colours in an even light.

    A view without any weight gets the even light.
    """
    total = weight.new_zeros(views).index_add(0, view, weight.sum(1)) + SMALLEST_WEIGHT
    share = weight / total[view, None]
    even = _even_light(surface)
    channels = []
    for channel in range(3):
        pull = LIGHT_PULL * surface[..., channel].square().mean().clamp(min=1e-6)
        tinted = seen.basis * surface[..., channel, None]
        weighted = (tinted * share[..., None]).mT
        squares = weight.new_zeros(views, 9, 9).index_add(0, view, weighted @ tinted)
        products = weight.new_zeros(views, 9, 1).index_add(
            0, view, weighted @ seen.colour[..., channel, None]
        )
        squares = squares + pull * torch.eye(9).to(squares)
        channels.append(torch.linalg.solve(squares, products + pull * even[:, channel, None]))
    return torch.cat(channels, dim=-1)


def _robust_gain(seen: _Seen, expected: Float[Tensor, "images face 3"]) -> Float[Tensor, "images 1 3"]:
    """The gain of every image, given the colours expected without it."""
    gain = _fitted_gain(seen, expected, seen.weight)
    for _ in range(GAIN_ROUNDS):
        gain = _fitted_gain(seen, expected, _robust_weight(seen, expected * gain))
    return gain


def _fitted_gain(
    seen: _Seen, expected: Float[Tensor, "images face 3"], weight: Float[Tensor, "images face"]
) -> Float[Tensor, "images 1 3"]:
    """The gain by weighted least squares; 1 for an image without any weight."""
    weighted = weight[..., None] * expected
    products, squares = (weighted * seen.colour).sum(1), (weighted * expected).sum(1)
    return ((products + SMALLEST_WEIGHT) / (squares + SMALLEST_WEIGHT))[:, None]


def _robust_weight(seen: _Seen, expected: Float[Tensor, "images face 3"]) -> Float[Tensor, "images face"]:
    """Weights with which a step of least squares lowers `photometric_loss`: less for what does not fit."""
    squared = (seen.colour - expected).square().sum(-1)
    return seen.weight * (1 + squared / COLOUR_SOFTNESS**2).rsqrt()


def _even_light(like: Tensor) -> Float[Tensor, "9 3"]:
    """Light of strength 1 from everywhere."""
    return like.new_tensor([math.sqrt(4 * math.pi), *[0.0] * 8])[:, None].repeat(1, 3)


def _face(head: HeadModel) -> Int[Tensor, " face"]:
    everything = torch.ones_like(head.template[:, 0], dtype=torch.bool)
    return head.regions.get("face", everything).nonzero().squeeze(1)


def _joined(pieces: list[_Seen]) -> _Seen:
    return _Seen(
        colour=torch.cat([piece.colour for piece in pieces]),
        basis=torch.cat([piece.basis for piece in pieces]),
        weight=torch.cat([piece.weight for piece in pieces]),
    )
