"""Random people: identities of the open head's population."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from neuface.errors import InputError
from neuface.head.open_head import COEFFICIENT_UNIT
from neuface.head.population import local_target_names, sample_weights
from neuface.io.open_model.head_file import read_head_recipe

DEMO_SEED = 987_654_321
"""Seed of the demo's person, who is not among the training pictures: their seeds are far from this one."""


def sample_identities(
    target_names: Sequence[str],
    mean: NDArray[np.int64],
    projection: NDArray[np.float32],
    count: int,
    seed: int,
) -> Float[Tensor, "count identity"]:
    """Identity codes of random people of the open head's population, in standard deviations.

    The people are random weights of morph targets, which look human. Normally distributed codes need not.

    Args:
        target_names, mean, projection: those of the head's recipe.

    Raises:
        InputError: the names are not those of the population.
    """
    names, weights, _ = sample_weights(local_target_names(target_names), count, seed)
    if names != tuple(target_names):
        raise InputError("the recipe's morph targets are not those of this package's population")
    codes = (weights - mean * COEFFICIENT_UNIT) @ projection
    return torch.from_numpy(codes.astype(np.float32))


def open_head_identities(count: int, seed: int) -> Float[Tensor, "count identity"]:
    """Identity codes of random people of the population from which the open head was made."""
    recipe = read_head_recipe()
    return sample_identities(recipe.target_names.tolist(), recipe.mean, recipe.projection, count, seed)


def demo_identity() -> Float[Tensor, " identity"]:
    """The identity code of a person of the open head's population whom the encoder was not trained on."""
    return open_head_identities(1, DEMO_SEED)[0]
