"""FLAME model files of every version and wire format, as a `HeadModel`.

The layout (keys, shapes, joint order) is that of the FLAME model of Li et al. (SIGGRAPH Asia 2017) as its authors
distribute it; the landmarks' and eyelids' conventions are those of DECA, EMOCA and SMIRK. Files are read as data:
neither chumpy nor scipy is needed, and no code in them is executed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuface.errors import InputError
from neuface.head.model import HeadModel
from neuface.head.versions import check_flame_version, flame_version
from neuface.io.flame.companions import FlameCompanions, read_companions
from neuface.io.untrusted.array_files import checked_array, read_named_values

__all__ = ["FlameArrays", "flame_model_file", "read_flame", "read_flame_arrays"]

FLAME_PARENTS = (-1, 0, 1, 1, 1)
IDENTITY_COLUMNS, EXPRESSION_COLUMNS = 300, 100
POSE_COLUMNS = 9 * (len(FLAME_PARENTS) - 1)
MODEL_KEYS = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table")
EYELID_NAMES = ("left_eyelid", "right_eyelid")
# Names under which the model files are published or commonly stored.
MODEL_FILES = (
    "generic_model.pkl", "flame2023.pkl", "flame2023_no_jaw.pkl", "flame2023_Open.pkl", "FLAME_NEUTRAL.pkl",
    "FLAME_NEUTRAL.npz", "generic_model.npz", "generic_model.safetensors",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FlameArrays:
    """The numbers of a FLAME model file as they are stored; lengths in metres."""

    v_template: Float[np.ndarray, "vertices 3"]
    f: Int[np.ndarray, "faces 3"]
    shapedirs: Float[np.ndarray, "vertices 3 400"]
    """Columns 0 to 299 are identity, 300 to 399 expression."""
    posedirs: Float[np.ndarray, "vertices 3 36"]
    J_regressor: Float[np.ndarray, "5 vertices"]
    weights: Float[np.ndarray, "vertices 5"]


def read_flame(
    path: str | os.PathLike[str],
    *,
    version: str | None = None,
    companions: FlameCompanions | None = None,
    eyelids: bool = False,
    dtype: torch.dtype = torch.float32,
) -> HeadModel:
    """A FLAME model file (pickle, npz or safetensors) and its companion files, as a head model on the CPU.

    Args:
        path: the model file, or a folder that holds exactly one under a published name.
        version: one of `FLAME_VERSIONS`, for a file whose version does not follow from its name and folder, or whose
            name is wrong.
        companions: files of landmarks, regions and texture coordinates; one that is not given is searched beside
            the model file under its published name. A missing part is reported when it is used.
        eyelids: add SMIRK's two eyelid offsets, as the last two expression coefficients (left, right), each 0 to 1.
        dtype: type of the numbers, which are stored with 64 bits and rounded once.

    Raises:
        InputError: a file is missing, damaged, hostile or incomplete; the message names the file and the array.
    """
    file = flame_model_file(path)
    if version is not None:
        check_flame_version(version)
    arrays = read_flame_arrays(file)
    folder = file.absolute().parent
    found = read_companions(
        folder, companions or FlameCompanions(), arrays.f, len(arrays.v_template), eyelids
    )
    head = replace(_head_of(arrays, "flame", dtype), absent=found.absent)
    head = replace(
        head,
        name=version or flame_version(file.name, (folder.name, folder.parent.name), head.parameter_hash()),
        uv=torch.from_numpy(found.uv).to(dtype),
        uv_faces=torch.from_numpy(found.uv_faces),
        regions={name: torch.from_numpy(mask) for name, mask in found.regions.items()},
        embeddings={scheme: item.to(dtype) for scheme, item in found.embeddings.items()},
    )
    if found.eyelids is None:
        return head
    return replace(
        head,
        posed_basis=torch.from_numpy(found.eyelids).to(dtype),
        expression_names=(*head.expression_names, *EYELID_NAMES),
    )


def flame_model_file(path: str | os.PathLike[str]) -> Path:
    """The model file itself, or the only one in a folder. Raises InputError if there is none or more than one."""
    location = Path(path).expanduser()
    try:
        if not location.is_dir():
            return location
        found = [location / name for name in MODEL_FILES if (location / name).is_file()]
    except (OSError, ValueError) as error:
        raise InputError(f"{location}: cannot be read ({error})") from error
    if not found:
        raise InputError(
            f"{location}: holds no FLAME model file ({', '.join(MODEL_FILES)}); "
            "put one there, or give the path of the file"
        )
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise InputError(
            f"{location}: holds several FLAME model files ({names}); give the path of one of them"
        )
    return found[0]


def read_flame_arrays(path: str | os.PathLike[str]) -> FlameArrays:
    """The arrays of a FLAME model file exactly as stored, after their shapes, types and indices were checked.

    Raises InputError for a file that cannot be read, or a missing, misshapen, mistyped or infinite array, by name.
    """
    values = read_named_values(path, MODEL_KEYS)
    missing = [name for name in MODEL_KEYS if name not in values]
    if missing:
        raise InputError(
            f"{path}: is no complete FLAME model: {', '.join(missing)} missing; expected {', '.join(MODEL_KEYS)}"
        )

    def numbers(name: str, *shape: int | None) -> np.ndarray:
        return checked_array(path, name, values[name], shape)

    template = numbers("v_template", None, 3)
    vertices = len(template)
    faces = checked_array(path, "f", values["f"], (None, 3), whole=True)
    if not len(faces) or faces.min() < 0 or faces.max() >= vertices:
        raise InputError(f"{path}: 'f' names vertices that do not exist; expected 0 to {vertices - 1}")
    joints = len(FLAME_PARENTS)
    tree = checked_array(path, "kintree_table", values["kintree_table"], (2, joints), whole=True)
    # The root's parent is stored as -1 or as 2^32 - 1.
    if tuple(tree[0, 1:].tolist()) != FLAME_PARENTS[1:]:
        raise InputError(
            f"{path}: 'kintree_table' has the parents {tree[0, 1:].tolist()} behind the root; "
            f"expected {list(FLAME_PARENTS[1:])} (neck, jaw, left eye, right eye)"
        )
    return FlameArrays(
        v_template=template,
        f=faces,
        shapedirs=numbers("shapedirs", vertices, 3, IDENTITY_COLUMNS + EXPRESSION_COLUMNS),
        posedirs=numbers("posedirs", vertices, 3, POSE_COLUMNS),
        J_regressor=numbers("J_regressor", joints, vertices),
        weights=numbers("weights", vertices, joints),
    )


def _head_of(arrays: FlameArrays, name: str, dtype: torch.dtype) -> HeadModel:
    """The head alone, without texture coordinates, regions and landmarks."""

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(dtype)

    # Joints are linear in the shaped vertices, so they have bases of their own. That is exact and a thousand times
    # cheaper: 5 joints in place of 5023 vertices.
    joints = arrays.J_regressor @ arrays.v_template
    joint_basis = np.tensordot(arrays.J_regressor, arrays.shapedirs, axes=1)
    identity, expression = slice(0, IDENTITY_COLUMNS), slice(IDENTITY_COLUMNS, None)
    return HeadModel(
        name=name,
        template=tensor(arrays.v_template),
        identity_basis=tensor(arrays.shapedirs[..., identity]),
        expression_basis=tensor(arrays.shapedirs[..., expression]),
        joint_template=tensor(joints),
        joint_identity_basis=tensor(joint_basis[..., identity]),
        joint_expression_basis=tensor(joint_basis[..., expression]),
        skinning_weights=tensor(arrays.weights),
        pose_basis=tensor(arrays.posedirs),
        parents=FLAME_PARENTS,
        faces=torch.from_numpy(arrays.f),
        uv=tensor(np.zeros((0, 2))),
        uv_faces=torch.zeros(0, 3, dtype=torch.int64),
        expression_names=tuple(f"expression{number:03d}" for number in range(EXPRESSION_COLUMNS)),
        regions={},
        embeddings={},
    )
