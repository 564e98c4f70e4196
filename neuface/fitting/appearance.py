"""Texture and light of the photometric term: together they explain the colours of the visible vertices.

As with the other latent targets, texture and light are estimated in the E-step from the whole clip, without gradient.
The M-step moves the geometry until the picture, sampled where each vertex lands, has the colour that they predict
there. The gradient needs no rasteriser. NeuFace's objective has no such term; the paper tries one in Table S3a.

Convention:
    Colours are display RGB, 0 to 1, as in the pictures. The model is `albedo * gain * light(normal)`. Display values
    are powers of linear light, so a product of linear values is a product of display values; the coefficients of the
    light (order and axes of `neuface.render.shading.sh_basis`) take up the rest. Lamps and cameras stand still: a
    view has one light, and an image has one gain per colour channel (exposure, white balance). A light of its own for
    every image could take over smooth parts of the albedo, and the errors of the pose with them. The mean of
    `gain * light` over all samples is 1 in each channel, so that the albedo is the usual colour of its vertex.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from neuface.fitting.visibility import VertexVisibility
from neuface.geometry.meshes import vertex_normals
from neuface.geometry.sampling import evenly_spread_indices
from neuface.head.model import HeadModel
from neuface.losses import COLOUR_SOFTNESS
from neuface.render.sampling import sample_colours
from neuface.render.shading import sh_basis
from neuface.structs import HEAD_TO_IMAGE_SIGNS, Prediction, TensorStruct

__all__ = ["EstimatedAppearance", "PhotometricResiduals", "estimate_appearance", "photometric_residuals"]

DARKEST, BRIGHTEST = 0.04, 0.98
"""Bounds of the brightest channel of a colour that is used, 0 to 1: below is noise, above is clipping."""
MOST_ALBEDO_IMAGES = 96
"""Limit of the images that albedo and light are estimated from, evenly spread over a longer clip."""
IMAGES_PER_CHUNK = 32
"""How many images are sampled at once; bounds the memory."""
ALBEDO_ROUNDS = 24
"""How often albedo, lights and gains are estimated in turn."""
OVERSTEP = 1.7
"""Factor of each change of the albedo. Where albedo and light explain nearly the same, alternating steps are short;
over-relaxed by this factor they need a third of the rounds."""
GAIN_ROUNDS = 4
"""Reweighted least-squares steps of an image's gain."""
LIGHT_RIDGE = 1e-6
"""Weight of the ridge penalty that draws a light to the even one of strength 1, per squared coefficient and mean
squared albedo. A face that hardly rotates has normals in at most half the directions, which leave a light
undetermined."""
SMALLEST_WEIGHT = 1e-9
"""Added to sums of weights against division by zero; a well visible vertex has a weight of about 1."""


@dataclass(frozen=True, kw_only=True)
class EstimatedAppearance(TensorStruct):
    """The colours of a face and the light of a clip, as the E-step estimates them."""

    albedo: Float[Tensor, "vertices 3"]
    """Usual display colour of every vertex; 0 where no image shows it."""
    vertex_weight: Float[Tensor, " vertices"]
    """How far the colour in an image can differ from the albedo that was estimated from it: 1 - 1/n for a vertex that
    n images show equally well. It is 0 for a vertex that a single image shows, whose albedo is that image's colour,
    and outside of the face."""
    light: Float[Tensor, "views time 9 3"]
    """Coefficients of the light per colour channel: those of the view times the gain of the image."""
    valid: Bool[Tensor, "views time"]
    """Images that have a photometric term."""


class PhotometricResiduals(NamedTuple):
    """Colours at the vertices of the face, in the order of the arguments of `photometric_loss`."""

    observed: Float[Tensor, "images face 3"]
    expected: Float[Tensor, "images face 3"]
    weight: Float[Tensor, "images face"]


@dataclass(frozen=True, kw_only=True)
class _Samples(TensorStruct):
    """What images show at the vertices of the face."""

    colour: Float[Tensor, "images face 3"]
    basis: Float[Tensor, "images face 9"]
    """`sh_basis` of the normals."""
    weight: Float[Tensor, "images face"]


