"""The numbers of calibration files, checked: what all formats share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuface.errors import InputError
from neuface.geometry.perspective import FOCAL_BOUNDS, PerspectiveCamera
from neuface.io.cameras.camera_set import CameraSet, SizeHw, in_px

# Bounds on a file: its bytes (a camera takes about 700), its cameras, and the sides of its frames in pixels.
LARGEST_FILE = 2**20
MOST_CAMERAS = 256
LARGEST_SIDE_PX = 2**16
# Bound on the absolute value of every number: pixels, units of length, distortion coefficients.
LARGEST_NUMBER = 1e6
# Largest entry of |R R^T - 1| that passes as rounding of the stored digits.
ROTATION_TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class OneCamera:
    """One camera as a file describes it, checked."""

    name: str
    K: Tensor
    distortion: Tensor
    rotation: Tensor
    translation: Tensor
    size_hw: SizeHw | None


USUAL_SIZE_HW = (1000, 1000)
"""What stands for a frame size that a file does not state, where focal lengths are bounded."""


def checked_camera(where: str, camera: OneCamera) -> OneCamera:
    """Raises InputError unless the matrices are those of a camera for frames of its size."""
    K, rotation = camera.K, camera.rotation
    below = [*K[2].tolist(), float(K[1, 0])]
    if below != [0, 0, 1, 0] or not bool((K.diagonal() > 0).all()):
        raise InputError(
            f"{where}, K is no camera matrix; expected (fx, skew, cx), (0, fy, cy), (0, 0, 1) "
            "with positive focal lengths"
        )
    x, y = K[:2, 2].tolist()
    size_hw = camera.size_hw
    if size_hw is not None and not (-0.5 <= x <= size_hw[1] - 0.5 and -0.5 <= y <= size_hw[0] - 0.5):
        raise InputError(
            f"{where}, the principal point ({x:.1f}, {y:.1f}) lies outside of frames of {in_px(size_hw)} px; "
            "expected a K for frames of this size"
        )
    shortest, longest = (bound * max(size_hw or USUAL_SIZE_HW) for bound in FOCAL_BOUNDS)
    for focal in K.diagonal()[:2].tolist():
        if not shortest <= focal <= longest:
            raise InputError(
                f"{where}, K has a focal length of {focal:.4g}; expected {shortest:.0f} to {longest:.0f}, in pixels"
            )
    deviation = (rotation @ rotation.mT - torch.eye(3, dtype=rotation.dtype)).abs().max()
    if not float(deviation) <= ROTATION_TOLERANCE or float(torch.linalg.det(rotation)) < 0:
        raise InputError(f"{where}, R is no rotation; expected R R^T = 1 and det R = 1")
    return camera


def camera_set(file: Path, cameras: Sequence[OneCamera], *, metric: bool) -> CameraSet:
    """The cameras of a file; raises InputError for none, too many, or equal names."""
    names = tuple(camera.name for camera in cameras)
    if not 0 < len(names) <= MOST_CAMERAS:
        raise InputError(f"{file}: has {len(names)} cameras; expected 1 to {MOST_CAMERAS}")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{file}: has two cameras of the name {short(twice)}; expected different names")
    return CameraSet(
        cameras=PerspectiveCamera(
            K=torch.stack([camera.K for camera in cameras]),
            distortion=torch.stack([camera.distortion for camera in cameras]),
            rotation=torch.stack([camera.rotation for camera in cameras]),
            translation=torch.stack([camera.translation for camera in cameras]),
        ),
        names=names,
        sizes_hw=tuple(camera.size_hw for camera in cameras),
        metric=metric,
    )


def frame_size(where: str, value: Any) -> SizeHw:
    """Height and width from a list [width, height]; raises InputError."""
    width, height = numbers(f"{where}, frame size", value, (2,)).tolist()
    if not all(1 <= side <= LARGEST_SIDE_PX and side == int(side) for side in (width, height)):
        raise InputError(f"{where}, frame size is {width} x {height}; expected whole numbers of pixels")
    return int(height), int(width)


def read_bytes(file: Path, most: int = LARGEST_FILE) -> bytes:
    """The content of a file of bounded size; raises InputError."""
    try:
        if not file.is_file():
            raise InputError(f"{file}: there is no such file; expected a file with calibrated cameras")
        with open(file, "rb") as stream:
            data = stream.read(most + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: cannot be read ({error})") from error
    if len(data) > most:
        raise InputError(f"{file}: is larger than {most} bytes; no file with cameras is")
    return data


def numbers(where: str, value: Any, shape: tuple[int, ...]) -> Tensor:
    """float64 of exactly this shape from nested lists; raises InputError."""
    flat = _flattened(value, shape)
    if flat is None:
        kind = " x ".join(map(str, shape)) + " numbers" if shape else "a number"
        raise InputError(f"{where} must be {kind}")
    # NaN fails the comparison, too; whole numbers too large for a float are compared as they are.
    if not all(-LARGEST_NUMBER <= number <= LARGEST_NUMBER for number in flat):
        raise InputError(f"{where} has a number that is not finite, or beyond {LARGEST_NUMBER:.0e}")
    return torch.tensor([float(number) for number in flat], dtype=torch.float64).reshape(shape)


def _flattened(value: Any, shape: tuple[int, ...]) -> list[int | float] | None:
    """The numbers of nested lists, or None if they are not of this shape."""
    if not shape:
        return [value] if isinstance(value, int | float) and not isinstance(value, bool) else None
    if not isinstance(value, list) or len(value) != shape[0]:
        return None
    parts = [_flattened(item, shape[1:]) for item in value]
    return None if any(part is None for part in parts) else [n for part in parts for n in part or []]


def short(value: Any) -> str:
    """A value for an error message, of bounded length."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
