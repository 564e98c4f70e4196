"""The identity modes of a population as exact integer combinations of morph targets.

The last bits of an eigendecomposition depend on the machine, so that computing it at first use would give every user
a different model. The modes are therefore computed once, quantised to integers and shipped; building the head from
them is integer arithmetic, which has the same result everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuface.head.open_head import COEFFICIENT_UNIT, rigid_fields


@dataclass(frozen=True, kw_only=True)
class IdentityModes:
    """Mean and modes of a population in the space of target weights."""

    mean: NDArray[np.int64]
    """(targets,) in COEFFICIENT_UNIT."""
    modes: NDArray[np.int64]
    """(modes, targets + 6 rigid columns) in COEFFICIENT_UNIT; one standard deviation each."""
    projection: NDArray[np.float32]
    """(targets, modes): maps target weights minus their mean to mode coordinates."""
    explained: NDArray[np.float64]
    """(modes,) share of the population's shape variance that each mode explains."""


def find_identity_modes(
    weights: NDArray[np.float64],
    targets: NDArray[np.int64],
    rigid_free: NDArray[np.bool_],
    base: NDArray[np.int64],
    count: int,
) -> IdentityModes:
    """Principal shape modes of people given by `weights` (people, targets).

    `targets` (targets, vertices, 3) and `base` (vertices, 3) are integer lengths. The rigid motion of every target,
    to first order and by least squares over the vertices in `rigid_free`, is removed, because a shape mode should not
    move the head. Modes are ordered by variance; each one's largest coefficient is positive.
    """
    mean = quantise(weights.mean(0))
    template = base + (mean @ targets.reshape(len(targets), -1)).reshape(base.shape) * COEFFICIENT_UNIT
    fields = rigid_fields(template)
    kept, rigid_part = _remove_rigid(targets.astype(np.float64), fields, rigid_free)
    flat = kept[:, rigid_free].reshape(len(targets), -1)
    gram = flat @ flat.T
    centred = weights - weights.mean(0)
    # Modes of X = W T: with cov(W) = L L^T they are T^T L u for the eigenvectors u of L^T (T T^T) L.
    values, vectors = np.linalg.eigh(centred.T @ centred / (len(weights) - 1))
    root = vectors * np.sqrt(np.clip(values, 0, None))
    variance, directions = np.linalg.eigh(root.T @ gram @ root)
    order = np.argsort(-variance)[:count]
    coefficients = (root @ directions[:, order]).T
    largest = np.abs(coefficients).argmax(1)
    coefficients *= np.sign(coefficients[np.arange(count), largest])[:, None]
    rigid_coefficients = -coefficients @ rigid_part
    projection = gram @ coefficients.T / variance[order]
    return IdentityModes(
        mean=mean,
        modes=quantise(np.concatenate((coefficients, rigid_coefficients), axis=1)),
        projection=projection.astype(np.float32),
        explained=variance[order] / variance.sum(),
    )


def quantise(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Coefficients rounded to integers in COEFFICIENT_UNIT.

    Example:
        >>> quantise(np.array([0.5, -1.00000499])).tolist()
        [50000, -100000]
    """
    return np.rint(values / COEFFICIENT_UNIT).astype(np.int64)


def _remove_rigid(
    targets: NDArray[np.float64], fields: NDArray[np.int64], where: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Targets without their rigid motion, and the coefficients of that motion (targets, 6)."""
    basis = fields[:, where].reshape(len(fields), -1).astype(np.float64)
    moved = targets[:, where].reshape(len(targets), -1)
    part = np.linalg.lstsq(basis.T, moved.T, rcond=None)[0].T
    return targets - np.einsum("kf,fvc->kvc", part, fields.astype(np.float64)), part
