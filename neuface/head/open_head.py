"""The open head: an extract of CC0 MakeHuman assets and a recipe, combined to one linear HeadModel.

Every length is summed as an integer and converted to metres by one multiplication, so that the result is the same to
the byte on every machine. Both parts ship in one file, which `neuface.io.open_model.head_file` reads and
`tools/open_head` makes. It has a tenth of the size of the head itself, whose identity basis is a product of the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuface.errors import InputError
from neuface.head.model import JOINT_NAMES, HeadModel, LandmarkEmbedding

OPEN_HEAD_NAME = "open-v1"
OPEN_HEAD_HASH = "f2f6c273919168cd22958209ee27cb8b79428d9ac02a5ac04a77bda28fc25339"
"""What the `content_hash()` of the open head is on every machine."""
PARENTS = (-1, 0, 1, 1, 1)
# Unit of the weights of morph targets, in the mean person and in the identity modes.
COEFFICIENT_UNIT = 1e-5
# Length that an integer of the assets stands for: the files give decimetres with at most four decimals.
UNIT_METRES = 0.1 / 10_000
RIGID_COLUMNS = ("shift-x", "shift-y", "shift-z", "turn-x", "turn-y", "turn-z")


@dataclass(frozen=True, kw_only=True)
class HeadAssets:
    """The part of the MakeHuman assets that the head is made of.

    Lengths are integers in UNIT_METRES, relative to the neck's upper joint. Points are the head's vertices, then the
    eight corners of a cube around each joint, whose mean is the joint.
    """

    base: NDArray[np.int32]
    """(points, 3) of the base mesh."""
    shape_targets: NDArray[np.int16]
    """(targets, 3, points) displacements by the recipe's morph targets."""
    unit_names: NDArray[np.character]
    """(units,) the 52 ARKit names of the expression units, text."""
    units: NDArray[np.int16]
    """(units, 3, points) displacements by the expression units."""
    skinning_weights: NDArray[np.float32]
    """(vertices, joints)."""
    faces: NDArray[np.int32]
    uv: NDArray[np.float32]
    uv_faces: NDArray[np.int32]


def build_open_head(
    assets: HeadAssets,
    *,
    mean: NDArray[np.int64],
    modes: NDArray[np.int64],
    regions: Mapping[str, NDArray[np.bool_]],
    embeddings: Mapping[str, LandmarkEmbedding],
) -> HeadModel:
    """The linear model; each identity mode is one standard deviation of the population.

    Args:
        mean: (targets,) weights of the morph targets of the mean person, in COEFFICIENT_UNIT.
        modes: (modes, targets + 6) weights of the morph targets and the rigid fields, in COEFFICIENT_UNIT.

    Raises InputError for weights whose sums would not be exact.
    """
    targets = _by_point(assets.shape_targets)
    flat_targets = targets.reshape(len(targets), -1)
    # From here on all lengths are in units of UNIT_METRES * COEFFICIENT_UNIT, so that all sums are integers.
    per_unit = round(1 / COEFFICIENT_UNIT)
    base = assets.base.astype(np.int64)
    template = base * per_unit + _exact_product(mean[None], flat_targets).reshape(base.shape)
    rigid = rigid_fields(template.astype(np.float64) * COEFFICIENT_UNIT).reshape(6, -1)
    columns = np.concatenate((flat_targets, rigid))
    identity = _exact_product(modes, columns).reshape(len(modes), -1, 3)
    expression = _by_point(assets.units) * per_unit
    metres = UNIT_METRES * COEFFICIENT_UNIT
    count = len(assets.skinning_weights)
    return HeadModel(
        name=OPEN_HEAD_NAME,
        template=_metres(template[:count], metres),
        identity_basis=_metres(identity[:, :count].transpose(1, 2, 0), metres),
        expression_basis=_metres(expression[:, :count].transpose(1, 2, 0), metres),
        joint_template=_metres(_cube_sums(template, count, axis=0), metres / 8),
        joint_identity_basis=_metres(_cube_sums(identity, count, axis=1).transpose(1, 2, 0), metres / 8),
        joint_expression_basis=_metres(_cube_sums(expression, count, axis=1).transpose(1, 2, 0), metres / 8),
        skinning_weights=torch.from_numpy(assets.skinning_weights),
        parents=PARENTS,
        faces=torch.from_numpy(assets.faces).long(),
        uv=torch.from_numpy(assets.uv),
        uv_faces=torch.from_numpy(assets.uv_faces).long(),
        expression_names=tuple(assets.unit_names.tolist()),
        regions={name: torch.from_numpy(mask.copy()) for name, mask in regions.items()},
        embeddings=dict(embeddings),
    )


def rigid_fields(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """The six infinitesimal rigid motions of points (vertices, 3), integers, in the order RIGID_COLUMNS.

    Translations are 1000 units per coefficient of one. Rotations are about the axes through the origin of `points`,
    whose coordinates are divided by ten and rounded to integers to keep all sums exact.
    """
    lever = np.rint(points / 10).astype(np.int64)
    zero = np.zeros(len(points), np.int64)
    x, y, z = lever.T
    fields = [np.zeros((len(points), 3), np.int64) for _ in range(3)]
    for axis in range(3):
        fields[axis][:, axis] = 1000
    fields += [np.stack(parts, axis=1) for parts in ((zero, -z, y), (z, zero, -x), (-y, x, zero))]
    return np.stack(fields)


def _by_point(displacements: NDArray[np.int16]) -> NDArray[np.int64]:
    """(targets, points, 3) of the stored (targets, 3, points), which compress better."""
    return np.ascontiguousarray(displacements.transpose(0, 2, 1), dtype=np.int64)


def _exact_product(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """Integer matrix product through float64, exact in any order of summation while sums stay below 2**53."""
    bound = np.abs(left).sum(1).max() * int(np.abs(right).max())
    if bound >= 2**53:
        raise InputError(f"the open head's recipe and targets are too large for exact sums ({bound:.1e})")
    return np.rint(left.astype(np.float64) @ right.astype(np.float64)).astype(np.int64)


def _metres(whole: NDArray[np.int64], unit: float) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(whole * unit, dtype=np.float32))


def _cube_sums(values: NDArray[np.int64], start: int, axis: int) -> NDArray[np.int64]:
    """Sums over the eight corners of each joint's cube; the points after `start` are these corners."""
    corners = np.take(values, range(start, values.shape[axis]), axis=axis)
    shape = (*corners.shape[:axis], len(JOINT_NAMES), 8, *corners.shape[axis + 1 :])
    return corners.reshape(shape).sum(axis + 1)
