"""Evenly spread subsets of a sequence."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor


def evenly_spread_indices(
    total: int, at_most: int, device: torch.device | None = None
) -> Int[Tensor, " chosen"]:
    """Rising indices from 0 to `total - 1`, evenly spread: all of them, or `at_most` with both ends included.

    Args:
        total: length of the sequence, 0 or more.
        at_most: how many indices to choose, 0 or more; with 1, the first one is chosen.

    Example:
        >>> evenly_spread_indices(9, 3).tolist()
        [0, 4, 8]
        >>> evenly_spread_indices(2, 3).tolist()
        [0, 1]
    """
    return torch.linspace(0, total - 1, min(at_most, total), device=device).round().long()
