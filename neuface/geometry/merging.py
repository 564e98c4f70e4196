"""Several meshes of one thing as one: means over views, vertex by vertex.

Everywhere the views come first, vertices are in metres, and weights are 0 or more; only their ratios between the
views matter. Where no view has any weight, `fallback` weights decide; without them (or where they are 0 too)
all views count alike.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.errors import InputError

__all__ = ["robust_mean", "softmax_weights", "weighted_mean", "weighted_median"]

# Stands for the confidence 0 in the authors' released code.
HIDDEN_CONFIDENCE = -100.0
# A view this many typical distances from the merged vertex counts a quarter.
QUARTER_WEIGHT_AT = 3.0
# Distances below this are no disagreement: it keeps 0 / 0 out where views are equal.
LEAST_DISTANCE_M = 1e-6
# How far a cumulated weight may be from one half and still be exactly one half; float32 sums of a few views.
HALF_TOLERANCE = 1e-6


def weighted_mean(
    vertices: Float[Tensor, "views *batch vertices 3"],
    weights: Float[Tensor, "views *batch vertices"],
    fallback: Float[Tensor, "views *#batch #vertices"] | None = None,
) -> Float[Tensor, "*batch vertices 3"]:
    """Weighted mean over the views; differentiable in both.

    Raises InputError if a weight is negative or not a number.
    """
    return (_shares(weights, fallback)[..., None] * vertices).sum(0)


def weighted_median(
    vertices: Float[Tensor, "views *batch vertices 3"],
    weights: Float[Tensor, "views *batch vertices"],
    fallback: Float[Tensor, "views *#batch #vertices"] | None = None,
) -> Float[Tensor, "*batch vertices 3"]:
    """Weighted median over the views of each coordinate for itself.

    The value below and above which lies at most half of the weight; where any value between two views would do
    (two views that count alike), the middle of those two. It depends on the axes: it does not turn with the mesh.
    Raises InputError if a weight is negative or not a number.
    """
    return _median_of_views(vertices, _shares(weights, fallback)[..., None].expand_as(vertices))


def softmax_weights(
    confidence: Float[Tensor, "views *batch vertices"], temperature: float = 0.1
) -> Float[Tensor, "views *batch vertices"]:
    """Weights that sum to 1 over the views, as in the authors' released code: softmax(confidence / temperature).

    Confidence 0 or less is hidden and counts as -100: nothing beside any view that sees the vertex, and alike where
    no view sees it. Raises InputError unless the temperature is positive.
    """
    if not temperature > 0:
        raise InputError(f"the temperature of the softmax must be positive, got {temperature}")
    seen = torch.where(confidence > 0, confidence, torch.full_like(confidence, HIDDEN_CONFIDENCE))
    return (seen / temperature).softmax(0)


def robust_mean(
    vertices: Float[Tensor, "views *batch vertices 3"],
    weights: Float[Tensor, "views *batch vertices"],
    fallback: Float[Tensor, "views *#batch #vertices"] | None = None,
    steps: int = 5,
) -> Float[Tensor, "*batch vertices 3"]:
    """Weighted mean over the views that lets go of views far from the others (Geman and McClure's weights).

    Starts at the median of the views that have a weight, each counted once: a single wrong view does not win by
    being sure of itself. Every step multiplies the weights by 1 / (1 + (distance / 3 m)^2)^2, where `distance` is
    from the vertex merged so far and m is the median distance. Of two views neither can be told to be wrong,
    and the answer is near their weighted mean. The factors count as constants for gradients.
    Raises InputError if a weight is negative or not a number, or `steps` is below 1.
    """
    if steps < 1:
        raise InputError(f"a robust mean needs at least 1 step, got {steps}")
    shares = _shares(weights, fallback)
    with torch.no_grad():
        counted = (shares > 0).to(shares.dtype)
        merged = _median_of_views(vertices, counted[..., None].expand_as(vertices))
        factor = _closeness(vertices, merged, counted)
        for _ in range(steps - 1):
            factor = _closeness(vertices, weighted_mean(vertices, shares * factor), counted)
    return weighted_mean(vertices, shares * factor)


def _closeness(
    vertices: Float[Tensor, "views *batch vertices 3"],
    merged: Float[Tensor, "*batch vertices 3"],
    counted: Float[Tensor, "views *batch vertices"],
) -> Float[Tensor, "views *batch vertices"]:
    """1 for a view at the merged vertex, falling to 0 far from it, in units of the median distance."""
    distance = (vertices - merged).norm(dim=-1)
    scale = QUARTER_WEIGHT_AT * _median_of_views(distance, counted).clamp(min=LEAST_DISTANCE_M)
    return (1 + (distance / scale).square()).square().reciprocal()


def _shares(
    weights: Float[Tensor, "views *batch vertices"], fallback: Float[Tensor, "views *#batch #vertices"] | None
) -> Float[Tensor, "views *batch vertices"]:
    """Weights that sum to 1 over the views, nowhere all 0."""
    for name, given in (("weights", weights), ("fallback weights", fallback)):
        if given is not None and not bool((given >= 0).all()):
            raise InputError(f"{name} of views must be 0 or more, got {float(given.min())}")
    for other in (fallback, torch.ones_like(weights)):
        if other is not None:
            weights = torch.where(weights.sum(0) > 0, weights, other.to(weights.dtype))
    return weights / weights.sum(0)


def _median_of_views(
    values: Float[Tensor, " views *any"], weights: Float[Tensor, " views *any"]
) -> Float[Tensor, "*any"]:
    """Weighted median over the first axis, element by element; the weights' sum must not be 0."""
    ordered, order = values.sort(0)
    reached = weights.detach().gather(0, order).cumsum(0)
    reached = reached / reached[-1:]
    # The first view to reach one half, and the first to exceed it.
    low = (reached < 0.5 - HALF_TOLERANCE).sum(0, keepdim=True)
    high = (reached <= 0.5 + HALF_TOLERANCE).sum(0, keepdim=True)
    return (0.5 * (ordered.gather(0, low) + ordered.gather(0, high)))[0]
