"""Landmark files: compressed numpy archives (.npz) without pickled objects."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from neuface.errors import InputError
from neuface.io.atomic import atomic_path
from neuface.io.npz import read_arrays
from neuface.landmarks.schemes import MEDIAPIPE478, MEDIAPIPE_MESH_POINTS, POINTS_BY_SCHEME, number_of_points
from neuface.structs import Landmarks

ONE_VIEW_KEY = "points_px"
ALL_VIEWS_KEY = "landmarks"
EXPECTED_KEYS = (
    f"{ONE_VIEW_KEY!r} (frames, points, 2) or (frames, faces, points, 2) for one view, "
    f"or {ALL_VIEWS_KEY!r} (views, frames, points, 2 or 3) for all views"
)


def read_landmarks(path: str | os.PathLike[str]) -> tuple[list[np.ndarray], str]:
    """Read a landmark file as it is: one array per view, and the scheme.

    The file holds `points_px` `(frames, points, 2)` or `(frames, faces, points, 2)` for one view, or
    `landmarks` `(views, frames, points, 2)` for all; a third column is the confidence. Frame pixels, NaN
    where nothing was found. `scheme` may name the scheme; else the number of points tells it.

    Raises:
        InputError: The file is missing, is no readable archive, or does not hold such arrays.
    """
    file = Path(path)
    arrays = _load_archive(file)
    keys = ", ".join(sorted(arrays)) or "none"
    if ALL_VIEWS_KEY in arrays:
        stacked = arrays[ALL_VIEWS_KEY]
        good_axes = stacked.ndim == 4
        views = list(stacked) if good_axes else []
    elif ONE_VIEW_KEY in arrays:
        stacked = arrays[ONE_VIEW_KEY]
        good_axes = stacked.ndim in (3, 4)
        views = [stacked]
    else:
        raise InputError(f"{file}: no landmarks in this file. Expected {EXPECTED_KEYS}; its keys: {keys}")
    if not good_axes or stacked.shape[-1] not in (2, 3) or stacked.dtype.kind not in "fiu" or not views:
        raise InputError(
            f"{file}: its landmarks have shape {stacked.shape} and type {stacked.dtype}. "
            f"Expected numbers, {EXPECTED_KEYS}; its keys: {keys}"
        )
    return views, _scheme_of(file, arrays, stacked.shape[-2])


def _load_archive(file: Path) -> dict[str, np.ndarray]:
    if not file.exists():
        raise InputError(f"{file}: no such landmark file")
    if file.is_dir():
        raise InputError(f"{file}: is a folder; expected a landmark file (.npz)")
    try:
        # Foreign entries are listed, never read: they may be large, or objects.
        return read_arrays(file, (ALL_VIEWS_KEY, ONE_VIEW_KEY, "scheme"))
    except InputError as error:
        raise InputError(
            f"{file}: cannot be read as landmarks, it may be cut short or of another kind ({error}). "
            f"Expected .npz with {EXPECTED_KEYS}"
        ) from error


def _scheme_of(file: Path, arrays: dict[str, np.ndarray], points: int) -> str:
    by_count = {count: name for name, count in POINTS_BY_SCHEME.items()} | {
        MEDIAPIPE_MESH_POINTS: MEDIAPIPE478
    }
    if points not in by_count:
        raise InputError(f"{file}: {points} points per frame; expected one of {sorted(by_count)}")
    if "scheme" not in arrays:
        return by_count[points]
    scheme = str(arrays["scheme"])
    if number_of_points(scheme) != number_of_points(by_count[points]):
        raise InputError(f"{file}: says its scheme is {scheme!r} but has {points} points per frame")
    return scheme


def write_landmarks(path: str | os.PathLike[str], landmarks: Landmarks) -> None:
    """Write landmarks so that `read_landmarks` returns them: one file with all views and the scheme.

    The third column is the confidence; missing points are NaN. The file appears whole or not at all.
    """
    confidence = landmarks.confidence.detach().cpu().float()
    points = landmarks.points_px.detach().cpu().float()
    points = points.masked_fill((confidence <= 0)[..., None], float("nan"))
    joined = torch.cat([points, confidence[..., None]], dim=-1).numpy()
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, landmarks=joined, scheme=np.array(landmarks.scheme))
