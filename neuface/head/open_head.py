"""The open head: CC0 MakeHuman assets and a shipped recipe, reduced to one linear HeadModel.

Every length is summed as an integer and converted to metres by one multiplication, so that the result is the same to
the byte on every machine. The arguments are plain arrays, which `neuface.io` reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuface.errors import InputError
from neuface.head.model import HeadModel, LandmarkEmbedding
from neuface.head.recipe import COEFFICIENT_UNIT, rigid_fields

OPEN_HEAD_NAME = "open-v1"

# The bone of the rig that corresponds to each joint. The joint takes its weights and those of all bones below it,
# down to the next bone listed here.
JOINT_BONES = {"root": "neck01", "neck": "head", "jaw": "jaw", "left_eye": "eye.L", "right_eye": "eye.R"}
JOINT_CUBES = {
    "root": "joint-neck", "neck": "joint-head", "jaw": "joint-mouth",
    "left_eye": "joint-l-eye", "right_eye": "joint-r-eye",
}  # fmt: skip
PARENTS = (-1, 0, 1, 1, 1)
ORIGIN_CUBE = "joint-head"


@dataclass(frozen=True, kw_only=True)
class RawHead:
    """The part of the MakeHuman assets that the head is built from; lengths are integers in `unit_metres`."""

    unit_metres: float
    base: NDArray[np.int64]
    """(base vertices, 3)."""
    quads: NDArray[np.int64]
    uv: NDArray[np.float64]
    uv_quads: NDArray[np.int64]
    groups: Mapping[str, NDArray[np.int64]]
    bone_parents: Mapping[str, str]
    bone_weights: Mapping[str, Sequence[tuple[int, float]]]
    shape_targets: NDArray[np.int64]
    """(targets, points, 3) of `points_of(...)`, in the recipe's order of targets."""
    units: Mapping[str, NDArray[np.int64]]
    """Expression units by ARKit name, each (points, 3)."""


def points_of(vertex_index: NDArray[np.int32], groups: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """Vertices of the base mesh that the head is built from: its own, then the eight corners of each joint's cube."""
    cubes = [groups[JOINT_CUBES[joint]] for joint in JOINT_BONES]
    return np.concatenate((vertex_index.astype(np.int64), *cubes))


def scale_target(base: NDArray[np.int64], groups: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """The isotropic scale of the population as a morph target: positions relative to the head joint."""
    return base - _origin(base, groups)


def build_open_head(
    raw: RawHead,
    *,
    vertex_index: NDArray[np.int32],
    mean: NDArray[np.int64],
    modes: NDArray[np.int64],
    regions: Mapping[str, NDArray[np.bool_]],
    embeddings: Mapping[str, LandmarkEmbedding],
) -> HeadModel:
    """The linear model; each identity mode is one standard deviation of the population."""
    points = points_of(vertex_index, raw.groups)
    flat_targets = raw.shape_targets.reshape(len(raw.shape_targets), -1)
    # From here on all lengths are in units of unit_metres * COEFFICIENT_UNIT, so that all sums are integers.
    per_unit = round(1 / COEFFICIENT_UNIT)
    base = raw.base[points] - _origin(raw.base, raw.groups)
    template = base * per_unit + _exact_product(mean[None], flat_targets).reshape(base.shape)
    rigid = rigid_fields(template.astype(np.float64) * COEFFICIENT_UNIT).reshape(6, -1)
    columns = np.concatenate((flat_targets, rigid))
    identity = _exact_product(modes, columns).reshape(len(modes), -1, 3)
    names = tuple(raw.units)
    expression = np.stack([raw.units[name] for name in names]) * per_unit
    metres = raw.unit_metres * COEFFICIENT_UNIT
    count = len(vertex_index)
    faces, uv, uv_faces = _topology(raw, vertex_index)
    return HeadModel(
        name=OPEN_HEAD_NAME,
        template=_metres(template[:count], metres),
        identity_basis=_metres(identity[:, :count].transpose(1, 2, 0), metres),
        expression_basis=_metres(expression[:, :count].transpose(1, 2, 0), metres),
        joint_template=_metres(_cube_sums(template, count, axis=0), metres / 8),
        joint_identity_basis=_metres(_cube_sums(identity, count, axis=1).transpose(1, 2, 0), metres / 8),
        joint_expression_basis=_metres(_cube_sums(expression, count, axis=1).transpose(1, 2, 0), metres / 8),
        skinning_weights=_skinning(raw, vertex_index),
        parents=PARENTS,
        faces=torch.from_numpy(faces),
        uv=torch.from_numpy(uv).float(),
        uv_faces=torch.from_numpy(uv_faces),
        expression_names=names,
        regions={name: torch.from_numpy(mask.copy()) for name, mask in regions.items()},
        embeddings=dict(embeddings),
    )


def _origin(base: NDArray[np.int64], groups: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    return base[groups[ORIGIN_CUBE]].sum(0) // 8


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
    shape = (*corners.shape[:axis], len(JOINT_BONES), 8, *corners.shape[axis + 1 :])
    return corners.reshape(shape).sum(axis + 1)


def _topology(
    raw: RawHead, vertex_index: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Triangles of the quads that lie wholly in the head, with their texture coordinates."""
    local = np.full(len(raw.base), -1, np.int64)
    local[vertex_index] = np.arange(len(vertex_index))
    inside = (local[raw.quads] >= 0).all(1)
    split = np.array([[0, 1, 2], [0, 2, 3]])
    faces = local[raw.quads[inside]][:, split].reshape(-1, 3)
    uv_corners = raw.uv_quads[inside][:, split].reshape(-1, 3)
    used, uv_faces = np.unique(uv_corners, return_inverse=True)
    return faces, raw.uv[used], uv_faces.reshape(-1, 3)


def _skinning(raw: RawHead, vertex_index: NDArray[np.int32]) -> Tensor:
    """Weights of the rig's bones, each added to its nearest ancestor among the five joints.

    Bones outside the head's subtree, which have weights at the neck's seam, are added to the root.
    """
    joint_of_bone = {bone: joint for joint, bone in enumerate(JOINT_BONES.values())}
    weights = np.zeros((len(raw.base), len(JOINT_BONES)))
    for bone, pairs in raw.bone_weights.items():
        ancestor = bone
        while ancestor and ancestor not in joint_of_bone:
            ancestor = raw.bone_parents.get(ancestor, "")
        column = joint_of_bone.get(ancestor, 0)
        for vertex, weight in pairs:
            weights[vertex, column] += weight
    chosen = weights[vertex_index]
    return torch.from_numpy((chosen / chosen.sum(1, keepdims=True)).astype(np.float32))
