"""Results as arrays and plain values, and back (`neuface.io.results.npz_layout`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from itertools import pairwise
from typing import Any, get_args

import torch
from torch import Tensor

from neuface.errors import InputError
from neuface.evaluation.quality import Quality
from neuface.fitting.config import FitConfig
from neuface.fitting.lens import FocalLength, FocalSource
from neuface.geometry.head_perspective import Perspective
from neuface.io.results.npz_layout import HISTORY
from neuface.io.results.plain_values import as_plain, from_plain
from neuface.io.results.world_arrays import world_of, world_tensors
from neuface.landmarks.schemes import scheme_named
from neuface.results.fit_result import FitResult
from neuface.structs import (
    Camera,
    HeadParams,
    Outcome,
    Prediction,
    Selection,
    Status,
    Track,
    WeakPerspective,
)

_PLAIN_FIELDS = ("model", "head_name", "head_hash", "fps", "seconds")


_TENSOR_FIELDS = ("expression", "root_rotvec", "neck_rotvec", "jaw_rotvec", "eyes_rotvec")


def arrays_of(result: FitResult) -> dict[str, Tensor]:
    """The tensors of a result by their names in a file."""
    """The arrays of the file, by the names that `neuface.io.results.npz_layout` lists."""
    initial = {**result.initial.params.named_tensors(), **_camera_tensors(result.initial.camera)}
    uncertainty = result.landmarks.uncertainty_px
    return {
        "identity": result.identity,
        **{name: getattr(result, name) for name in _TENSOR_FIELDS},
        **_camera_tensors(result.camera),
        **{f"initial.{name}": tensor for name, tensor in initial.items()},
        "landmarks.points_px": result.landmarks.points_px,
        "landmarks.confidence": result.landmarks.confidence,
        **({} if uncertainty is None else {"landmarks.uncertainty_px": uncertainty}),
        "status": result.status.to(torch.int8),
        **{f"quality.{name}": tensor for name, tensor in result.quality.named_tensors().items()},
        "image_nme_percent": result.image_nme_percent,
        "timestamps_s": result.timestamps_s,
        **{
            f"{HISTORY}{name}": torch.tensor(values, dtype=torch.float64)
            for name, values in result.history.items()
        },
        "identity_spread": torch.tensor(result.identity_spread, dtype=torch.float64),
        **({} if result.world is None else world_tensors(result.world)),
    }


def plain_values_of(result: FitResult) -> dict[str, Any]:
    """What a result holds beside tensors, as JSON holds it."""
    return {
        **{name: getattr(result, name) for name in _PLAIN_FIELDS},
        "scheme": result.landmarks.scheme.name,
        "camera": type(result.camera).__name__,
        "outcome": result.outcome.name,
        "focal": [asdict(length) for length in result.focal],
        "remarks": list(result.remarks),
        "shot_starts": list(result.shot_starts),
        "people": asdict(result.selection),
        "metric": result.world is None or result.world.metric,
        "names": list(result.names),
        "frame_sizes_hw": [list(size) for size in result.frame_sizes_hw],
        "config": as_plain(result.config),
    }


_CAMERAS = {kind.__name__: kind for kind in (WeakPerspective, Perspective)}


def _camera_tensors(camera: Camera) -> dict[str, Tensor]:
    return {f"camera.{name}": tensor for name, tensor in camera.named_tensors().items()}


def result_from(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> FitResult:
    """The result that a file's arrays describe; ValueError, KeyError or TypeError if they do not."""
    views, _ = tensors["status"].shape
    names = tuple(str(name) for name in meta["names"])
    sizes_hw = tuple((height, width) for height, width in meta["frame_sizes_hw"])
    if not all(type(side) is int and side > 0 for size in sizes_hw for side in size):
        raise InputError(f"its frame sizes are no positive whole numbers: {sizes_hw}")
    if not (math.isfinite(meta["fps"]) and meta["fps"] > 0):
        raise InputError(f"its frames per second are no positive number: {meta['fps']}")
    if len(names) != views or len(sizes_hw) != views:
        raise InputError(
            f"it has {views} view(s), but {len(names)} name(s) and {len(sizes_hw)} frame size(s)"
        )
    kind = _CAMERAS.get(meta["camera"])
    if kind is None:
        raise InputError(f"its camera is of the kind {meta['camera']!r}, which this version does not read")
    if not bool(torch.isin(tensors["status"], torch.tensor([*Status])).all()):
        raise InputError(f"its status holds numbers that are none of {[int(item) for item in Status]}")
    return FitResult(
        identity=tensors["identity"],
        **{name: tensors[name] for name in _TENSOR_FIELDS},
        camera=_camera(kind, tensors, "camera."),
        initial=Prediction(
            params=HeadParams(
                identity=tensors["initial.identity"],
                **{name: tensors[f"initial.{name}"] for name in _TENSOR_FIELDS},
            ),
            camera=_camera(kind, tensors, "initial.camera."),
        ),
        landmarks=Track(
            points_px=tensors["landmarks.points_px"],
            confidence=tensors["landmarks.confidence"],
            uncertainty_px=tensors.get("landmarks.uncertainty_px"),
            scheme=scheme_named(meta["scheme"]),
        ),
        status=tensors["status"].long(),
        quality=Quality(
            **{
                name.removeprefix("quality."): tensor
                for name, tensor in tensors.items()
                if name.startswith("quality.")
            }
        ),
        image_nme_percent=tensors["image_nme_percent"],
        outcome=Outcome[meta["outcome"]],
        history={
            name.removeprefix(HISTORY): values.tolist()
            for name, values in tensors.items()
            if name.startswith(HISTORY)
        },
        identity_spread=tensors["identity_spread"].tolist(),
        config=from_plain(FitConfig, meta["config"]),
        focal=_focal(meta["focal"], views),
        remarks=tuple(str(remark) for remark in meta["remarks"]),
        shot_starts=_shot_starts(meta["shot_starts"], tensors["status"].shape[1]),
        selection=_selection(meta["people"]),
        world=world_of(tensors, metric=meta["metric"]) if "world.rotvec" in tensors else None,
        names=names,
        frame_sizes_hw=sizes_hw,
        timestamps_s=tensors["timestamps_s"],
        **{name: meta[name] for name in _PLAIN_FIELDS},
    )


def _shot_starts(value: list[Any], time: int) -> tuple[int, ...]:
    numbers = all(type(start) is int for start in value)
    if not numbers or value[:1] != [0] or any(a >= b for a, b in pairwise((*value, time))):
        raise InputError(f"its shot_starts are not 0 and rising numbers of its {time} frames: {value}")
    return tuple(value)


def _selection(value: Mapping[str, Any]) -> Selection:
    wanted = {"people": int, "number": int, "rule": str}
    if {name: type(item) for name, item in value.items()} != wanted:
        raise InputError(f"its people are not described by {', '.join(wanted)}: {value}")
    return Selection(**value)


def _camera(kind: type[WeakPerspective | Perspective], tensors: Mapping[str, Tensor], prefix: str) -> Camera:
    return kind(**{item.name: tensors[f"{prefix}{item.name}"] for item in fields(kind)})


def _focal(value: list[Any], views: int) -> tuple[FocalLength, ...]:
    found = tuple(FocalLength(**item) for item in value)
    positive = all(type(item.px) is float and math.isfinite(item.px) and item.px > 0 for item in found)
    sources = all(item.source in get_args(FocalSource) for item in found)
    deviations = all(isinstance(item.relative_std, float | None) for item in found)
    if len(found) not in (0, views) or not (positive and sources and deviations):
        raise InputError(f"its focal lengths are not those of {views} view(s): {value}")
    return found
