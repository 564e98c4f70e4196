"""The objective on one page: Eq. 1-4 of NeuFace (TMLR 2024), and two weak priors.

Every term returns one value per image, so that a batch of any size adds up to the same clip-wide mean. Targets
come from the E-step (`neuface.fitting.targets`) and carry no gradient.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.geometry.rotations import rotvec_to_quaternion, toward_hemisphere

# Rounds off the corner of a norm at zero, where its gradient is undefined; far below any rotation that matters.
NORM_SOFTNESS = 1e-6


def landmark_loss(
    points_ndc: Float[Tensor, "images points 2"],
    observed_ndc: Float[Tensor, "images points 2"],
    confidence: Float[Tensor, "images points"],
) -> Float[Tensor, "images"]:
    """Eq. 2: L1 distance between projected and observed landmarks, in crop half-widths.

    The confidence-weighted mean over points; 0 for an image without landmarks.
    """
    distance = (points_ndc - observed_ndc).abs().sum(-1)
    return (distance * confidence).sum(-1) / confidence.sum(-1).clamp(min=1e-9)


def temporal_loss(
    root_rotvec: Float[Tensor, "images 3"], target_quaternion: Float[Tensor, "images 4"]
) -> Float[Tensor, "images"]:
    """Eq. 3: distance of the head's unit quaternion to its smoothed target (half the angle, for small ones)."""
    target = target_quaternion.detach()
    quaternion = toward_hemisphere(rotvec_to_quaternion(root_rotvec), target)
    squared = (quaternion - target).square().sum(-1)
    return (squared + NORM_SOFTNESS**2).sqrt() - NORM_SOFTNESS


def multiview_loss(
    vertices: Float[Tensor, "images vertices 3"], target_vertices: Float[Tensor, "images vertices 3"]
) -> Float[Tensor, "images"]:
    """Eq. 4: L1 distance of the unposed mesh to the mesh merged from all views, metres, mean over vertices."""
    return (vertices - target_vertices.detach()).abs().sum(-1).mean(-1)


def identity_prior(
    identity: Float[Tensor, "images identity"], expected: Float[Tensor, "identity"]
) -> Float[Tensor, "images"]:
    """Mean squared deviation of the identity coefficients from what is expected before looking at landmarks.

    From the population's mean (zeros) it is 1 for a typical member of the population.
    """
    return (identity - expected).square().mean(-1)


def expression_prior(expression: Float[Tensor, "images expression"]) -> Float[Tensor, "images"]:
    """Mean squared expression coefficient."""
    return expression.square().mean(-1)


def weighted_sum(parts: dict[str, Tensor], weights: dict[str, float]) -> Float[Tensor, "images"]:
    """Eq. 1: the named terms times their weights; terms of weight zero may be missing."""
    return torch.stack([weights[name] * value for name, value in parts.items()]).sum(0)