def photometric_residuals(
    head: HeadModel,
    prediction: Prediction,
    pictures: Float[Tensor, "images 3 s s"] | UInt8[Tensor, "images 3 s s"],
    appearance: EstimatedAppearance,
    index: Int[Tensor, " images"],
    visibility: VertexVisibility,
) -> PhotometricResiduals:
    """Observed and expected colours at the vertices of the face, and their weights.

    The observed colour has a gradient with respect to where the vertices land, the expected colour one with respect
    to their normals, and the weights none. The vertices are those of the head's region `face`, or all without it.

    Args:
        prediction: one batch axis, the images.
        pictures: the crops of these images, RGB, uint8 or 0 to 1, of any size.
        appearance: of the whole clip.
        index: which images of the flattened (views, time) clip these are.
    """
    samples = _sample(head, prediction, pictures, visibility)
    face = _face_vertices(head)
    valid = appearance.valid.flatten()[index]
    return PhotometricResiduals(
        observed=samples.colour,
        expected=appearance.albedo[face] * (samples.basis @ appearance.light.flatten(0, 1)[index]),
        weight=samples.weight * appearance.vertex_weight[face] * valid[:, None],
    )


@torch.no_grad()
def estimate_appearance(
    head: HeadModel,
    prediction: Prediction,
    pictures: Float[Tensor, "views time 3 s s"] | UInt8[Tensor, "views time 3 s s"],
    valid: Bool[Tensor, "views time"],
    visibility: VertexVisibility,
) -> EstimatedAppearance:
    """One E-step: the albedo of the whole clip, the light of every view and the gain of every image.

    All of them minimise `photometric_loss`, in turn, each by iteratively reweighted least squares; the light with a
    weak ridge penalty. Albedo and lights are estimated from at most MOST_ALBEDO_IMAGES valid images, the gains from
    every valid image.

    Args:
        prediction: the current predictions, batch axes `views time`.
        pictures: all crops of the clip, RGB, uint8 or 0 to 1.
        valid: the images that are used; the others get an even light.
    """
    flat, flat_pictures = prediction.flatten_batch(2), pictures.flatten(0, 1)
    images = valid.flatten().nonzero().squeeze(1)
    albedo, vertex_weight = (
        head.template.new_zeros(head.num_vertices, 3),
        head.template.new_zeros(head.num_vertices),
    )
    light = _even_light(head.template).repeat(valid.numel(), 1, 1)
    face = _face_vertices(head)
    if len(images):
        used = images[evenly_spread_indices(len(images), MOST_ALBEDO_IMAGES, images.device)]
        pieces = [
            _sample(head, flat[part], flat_pictures[part], visibility)
            for part in used.split(IMAGES_PER_CHUNK)
        ]
        views, time = valid.shape
        samples = _Samples.cat(pieces)
        albedo[face], vertex_weight[face], view_light = _fitted_appearance(samples, used // time, views)
        for part in images.split(IMAGES_PER_CHUNK):
            samples = _sample(head, flat[part], flat_pictures[part], visibility)
            shading = samples.basis @ view_light[part // time]
            light[part] = view_light[part // time] * _robust_gain(samples, albedo[face] * shading)
    return EstimatedAppearance(
        albedo=albedo,
        vertex_weight=vertex_weight,
        light=light.unflatten(0, tuple(valid.shape)),
        valid=valid,
    )


def _sample(
    head: HeadModel, prediction: Prediction, pictures: Tensor, visibility: VertexVisibility
) -> _Samples:
    """Sample the pictures where the vertices of the face land."""
    posed = head.vertices(prediction.params)
    face = _face_vertices(head)
    points = prediction.camera.project(posed[:, face])
    colour = sample_colours(pictures, points)
    normals = vertex_normals(posed, head.faces)[:, face] * posed.new_tensor(HEAD_TO_IMAGE_SIGNS)
    brightest = colour.detach().amax(-1)
    # From half a pixel inside the edges on, colours are interpolated between pixels.
    inside = (points.detach().abs() <= 1 - 1 / pictures.shape[-1]).all(-1)
    usable = inside & (brightest >= DARKEST) & (brightest <= BRIGHTEST)
    straightened = prediction.camera.straightened(posed).detach()
    visible = visibility.weights(straightened, head.faces)[:, face].detach()
    return _Samples(colour=colour, basis=sh_basis(normals), weight=visible * usable)


def _fitted_appearance(
    samples: _Samples, view: Int[Tensor, " images"], views: int
) -> tuple[Float[Tensor, "face 3"], Float[Tensor, " face"], Float[Tensor, "views 9 3"]]:
    """Albedo, vertex weights and lights, from the images used for them."""
    shading = torch.ones_like(samples.colour)
    gain = shading[:, :1]
    albedo = _fitted_albedo(samples, shading, samples.weight)
    light = _even_light(albedo).repeat(views, 1, 1)
    total = samples.weight.sum(0)
    for _ in range(ALBEDO_ROUNDS):
        weight = _robust_weight(samples, albedo * shading)
        light = _fitted_light(samples, albedo * gain, weight, view, views)
        lit = samples.basis @ light[view]
        gain = _fitted_gain(samples, albedo * lit, weight)
        shading = gain * lit
        # Only the product of albedo and shading is observed: a mean shading of 1 fixes their scale.
        mean = (samples.weight[..., None] * shading).sum((0, 1)) / (total.sum() + SMALLEST_WEIGHT)
        mean = mean.clamp(min=1e-3)
        gain, shading = gain / mean, shading / mean
        before = albedo * mean
        fitted = _fitted_albedo(samples, shading, _robust_weight(samples, before * shading))
        albedo = torch.lerp(before, fitted, OVERSTEP)
    images = total.square() / (samples.weight.square().sum(0) + SMALLEST_WEIGHT)
    return albedo, (1 - 1 / images.clamp(min=1)) * (total > 0), light


def _fitted_albedo(
    samples: _Samples, shading: Float[Tensor, "images face 3"], weight: Float[Tensor, "images face"]
) -> Float[Tensor, "face 3"]:
    """The albedo by weighted least squares over the images; 0 where no image shows a vertex."""
    weighted = weight[..., None] * shading
    return (weighted * samples.colour).sum(0) / (weighted * shading).sum(0).clamp(min=SMALLEST_WEIGHT)


def _fitted_light(
    samples: _Samples,
    surface: Float[Tensor, "images face 3"],
    weight: Float[Tensor, "images face"],
    view: Int[Tensor, " images"],
    views: int,
) -> Float[Tensor, "views 9 3"]:
    """The light of every view by weighted least squares.

    A view without any weight gets the even light.

    Args:
        surface: the colours of the vertices in an even light.
    """
    total = weight.new_zeros(views).index_add(0, view, weight.sum(1)) + SMALLEST_WEIGHT
    share = weight / total[view, None]
    even = _even_light(surface)
    channels = []
    for channel in range(3):
        ridge = LIGHT_RIDGE * surface[..., channel].square().mean().clamp(min=1e-6)
        tinted = samples.basis * surface[..., channel, None]
        weighted = (tinted * share[..., None]).mT
        squares = weight.new_zeros(views, 9, 9).index_add(0, view, weighted @ tinted)
        products = weight.new_zeros(views, 9, 1).index_add(
            0, view, weighted @ samples.colour[..., channel, None]
        )
        squares = squares + ridge * torch.eye(9).to(squares)
        channels.append(torch.linalg.solve(squares, products + ridge * even[:, channel, None]))
    return torch.cat(channels, dim=-1)


def _robust_gain(samples: _Samples, expected: Float[Tensor, "images face 3"]) -> Float[Tensor, "images 1 3"]:
    """The gain of every image, given the colours that are expected without it."""
    gain = _fitted_gain(samples, expected, samples.weight)
    for _ in range(GAIN_ROUNDS):
        gain = _fitted_gain(samples, expected, _robust_weight(samples, expected * gain))
    return gain


def _fitted_gain(
    samples: _Samples, expected: Float[Tensor, "images face 3"], weight: Float[Tensor, "images face"]
) -> Float[Tensor, "images 1 3"]:
    """The gain by weighted least squares; 1 for an image without any weight."""
    weighted = weight[..., None] * expected
    products, squares = (weighted * samples.colour).sum(1), (weighted * expected).sum(1)
    return ((products + SMALLEST_WEIGHT) / (squares + SMALLEST_WEIGHT))[:, None]


def _robust_weight(
    samples: _Samples, expected: Float[Tensor, "images face 3"]
) -> Float[Tensor, "images face"]:
    """Weights with which a least-squares step lowers `photometric_loss`: smaller for larger residuals."""
    squared = (samples.colour - expected).square().sum(-1)
    return samples.weight * (1 + squared / COLOUR_SOFTNESS**2).rsqrt()


def _even_light(like: Tensor) -> Float[Tensor, "9 3"]:
    """Light of strength 1 from all directions."""
    return like.new_tensor([math.sqrt(4 * math.pi), *[0.0] * 8])[:, None].repeat(1, 3)


def _face_vertices(head: HeadModel) -> Int[Tensor, " face"]:
    everything = torch.ones_like(head.template[:, 0], dtype=torch.bool)
    return head.regions.get("face", everything).nonzero().squeeze(1)
