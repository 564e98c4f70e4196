"""Best rigid or similarity alignment of point sets."""

from __future__ import annotations

from typing import Any

import roma
from jaxtyping import Float
from torch import Tensor


def align_points(
    source: Float[Tensor, "*batch points 3"],
    target: Float[Tensor, "*batch points 3"],
    *,
    with_scale: bool = False,
    fit_on: Float[Tensor, " points"] | None = None,
) -> Float[Tensor, "*batch points 3"]:
    """`source` moved onto `target` by the least-squares rotation and shift (and scale), per batch item.

    Args:
        fit_on: weights (0 or more) of the points that decide the motion; all points are moved by it.
    """
    weights = None if fit_on is None else fit_on.expand(source.shape[:-1])
    motion: Any = roma.rigid_points_registration(source, target, weights=weights, compute_scaling=with_scale)
    rotation, shift = motion[:2]
    moved = source @ rotation.mT
    if with_scale:
        moved = moved * motion[2][..., None, None]
    return moved + shift[..., None, :]
