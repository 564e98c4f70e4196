"""The merged mesh: one mesh from the predictions of several views, vertex by vertex.

In all functions the views are the first axis, vertices are in metres, and weights are 0 or more; only their ratios
between the views matter. Where the weights of all views are 0, the `fallback` weights are used; without them (or
where they are 0 too) all views have equal weight.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.errors import InputError

__all__ = ["robust_mean", "softmax_weights", "weighted_mean", "weighted_median"]

# Confidence that replaces 0 before the softmax, as in the authors' released code.
HIDDEN_CONFIDENCE = -100.0
# Distance from the merged vertex, in median distances, at which a view's weight falls to a quarter.
QUARTER_WEIGHT_AT = 3.0
# Lower bound of the median distance, metres: it avoids 0 / 0 where all views are equal.
LEAST_DISTANCE_M = 1e-6
# Tolerance within which a cumulative weight counts as one half; it covers float32 sums over a few views.
HALF_TOLERANCE = 1e-6


def weighted_mean(
    vertices: Float[Tensor, "views *batch vertices 3"],
    weights: Float[Tensor, "views *batch vertices"],
    fallback: Float[Tensor, "views *#batch #vertices"] | None = None,
) -> Float[Tensor, "*batch vertices 3"]:
    """Weighted mean over the views (Eq. 4), metres; differentiable with respect to vertices and weights.

    Raises InputError if a weight is negative or NaN.

    Example:
        >>> vertices = torch.tensor([[[0.0, 0.0, 0.0]], [[4.0, 0.0, 8.0]]])  # two views of one vertex
        >>> weighted_mean(vertices, torch.tensor([[3.0], [1.0]]))
        tensor([[1., 0., 2.]])
    """
    return (_shares(weights, fallback)[..., None] * vertices).sum(0)


def weighted_median(
    vertices: Float[Tensor, "views *batch vertices 3"],
    weights: Float[Tensor, "views *batch vertices"],
    fallback: Float[Tensor, "views *#batch #vertices"] | None = None,
) -> Float[Tensor, "*batch vertices 3"]:
    """Weighted median over the views of each coordinate separately, metres.

    At most half of the weight lies below this value, and at most half above. Where that holds for every value
    between two views (such as two views of equal weight), their midpoint is taken. The median is not equivariant
    to rotations: it depends on the coordinate axes.
    Raises InputError if a weight is negative or NaN.
    """
    return _median_of_views(vertices, _shares(weights, fallback)[..., None].expand_as(vertices))


def softmax_weights(
    confidence: Float[Tensor, "views *batch vertices"], temperature: float = 0.1
) -> Float[Tensor, "views *batch vertices"]:
    """Weights that sum to 1 over the views, as in the authors' released code: softmax(confidence / temperature).

    A confidence of 0 or less means hidden and is replaced by -100. The weight of such a view vanishes beside any
    view that sees the vertex; where no view sees it, all weights are equal.
    Raises InputError unless the temperature is positive.
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
    """Weighted mean over the views that down-weights outlying views (Geman and McClure's weights), metres.

    Iteratively reweighted least squares. It starts at the unweighted median of the views with positive weight, so
    that a single wrong view cannot dominate by a large weight. Every step multiplies the weights by
    1 / (1 + (distance / 3 m)^2)^2, where `distance` is that of the view from the current merged vertex and m is the
    median distance. With two views there is no majority, and the result is near their weighted mean. The factors are
    constants for gradients.
    Raises InputError if a weight is negative or NaN, or `steps` is below 1.
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
    """Factor of each view's weight: 1 at the merged vertex, falling to 0 with the distance over its median."""
    distance = (vertices - merged).norm(dim=-1)
    scale = QUARTER_WEIGHT_AT * _median_of_views(distance, counted).clamp(min=LEAST_DISTANCE_M)
    return (1 + (distance / scale).square()).square().reciprocal()


def _shares(
    weights: Float[Tensor, "views *batch vertices"], fallback: Float[Tensor, "views *#batch #vertices"] | None
) -> Float[Tensor, "views *batch vertices"]:
    """Weights that sum to 1 over the views for every vertex, with the fallback where all are 0."""
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
    """Weighted median over the first axis, element by element; the sum of the weights must be positive."""
    ordered, order = values.sort(0)
    reached = weights.detach().gather(0, order).cumsum(0)
    reached = reached / reached[-1:]
    # The first view to reach one half, and the first to exceed it.
    low = (reached < 0.5 - HALF_TOLERANCE).sum(0, keepdim=True)
    high = (reached <= 0.5 + HALF_TOLERANCE).sum(0, keepdim=True)
    return (0.5 * (ordered.gather(0, low) + ordered.gather(0, high)))[0]
