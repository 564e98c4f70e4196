"""The layout of `result.npz`: plain arrays and one JSON text. Nothing in such a file is ever executed.

| array | shape | what it is |
|---|---|---|
| `identity` | (identity,) or (views, time, identity) | one code for the person, or one for every image |
| `expression` | (views, time, expression) | expression code |
| `root_rotvec`, `neck_rotvec`, `jaw_rotvec` | (views, time, 3) | rotation vectors, radians |
| `eyes_rotvec` | (views, time, 2, 3) | the left eye first, radians |
| `camera.scale`, `camera.offset` | (views, time), (views, time, 2) | where the head is, frame pixels (per metre) |
| `camera.focal`, `camera.principal` | (views, time), (views, time, 2) | of perspective cameras, frame pixels |
| `initial.*` | as above, identity per image | the same, as the pretrained encoder predicts it |
| `landmarks.points_px`, `landmarks.confidence` | (views, time, points, 2), (views, time, points) | frame pixels |
| `landmarks.uncertainty_px` | (views, time, points) | standard deviation per axis, frame pixels; where it is known |
| `status` | (views, time) | numbers of `neuface.Status` |
| `quality.score` and its parts | (views, time) | how far an image can be trusted, 0 to 1 |
| `image_nme_percent` | (views, time) | landmark error of every image; NaN without landmarks |
| `world.rotvec`, `world.translation` | (time, 3) | head to world: radians, metres; with calibrated cameras |
| `world.scale` | () | true size of the head over that of the fitted model |
| `world.seen` | (time,) | 1 where a camera saw the face |
| `world.identity`, `world.expression`, `world.neck_rotvec`, ... | (time, ...) | the head that the views agree on |
| `world.K`, `world.distortion` | (views, 3, 3), (views, 5) | the calibrated cameras, frame pixels |
| `world.rotation_camera`, `world.translation_camera` | (views, 3, 3), (views, 3) | world to camera, metres |
| `timestamps_s` | (time,) | seconds since the recording's first frame |
| `history.*` | (passes + 1,) each | loss per pass: `total` and its unweighted parts |
| `identity_spread` | (passes + 1,) or (0,) | spread of the identity codes per pass |
| `meta` | () | JSON: META_TYPES lists its entries |
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuface.errors import InputError
from neuface.io.npz import read_arrays, write_arrays

FORMAT = 3
HISTORY = "history."

_IMAGE = ("views", "time")
_HEAD_AXES: dict[str, tuple[str | int, ...]] = {
    "identity": (*_IMAGE, "identity"),
    "expression": (*_IMAGE, "expression"),
    "root_rotvec": (*_IMAGE, 3),
    "neck_rotvec": (*_IMAGE, 3),
    "jaw_rotvec": (*_IMAGE, 3),
    "eyes_rotvec": (*_IMAGE, 2, 3),
    "camera.scale": _IMAGE,
    "camera.offset": (*_IMAGE, 2),
}
# `status` stands first: it determines the number of views and frames.
_AXES: dict[str, tuple[str | int, ...]] = {
    "status": _IMAGE,
    **{f"initial.{name}": axes for name, axes in _HEAD_AXES.items()},
    **_HEAD_AXES,
    "landmarks.points_px": (*_IMAGE, "points", 2),
    "landmarks.confidence": (*_IMAGE, "points"),
    **{f"quality.{name}": _IMAGE for name in ("score", "residual", "steadiness", "certainty", "inside")},
    "image_nme_percent": _IMAGE,
    "timestamps_s": ("time",),
    "identity_spread": ("passes",),
}
# All of these or none.
_WORLD_AXES: dict[str, tuple[str | int, ...]] = {
    "world.rotvec": ("time", 3),
    "world.translation": ("time", 3),
    "world.scale": (),
    "world.seen": ("time",),
    "world.identity": ("time", "identity"),
    "world.expression": ("time", "expression"),
    "world.neck_rotvec": ("time", 3),
    "world.jaw_rotvec": ("time", 3),
    "world.eyes_rotvec": ("time", 2, 3),
    "world.K": ("views", 3, 3),
    "world.distortion": ("views", 5),
    "world.rotation_camera": ("views", 3, 3),
    "world.translation_camera": ("views", 3),
}
_OPTIONAL_AXES: dict[str, tuple[str | int, ...]] = {
    "landmarks.uncertainty_px": (*_IMAGE, "points"),
    **{f"{of}camera.focal": _IMAGE for of in ("", "initial.")},
    **{f"{of}camera.principal": (*_IMAGE, 2) for of in ("", "initial.")},
}
_SHARED_IDENTITY = ("identity",)
_WHOLE_NUMBERS = ("status", "world.seen")
META_TYPES: dict[str, type | tuple[type, ...]] = {
    "model": str,
    "head_name": str,
    "head_hash": str,
    "scheme": str,
    "camera": str,
    "outcome": str,
    "focal": list,
    "remarks": list,
    "shot_starts": list,
    "people": dict,
    "metric": bool,
    "names": list,
    "frame_sizes_hw": list,
    "fps": (int, float),
    "seconds": (int, float),
    "config": dict,
}
"""Entries of `meta` beside `format`, and their JSON types."""


def write_result_arrays(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], meta: Mapping[str, Any]
) -> None:
    """Write the tensors and the entries of `meta` that the module's table lists."""
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    text = json.dumps({"format": FORMAT, **meta})
    write_arrays(path, arrays | {"meta": np.array(text)})


