"""How the E-step merges the meshes of several views into one (paper, Sec. 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from neuface.geometry.merging import robust_mean, softmax_weights, weighted_mean, weighted_median
from neuface.settings import Positive, Setting


class MergeRule(Protocol):
    """A way of merging meshes."""

    def merged(
        self,
        vertices: Float[Tensor, "views time vertices 3"],
        seen: Float[Tensor, "views time vertices"],
        fallback: Float[Tensor, "views time 1"],
    ) -> Float[Tensor, "time vertices 3"]:
        """One mesh per frame.

        Args:
            vertices: the unposed meshes, metres.
            seen: how well each view sees each vertex; 0 for hidden vertices and for views without a face.
            fallback: 1 for the views that count where no view sees a vertex, else 0.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class WeightedMean(Setting):
    """The mean, weighted by visibility (paper)."""

    def merged(self, vertices: Tensor, seen: Tensor, fallback: Tensor) -> Tensor:
        """As `MergeRule.merged`."""
        return weighted_mean(vertices, _weights(seen, fallback))


@dataclass(frozen=True, kw_only=True)
class Softmax(Setting):
    """The mean, weighted by the softmax of visibility over the views (the released code)."""

    temperature: Positive = 0.1
    """Visibility, from 0 to 1, is divided by this before the softmax; 0.1 in the released code."""

    def merged(self, vertices: Tensor, seen: Tensor, fallback: Tensor) -> Tensor:
        """As `MergeRule.merged`."""
        # The softmax gives hidden vertices a weight close to 0; views without a face get exactly 0.
        return weighted_mean(vertices, softmax_weights(seen, self.temperature) * fallback)


@dataclass(frozen=True, kw_only=True)
class WeightedMedian(Setting):
    """The median over the views of every coordinate, weighted by visibility."""

    def merged(self, vertices: Tensor, seen: Tensor, fallback: Tensor) -> Tensor:
        """As `MergeRule.merged`."""
        return weighted_median(vertices, _weights(seen, fallback))


@dataclass(frozen=True, kw_only=True)
class RobustMean(Setting):
    """The mean, weighted by visibility, in which views that contradict the others count little."""

    def merged(self, vertices: Tensor, seen: Tensor, fallback: Tensor) -> Tensor:
        """As `MergeRule.merged`."""
        return robust_mean(vertices, _weights(seen, fallback))


Merge = WeightedMean | Softmax | WeightedMedian | RobustMean


def merge_views(
    vertices: Float[Tensor, "views time vertices 3"],
    confidence: Float[Tensor, "views time vertices"],
    valid: Bool[Tensor, "views time"],
    merge: Merge | None = None,
) -> Float[Tensor, "time vertices 3"]:
    """The views' unposed meshes as one, weighted by confidence; `WeightedMean` unless another rule is given.

    A vertex that no valid view sees gets the plain mean of the valid views; at a time without a valid view, every
    vertex gets the plain mean of all.
    """
    fallback = torch.where(valid.any(0), valid, True).to(confidence.dtype)[..., None]
    seen = confidence * valid[..., None]
    return (WeightedMean() if merge is None else merge).merged(vertices, seen, fallback)


def _weights(seen: Tensor, fallback: Tensor) -> Float[Tensor, "views time vertices"]:
    """How well each view sees each vertex; `fallback` where no view does."""
    return torch.where(seen.sum(0) > 0, seen, fallback)
