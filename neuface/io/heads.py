"""Head models in safetensors files, which hold tensors and text but no code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from neuface.errors import InputError
from neuface.head.model import JOINT_NAMES, ContourAngle, HeadModel, LandmarkEmbedding
from neuface.io.atomic import atomic_path
from neuface.io.untrusted.safetensors_file import read_safetensors

HEAD_FORMAT = "neuface-head-1"
# Format of heads with parts that readers of the first format would ignore (FLAME's pose bases, contour angles).
WIDER_HEAD_FORMAT = "neuface-head-2"
_PLAIN_TENSORS = (
    "template", "identity_basis", "expression_basis", "joint_template", "joint_identity_basis",
    "joint_expression_basis", "skinning_weights", "faces", "uv", "uv_faces",
)  # fmt: skip
_OPTIONAL_TENSORS = ("pose_basis", "posed_basis")


def write_head(path: Path, head: HeadModel) -> None:
    """Write a head model; the file appears only when it is complete."""
    tensors = {name: tensor.contiguous() for name, tensor in head.named_tensors().items()}
    angles = {
        scheme: item.contour_angle
        for scheme, item in head.embeddings.items()
        if item.contour_angle != "forward_azimuth"
    }
    wider = any(name in tensors for name in _OPTIONAL_TENSORS) or bool(angles) or bool(head.absent)
    metadata = {
        "format": WIDER_HEAD_FORMAT if wider else HEAD_FORMAT,
        "name": head.name,
        "parents": json.dumps(head.parents),
        "expression_names": json.dumps(head.expression_names),
    }
    if wider:
        metadata |= {"contour_angles": json.dumps(angles), "absent": json.dumps(dict(head.absent))}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def read_head(path: Path) -> HeadModel:
    """Read a head model written by `write_head`, on the CPU. Raises InputError for any other or a damaged file."""
    tensors, metadata = read_safetensors(path)
    known = metadata.get("format") in (HEAD_FORMAT, WIDER_HEAD_FORMAT)
    if not known or any(name not in tensors for name in _PLAIN_TENSORS):
        raise InputError(
            f"{path} is not a head model of this package (expected format {HEAD_FORMAT!r} or {WIDER_HEAD_FORMAT!r})"
        )
    try:
        head = HeadModel(
            name=metadata["name"],
            parents=tuple(json.loads(metadata["parents"])),
            expression_names=tuple(json.loads(metadata["expression_names"])),
            regions=_with_prefix(tensors, "region."),
            embeddings=_embeddings(tensors, json.loads(metadata.get("contour_angles", "{}"))),
            absent=dict(json.loads(metadata.get("absent", "{}"))),
            **{name: tensors[name] for name in _PLAIN_TENSORS},
            **{name: tensors[name] for name in _OPTIONAL_TENSORS if name in tensors},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is a damaged head model: parts are missing or misnamed ({error})"
        ) from error
    _refuse_misfits(path, head)
    return head


def is_written_head(path: Path) -> bool:
    """Whether a file is one of `write_head`'s."""
    try:
        with safe_open(path, framework="pt") as archive:
            return (archive.metadata() or {}).get("format") in (HEAD_FORMAT, WIDER_HEAD_FORMAT)
    except (SafetensorError, OSError):
        return False


def _refuse_misfits(path: Path, head: HeadModel) -> None:
    """Raise InputError that names the parts with a wrong shape or type, indices out of range, NaN or infinity."""
    vertices, joints = head.template.shape[:1], (len(head.parents),)
    identity, expression = head.identity_basis.shape[-1:], head.expression_basis.shape[-1:]
    expected: dict[str, tuple[int, ...]] = {
        "template": (*vertices, 3),
        "identity_basis": (*vertices, 3, *identity),
        "expression_basis": (*vertices, 3, *expression),
        "joint_template": (*joints, 3),
        "joint_identity_basis": (*joints, 3, *identity),
        "joint_expression_basis": (*joints, 3, *expression),
        "skinning_weights": (*vertices, *joints),
        "faces": (len(head.faces), 3),
        "uv": (len(head.uv), 2),
        "uv_faces": (len(head.uv_faces), 3),
        "pose_basis": (*vertices, 3, 9 * (joints[0] - 1)),
        "posed_basis": (*vertices, 3, head.num_expression - expression[0]),
    }
    expected |= {f"region.{name}": vertices for name in head.regions}
    limits = {"faces": vertices[0], "uv_faces": len(head.uv)}
    for scheme, item in head.embeddings.items():
        points, contour = item.triangles.shape[:1], item.contour_triangles.shape[-1:]
        rows, prefix = item.contour_yaw_rad.shape[:1], f"embedding.{scheme}"
        expected |= {
            f"{prefix}.triangles": points,
            f"{prefix}.barycentric": (*points, 3),
            f"{prefix}.contour_triangles": (*rows, *contour),
            f"{prefix}.contour_barycentric": (*rows, *contour, 3),
            f"{prefix}.contour_yaw_rad": rows,
            f"{prefix}.mesh_points": points,
        }
        limits |= {f"{prefix}.{part}": len(head.faces) for part in ("triangles", "contour_triangles")}
    tensors = head.named_tensors()
    wrong = [name for name, tensor in tensors.items() if tuple(tensor.shape) != expected[name]]
    wrong += [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    wrong += [
        name
        for name, tensor in tensors.items()
        if name not in limits
        and not name.endswith(".mesh_points")
        and tensor.dtype != (torch.bool if name.startswith("region.") else tensors["template"].dtype)
    ]
    if not tensors["template"].is_floating_point():
        wrong.append("template")
    for name, limit in limits.items():
        index = tensors[name]
        if index.dtype != torch.int64 or (
            index.numel() and not 0 <= int(index.min()) <= int(index.max()) < limit
        ):
            wrong.append(name)
    if not _is_a_tree(head.parents) or joints[0] != len(JOINT_NAMES):
        wrong.append("parents")
    if len(head.expression_names) != head.num_expression:
        wrong.append("expression_names")
    if wrong:
        raise InputError(
            f"{path} is a damaged head model: {', '.join(sorted(set(wrong)))} do not fit the rest"
        )


def _is_a_tree(parents: tuple[int, ...]) -> bool:
    """Whether the root is first and every joint follows its parent."""
    return parents[:1] == (-1,) and all(
        isinstance(parent, int) and 0 <= parent < joint for joint, parent in enumerate(parents[1:], start=1)
    )


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _embeddings(tensors: dict[str, Tensor], angles: dict[str, ContourAngle]) -> dict[str, LandmarkEmbedding]:
    flat = _with_prefix(tensors, "embedding.")
    if not set(angles.values()) <= set(get_args(ContourAngle)):
        raise ValueError(f"unknown contour angles {sorted(set(angles.values()))}")
    schemes = sorted({name.split(".")[0] for name in flat})
    return {
        scheme: LandmarkEmbedding(
            **_with_prefix(flat, f"{scheme}."),  # pyright: ignore[reportArgumentType]
            contour_angle=angles.get(scheme, "forward_azimuth"),
        )
        for scheme in schemes
    }
