"""Calibrated cameras of one recording, from a plain JSON file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuface.errors import InputError
from neuface.geometry.perspective import PerspectiveCamera

__all__ = ["CameraSet", "read_cameras"]

UNITS = "metre"
CONVENTION = "x_cam = R @ x_world + t; OpenCV camera axes; dist = k1,k2,p1,p2,k3"
FIELDS = ("units", "convention", "image_size", "fps", "cameras")
CAMERA_FIELDS = ("K", "dist", "R", "t")
# Bounds on a file: its bytes (a camera takes about 700), its cameras, and the sides of its frames in pixels.
LARGEST_FILE = 2**20
MOST_CAMERAS = 256
LARGEST_SIDE_PX = 2**16
# Bound on the absolute value of every number: pixels, metres, distortion coefficients, frames per second.
LARGEST_NUMBER = 1e6
# Largest entry of |R R^T - 1| that passes as rounding of the stored digits.
ROTATION_TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class CameraSet:
    """The cameras of one recording."""

    cameras: PerspectiveCamera
    """One batch axis, the cameras in the order of the file; float64."""
    names: tuple[str, ...]
    size_hw: tuple[int, int]
    """Height and width in pixels of the frames that the calibration is for; the same for all cameras."""
    fps: float

    def check_frames(self, sizes_hw: Sequence[tuple[int, int]]) -> None:
        """Raises InputError unless frames of these heights and widths, one per view, are those of the calibration."""
        if len(sizes_hw) != len(self.names):
            raise InputError(
                f"the clip has {len(sizes_hw)} view(s) but the calibration has {len(self.names)} cameras "
                f"({', '.join(self.names)}); expected one camera per view, in the same order"
            )
        for name, size in zip(self.names, sizes_hw, strict=True):
            if tuple(size) != self.size_hw:
                raise InputError(
                    f"camera {name!r} is calibrated for frames of {_size(self.size_hw)} px, but the video has "
                    f"{_size(size)} px; expected the video as it was recorded, neither scaled nor cut"
                )


def read_cameras(path: str | os.PathLike[str]) -> CameraSet:
    """Read calibrated cameras from a JSON file, every field checked.

    The file is one object with `units` "metre", `convention` (that of PerspectiveCamera, word for word),
    `image_size` [width, height], `fps`, and `cameras`: an object with one entry per camera, each with `K` (3 x 3),
    `dist` (5), `R` (3 x 3) and `t` (3).

    Raises:
        InputError: the file is missing, larger than 1 MiB or not JSON; a field is missing, unknown, given twice, of
            another type or not finite; the unit or convention differs; K is not a camera matrix, or its principal
            point lies outside the frames (a calibration for another resolution); R is not a rotation.
    """
    file = Path(path)
    content = _fields(file, "the file", _parsed(file), FIELDS)
    for name, expected in (("units", UNITS), ("convention", CONVENTION)):
        if content[name] != expected:
            raise InputError(f"{file}: {name} is {_short(content[name])}; expected {expected!r}")
    width, height = _numbers(file, "image_size", content["image_size"], (2,)).tolist()
    if not all(1 <= side <= LARGEST_SIDE_PX and side == int(side) for side in (width, height)):
        raise InputError(f"{file}: image_size is {width} x {height}; expected whole numbers of pixels")
    fps = float(_numbers(file, "fps", content["fps"], ()))
    if fps <= 0:
        raise InputError(f"{file}: fps must be positive, got {fps}")
    listed = content["cameras"]
    if not isinstance(listed, dict) or not 0 < len(listed) <= MOST_CAMERAS:
        raise InputError(
            f"{file}: cameras must be an object with 1 to {MOST_CAMERAS} entries, one per camera"
        )
    size_hw = (int(height), int(width))
    parts = [_camera(file, name, value, size_hw) for name, value in listed.items()]
    columns = [torch.stack(column) for column in zip(*parts, strict=True)]
    return CameraSet(
        cameras=PerspectiveCamera(
            K=columns[0], distortion=columns[1], rotation=columns[2], translation=columns[3]
        ),
        names=tuple(listed),
        size_hw=size_hw,
        fps=fps,
    )


def _camera(
    file: Path, name: str, value: Any, size_hw: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    label = f"camera {_short(name)}"
    entry = _fields(file, label, value, CAMERA_FIELDS)
    K, dist, rotation, translation = (
        _numbers(file, f"{label}, {field}", entry[field], shape)
        for field, shape in zip(CAMERA_FIELDS, ((3, 3), (5,), (3, 3), (3,)), strict=True)
    )
    below = [*K[2].tolist(), float(K[1, 0])]
    if below != [0, 0, 1, 0] or not bool((K.diagonal() > 0).all()):
        raise InputError(
            f"{file}: {label}, K is no camera matrix; expected (fx, skew, cx), (0, fy, cy), (0, 0, 1) "
            "with positive focal lengths"
        )
    height, width = size_hw
    x, y = K[:2, 2].tolist()
    if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
        raise InputError(
            f"{file}: {label}, the principal point ({x:.1f}, {y:.1f}) lies outside of frames of {_size(size_hw)} px; "
            "expected a K for frames of this size"
        )
    deviation = (rotation @ rotation.mT - torch.eye(3, dtype=rotation.dtype)).abs().max()
    if not float(deviation) <= ROTATION_TOLERANCE or float(torch.linalg.det(rotation)) < 0:
        raise InputError(f"{file}: {label}, R is no rotation; expected R R^T = 1 and det R = 1")
    return K, dist, rotation, translation


def _parsed(file: Path) -> Any:
    try:
        if not file.is_file():
            raise InputError(f"{file}: there is no such file; expected a JSON file with cameras")
        with open(file, "rb") as stream:
            data = stream.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: cannot be read ({error})") from error
    if len(data) > LARGEST_FILE:
        raise InputError(f"{file}: is larger than {LARGEST_FILE} bytes; no file with cameras is")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: is not JSON with cameras ({_short(str(error))})") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are unique; Python's JSON reader would keep the last of equal ones."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is given twice")
    return found


def _fields(file: Path, label: str, value: Any, expected: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{file}: {label} must be an object with {', '.join(expected)}")
    missing = [name for name in expected if name not in value]
    if missing:
        raise InputError(f"{file}: {label} has no {', '.join(missing)}; expected {', '.join(expected)}")
    unknown = next((name for name in value if name not in expected), None)
    if unknown is not None:
        raise InputError(
            f"{file}: {label} has the unknown field {_short(unknown)}; expected {', '.join(expected)}"
        )
    return value


def _numbers(file: Path, label: str, value: Any, shape: tuple[int, ...]) -> Tensor:
    """float64 of exactly this shape from nested lists."""
    flat = _flattened(value, shape)
    if flat is None:
        kind = " x ".join(map(str, shape)) + " numbers" if shape else "a number"
        raise InputError(f"{file}: {label} must be {kind}")
    # NaN fails the comparison, too; whole numbers too large for a float are compared as they are.
    if not all(-LARGEST_NUMBER <= number <= LARGEST_NUMBER for number in flat):
        raise InputError(f"{file}: {label} has a number that is not finite, or beyond {LARGEST_NUMBER:.0e}")
    return torch.tensor([float(number) for number in flat], dtype=torch.float64).reshape(shape)


def _flattened(value: Any, shape: tuple[int, ...]) -> list[int | float] | None:
    """The numbers of nested lists, or None if they are not of this shape."""
    if not shape:
        return [value] if isinstance(value, int | float) and not isinstance(value, bool) else None
    if not isinstance(value, list) or len(value) != shape[0]:
        return None
    parts = [_flattened(item, shape[1:]) for item in value]
    return None if any(part is None for part in parts) else [n for part in parts for n in part or []]


def _size(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[1]} x {size_hw[0]}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
