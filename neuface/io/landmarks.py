"""Landmark files: compressed numpy archives (.npz) without pickled objects."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from neuface.errors import InputError
from neuface.io.atomic import atomic_path
from neuface.io.npz import read_arrays
from neuface.landmarks.arrays import faces_of_views
from neuface.landmarks.schemes import MEDIAPIPE_MESH_POINTS, SCHEMES, scheme_named, scheme_with
from neuface.landmarks.tracking.found_faces import FoundFaces
from neuface.landmarks.tracking.selection import most_present
from neuface.structs import Scheme, Track

ONE_VIEW_KEY = "points_px"
ALL_VIEWS_KEY = "landmarks"
EXPECTED_KEYS = (
    f"{ONE_VIEW_KEY!r} (frames, points, 2) or (frames, faces, points, 2) for one view, "
    f"or {ALL_VIEWS_KEY!r} (views, frames, points, 2 or 3) for all views"
)


def read_landmarks(path: str | os.PathLike[str]) -> Track:
    """The landmarks of the most present person in a landmark file; see `read_faces`."""
    return most_present(read_faces(path))


def read_faces(
    path: str | os.PathLike[str], *, views: int | None = None, lengths: Sequence[int] = ()
) -> FoundFaces:
    """Read a landmark file: one view or several, in frame pixels.

    The file holds `points_px` `(frames, points, 2)` or `(frames, faces, points, 2)` for one view, or
    `landmarks` `(views, frames, points, 2)` for all; a third column is the confidence. Frame pixels, NaN
    where nothing was found. `scheme` may name the scheme, and is believed; without it, the number of points
    determines the scheme.

    Raises:
        InputError: The file is missing, is no readable archive, or does not hold such arrays.
    """
    file = Path(path)
    arrays = _load_archive(file)
    keys = ", ".join(sorted(arrays)) or "none"
    if ALL_VIEWS_KEY in arrays:
        stacked = arrays[ALL_VIEWS_KEY]
        good_axes = stacked.ndim == 4
        each = list(stacked) if good_axes else []
    elif ONE_VIEW_KEY in arrays:
        stacked = arrays[ONE_VIEW_KEY]
        good_axes = stacked.ndim in (3, 4)
        each = [stacked]
    else:
        raise InputError(f"{file}: no landmarks in this file. Expected {EXPECTED_KEYS}; its keys: {keys}")
    if not good_axes or stacked.shape[-1] not in (2, 3) or stacked.dtype.kind not in "fiu" or not each:
        raise InputError(
            f"{file}: its landmarks have shape {stacked.shape} and type {stacked.dtype}. "
            f"Expected numbers, {EXPECTED_KEYS}; its keys: {keys}"
        )
    scheme = _scheme_of(file, arrays, stacked.shape[-2])
    return faces_of_views(each, len(each[0]), scheme, what=f"{file}: landmarks")


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


def _scheme_of(file: Path, arrays: dict[str, np.ndarray], points: int) -> Scheme:
    by_count = scheme_with(points)
    if by_count is None:
        expected = sorted({MEDIAPIPE_MESH_POINTS, *(scheme.count for scheme in SCHEMES.values())})
        raise InputError(f"{file}: {points} points per frame; expected one of {expected}")
    if "scheme" not in arrays:
        return by_count
    try:
        scheme = scheme_named(str(arrays["scheme"]))
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    if scheme.count != by_count.count:
        raise InputError(f"{file}: its scheme is {scheme.name!r} but it has {points} points per frame")
    return scheme


def write_landmarks(path: str | os.PathLike[str], landmarks: Track) -> None:
    """Write landmarks so that `read_landmarks` returns them: one file with all views and the scheme.

    The third column is the confidence; missing points are NaN. The file appears whole or not at all.
    """
    confidence = landmarks.confidence.detach().cpu().float()
    points = landmarks.points_px.detach().cpu().float()
    points = points.masked_fill((confidence <= 0)[..., None], float("nan"))
    joined = torch.cat([points, confidence[..., None]], dim=-1).numpy()
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, landmarks=joined, scheme=np.array(landmarks.scheme.name))
