"""The head in the world as the arrays of `result.npz`; see the table of `neuface.io.results.npz_layout`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from neuface.errors import InputError
from neuface.evaluation.world import WorldResult
from neuface.geometry.perspective import PerspectiveCamera
from neuface.structs import HeadParams

_SHARED = ("identity", "expression", "neck_rotvec", "jaw_rotvec", "eyes_rotvec")
_CAMERA = {
    "K": "K",
    "distortion": "distortion",
    "rotation_camera": "rotation",
    "translation_camera": "translation",
}


def world_tensors(world: WorldResult) -> dict[str, Tensor]:
    """The arrays by their names in the file."""
    return {
        "world.rotvec": world.rotvec,
        "world.translation": world.translation,
        "world.scale": world.scale,
        "world.seen": world.seen.to(torch.int8),
        **{f"world.{name}": getattr(world.params, name) for name in _SHARED},
        **{f"world.{name}": getattr(world.cameras, field) for name, field in _CAMERA.items()},
    }


def world_of(tensors: Mapping[str, Tensor], *, metric: bool) -> WorldResult:
    """What `world_tensors` wrote, of arrays whose shapes fit each other; InputError for an impossible scale."""
    scale = tensors["world.scale"]
    if not (bool(scale.isfinite()) and float(scale) > 0):
        raise InputError(f"its head has no size in the world: {float(scale)}")
    return WorldResult(
        params=HeadParams(
            root_rotvec=torch.zeros_like(tensors["world.rotvec"]),
            **{name: tensors[f"world.{name}"] for name in _SHARED},
        ),
        rotvec=tensors["world.rotvec"],
        translation=tensors["world.translation"],
        scale=scale,
        seen=tensors["world.seen"].bool(),
        cameras=PerspectiveCamera(**{field: tensors[f"world.{name}"] for name, field in _CAMERA.items()}),
        metric=metric,
    )
