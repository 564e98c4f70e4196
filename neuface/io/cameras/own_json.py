"""Cameras in this package's own JSON: every field is required, and units and convention are stated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuface.errors import InputError
from neuface.io.cameras.camera_set import CameraSet, SizeHw
from neuface.io.cameras.values import (
    MOST_CAMERAS,
    OneCamera,
    camera_set,
    checked_camera,
    frame_size,
    numbers,
    short,
)

UNITS = "metre"
CONVENTION = "x_cam = R @ x_world + t; OpenCV camera axes; dist = k1,k2,p1,p2,k3"
FIELDS = ("units", "convention", "image_size", "fps", "cameras")
CAMERA_FIELDS = ("K", "dist", "R", "t")


def own_cameras(file: Path, content: Any) -> CameraSet:
    """The cameras of a parsed file.

    The file is one object with `units` "metre", `convention` (that of PerspectiveCamera, word for word),
    `image_size` [width, height], `fps`, and `cameras`: an object with one entry per camera, each with `K` (3 x 3),
    `dist` (5), `R` (3 x 3) and `t` (3).

    Raises:
        InputError: a field is missing, unknown, of another type or not finite; the unit or convention differs; K is
            not a camera matrix, or its principal point lies outside the frames (a calibration for another
            resolution); R is not a rotation.
    """
    content = _fields(f"{file}: the file", content, FIELDS)
    for name, expected in (("units", UNITS), ("convention", CONVENTION)):
        if content[name] != expected:
            raise InputError(f"{file}: {name} is {short(content[name])}; expected {expected!r}")
    size_hw = frame_size(f"{file}: image_size", content["image_size"])
    fps = float(numbers(f"{file}: fps", content["fps"], ()))
    if fps <= 0:
        raise InputError(f"{file}: fps must be positive, got {fps}")
    listed = content["cameras"]
    if not isinstance(listed, dict) or not 0 < len(listed) <= MOST_CAMERAS:
        raise InputError(
            f"{file}: cameras must be an object with 1 to {MOST_CAMERAS} entries, one per camera"
        )
    return camera_set(
        file, [_camera(file, name, value, size_hw) for name, value in listed.items()], metric=True
    )


def _camera(file: Path, name: str, value: Any, size_hw: SizeHw) -> OneCamera:
    where = f"{file}: camera {short(name)}"
    entry = _fields(where, value, CAMERA_FIELDS)
    K, dist, rotation, translation = (
        numbers(f"{where}, {field}", entry[field], shape)
        for field, shape in zip(CAMERA_FIELDS, ((3, 3), (5,), (3, 3), (3,)), strict=True)
    )
    return checked_camera(
        where,
        OneCamera(
            name=name, K=K, distortion=dist, rotation=rotation, translation=translation, size_hw=size_hw
        ),
    )


def _fields(where: str, value: Any, expected: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where} must be an object with {', '.join(expected)}")
    missing = [name for name in expected if name not in value]
    if missing:
        raise InputError(f"{where} has no {', '.join(missing)}; expected {', '.join(expected)}")
    unknown = next((name for name in value if name not in expected), None)
    if unknown is not None:
        raise InputError(f"{where} has the unknown field {short(unknown)}; expected {', '.join(expected)}")
    return value
