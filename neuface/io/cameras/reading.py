"""Calibration files of all formats: which format a file has, and its content as plain values."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from neuface.errors import InputError
from neuface.io.cameras.camera_set import CameraSet
from neuface.io.cameras.own_json import own_cameras
from neuface.io.cameras.values import read_bytes, short


def read_cameras(path: str | os.PathLike[str]) -> CameraSet:
    """Read calibrated cameras, every number checked.

    Raises:
        InputError: the file is missing, too large or damaged; it lacks a camera's position; or its numbers are not
            those of cameras. The message names the file, the camera and the field.
    """
    file = Path(path)
    return own_cameras(file, _json(file, read_bytes(file)))


def _json(file: Path, data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: is not JSON with cameras ({short(str(error))})") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are unique; Python's JSON reader would keep the last of equal ones."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is given twice")
    return found