def read_result_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the entries of `meta`, all of them there, with types and shapes that fit each other.

    Raises:
        InputError: the file is missing, damaged, no result, of another format, or incomplete.
    """
    arrays = read_arrays(path)
    meta = _read_meta(path, arrays)
    all_axes = {**_AXES, **{name: axes for name, axes in _OPTIONAL_AXES.items() if name in arrays}}
    if any(name in arrays for name in _WORLD_AXES):
        all_axes |= _WORLD_AXES
    wrong = [
        f"{name} is missing" if name not in arrays else f"{name} has the type {arrays[name].dtype}"
        for name in all_axes
        if name not in arrays or arrays[name].dtype.kind not in ("iu" if name in _WHOLE_NUMBERS else "f")
    ]
    sizes: dict[str, int] = {}
    if not wrong:
        wrong = [
            fault
            for name, axes in all_axes.items()
            if (fault := _shape_fault(name, axes, arrays[name].shape, sizes))
        ]
    histories = {name: array for name, array in arrays.items() if name.startswith(HISTORY)}
    lengths = {array.shape for array in histories.values()}
    if f"{HISTORY}total" not in histories or len(lengths) != 1 or len(*lengths) != 1:
        wrong.append("the history needs an array `history.total`, and all of its arrays one length")
    if any(array.dtype.kind != "f" for array in histories.values()):
        wrong.append("the history holds values that are no floating-point numbers")
    if wrong:
        raise InputError(
            f"{path} is not a complete neuface result: {'; '.join(wrong)}. Fit the clip again, or take a copy "
            "of the file that is whole"
        )
    kept = (*all_axes, *histories)
    return {name: torch.from_numpy(arrays[name]) for name in kept}, meta


def _shape_fault(
    name: str, axes: tuple[str | int, ...], shape: tuple[int, ...], sizes: dict[str, int]
) -> str | None:
    """What is wrong with a shape; axes that are met for the first time enter `sizes`."""
    if name == "identity" and len(shape) == 1:
        axes = _SHARED_IDENTITY
    fits = len(shape) == len(axes)
    for axis, size in zip(axes, shape, strict=False):
        expected = axis if isinstance(axis, int) else sizes.setdefault(axis, size)
        fits = fits and size == expected and (size > 0 or axis == "passes")
    if fits:
        return None
    wanted = ", ".join(str(axis if isinstance(axis, int) else sizes.get(axis, axis)) for axis in axes)
    return f"{name} has the shape {shape} instead of ({wanted})"


def _read_meta(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    try:
        meta = json.loads(str(arrays["meta"]))
        found = meta["format"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not a neuface result: it has no readable 'meta' entry "
            f"(its arrays: {', '.join(arrays) or 'none'})"
        ) from error
    if found != FORMAT:
        raise InputError(
            f"{path} is a result of format {found!r}, and this version of neuface reads format {FORMAT}: "
            "read it with the version that wrote it, or fit the clip again"
        )
    wrong = [
        name
        for name, kind in META_TYPES.items()
        if not isinstance(meta.get(name), kind) or isinstance(meta[name], bool) != (kind is bool)
    ]
    if wrong:
        raise InputError(
            f"{path} is not a complete neuface result: 'meta' lacks {', '.join(wrong)}, or their types are wrong"
        )
    return meta
