"""The objective on one page: Eq. 1-4 of NeuFace (TMLR 2024), and terms beside them: smoothness, priors, colours.

Every term returns one value per image, so that a batch of any size adds up to the same clip-wide mean. Targets
come from the E-step (`neuface.fitting.targets`), which decides whether they carry gradient.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.geometry.rotations import rotvec_to_quaternion, toward_hemisphere

# Rounds off the corner of a norm at zero, where its gradient is undefined; far below any rotation that matters.
NORM_SOFTNESS = 1e-6
# Differences of colour much larger than this (highlights, hair in the face, shadows) count by their size, not its
# square; about the noise of a video frame.
COLOUR_SOFTNESS = 0.03
# Distance at which the saturating penalty is half the plain one, crop half-widths (L1); the outer eye corners of a
# frontal face are about 0.8 apart.
SATURATION_NDC = 0.1
# Lower bound of a camera's scale before its logarithm, crop half-widths per metre: the head is then a thousandth of
# the crop wide.
SMALLEST_SCALE = 1e-2


def landmark_loss(
    points_ndc: Float[Tensor, "images points 2"],
    observed_ndc: Float[Tensor, "images points 2"],
    confidence: Float[Tensor, "images points"],
    *,
    saturating: bool = False,
) -> Float[Tensor, " images"]:
    """Eq. 2: L1 distance between projected and observed landmarks, in crop half-widths.

    The confidence-weighted mean over points; 0 for an image without landmarks. With `saturating`, a distance d counts
    as d s / (d + s), s = SATURATION_NDC: alike near zero, and never more than s, so that an
    outlier has hardly any gradient.
    """
    distance = (points_ndc - observed_ndc).abs().sum(-1)
    if saturating:
        distance = distance * SATURATION_NDC / (distance + SATURATION_NDC)
    return (distance * confidence).sum(-1) / confidence.sum(-1).clamp(min=1e-9)


def temporal_loss(
    rotvec: Float[Tensor, "images 3"], target_quaternion: Float[Tensor, "images 4"], *, squared: bool = False
) -> Float[Tensor, " images"]:
    """Eq. 3: distance of a joint's unit quaternion to its smoothed target (half the angle, for small ones).

    With `squared`, the released code's form: the square, mean over the four numbers.
    """
    difference = toward_hemisphere(rotvec_to_quaternion(rotvec), target_quaternion) - target_quaternion
    return difference.square().mean(-1) if squared else _softened_norm(difference)


def code_smoothness(
    code: Float[Tensor, "images code"], target: Float[Tensor, "images code"]
) -> Float[Tensor, " images"]:
    """L1 distance of a code to its smoothed trajectory, mean over coefficients."""
    return (code - target).abs().mean(-1)


def camera_smoothness(
    scale: Float[Tensor, " images"],
    offset: Float[Tensor, "images 2"],
    target_scale: Float[Tensor, " images"],
    target_offset: Float[Tensor, "images 2"],
) -> Float[Tensor, " images"]:
    """Distance of the head's position to its smoothed trajectory, crop half-widths, plus that of its log size."""
    position = _softened_norm(offset - target_offset)
    return position + _softened_norm((log_scale(scale) - log_scale(target_scale))[..., None])


def calibrated_views_loss(
    rotation: Float[Tensor, "images 3 3"],
    position: Float[Tensor, "images 2"],
    magnification: Float[Tensor, " images"],
    target_rotation: Float[Tensor, "images 3 3"],
    target_position: Float[Tensor, "images 2"],
    target_magnification: Float[Tensor, " images"],
) -> Float[Tensor, " images"]:
    """Distance of how a camera sees the head to how its calibration says it sees the head that all views agree on.

    The sine of half the angle between the rotations, as a quaternion distance (Eq. 3) for small ones, plus the
    distance of the positions in crop half-widths, plus that of the log sizes. Not in the paper.
    """
    # |A - B|_F = 2 sqrt(2) sin(angle / 2).
    turned = _softened_norm((rotation - target_rotation).flatten(-2) / 8**0.5)
    return turned + camera_smoothness(magnification, position, target_magnification, target_position)


def log_scale(scale: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Logarithm of a camera's scale, which is at least SMALLEST_SCALE: without a face an encoder may predict 0."""
    return scale.clamp(min=SMALLEST_SCALE).log()


def multiview_loss(
    vertices: Float[Tensor, "images vertices 3"], target_vertices: Float[Tensor, "images vertices 3"]
) -> Float[Tensor, " images"]:
    """Eq. 4: L1 distance of the unposed mesh to the mesh merged from all views, metres, mean over vertices."""
    return (vertices - target_vertices).abs().sum(-1).mean(-1)


def identity_prior(
    identity: Float[Tensor, "images identity"], expected: Float[Tensor, " identity"]
) -> Float[Tensor, " images"]:
    """Mean squared deviation of the identity coefficients from what is expected before looking at landmarks.

    From the population's mean (zeros) it is 1 for a typical member of the population.
    """
    return (identity - expected).square().mean(-1)


def expression_prior(expression: Float[Tensor, "images expression"]) -> Float[Tensor, " images"]:
    """Mean squared expression coefficient."""
    return expression.square().mean(-1)


def expected_expression(
    points: Float[Tensor, "images points 3"], expected: Float[Tensor, "images points 3"]
) -> Float[Tensor, " images"]:
    """Squared distance of what the expression does to unposed landmarks to what is expected, mm^2, mean over points.

    Both in metres. Measured on the landmarks, the term constrains only what landmarks observe of an expression.
    """
    return (1000 * (points - expected)).square().sum(-1).mean(-1)


def pose_prior(*rotvecs: Float[Tensor, "images 3"]) -> Float[Tensor, " images"]:
    """Squared angles of some joints, radians^2, summed."""
    return torch.stack([rotvec.square().sum(-1) for rotvec in rotvecs]).sum(0)


def photometric_loss(
    colour: Float[Tensor, "images points 3"],
    expected: Float[Tensor, "images points 3"],
    weight: Float[Tensor, "images points"],
) -> Float[Tensor, " images"]:
    """Distance of the colours seen to those expected, display RGB from 0 to 1, weighted mean over points.

    A Charbonnier penalty of the distance in RGB: quadratic well below COLOUR_SOFTNESS, linear well above. 0 for an
    image without any weight. Not in the paper's Eq. 1; Table S3a tries a photometric term.
    """
    squared = (colour - expected).square().sum(-1)
    distance = (squared + COLOUR_SOFTNESS**2).sqrt() - COLOUR_SOFTNESS
    return (distance * weight).sum(-1) / weight.sum(-1).clamp(min=1e-9)


def weighted_sum(parts: dict[str, Tensor], weights: dict[str, float]) -> Float[Tensor, " images"]:
    """Eq. 1: the named terms times their weights; terms of weight zero may be missing."""
    return torch.stack([weights[name] * value for name, value in parts.items()]).sum(0)


def _softened_norm(difference: Float[Tensor, "images c"]) -> Float[Tensor, " images"]:
    return (difference.square().sum(-1) + NORM_SOFTNESS**2).sqrt() - NORM_SOFTNESS
