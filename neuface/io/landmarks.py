"""Landmark files of all kinds that programs write; ours are npz without pickled objects."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from neuface.errors import InputError
from neuface.io.atomic import atomic_path
from neuface.io.landmark_texts import Frames, frames_of_csv, frames_of_json, points_of_pts
from neuface.io.natural_order import natural_key
from neuface.io.npz import read_arrays
from neuface.io.untrusted.npy import NPY_MAGIC, plain_array
from neuface.landmarks.arrays import faces_of_views
from neuface.landmarks.program_outputs import faces_of_frames
from neuface.landmarks.schemes import (
    MEDIAPIPE468,
    MEDIAPIPE478,
    layout_named,
    layout_with,
    layouts_in_words,
)
from neuface.landmarks.tracking.found_faces import FoundFaces
from neuface.landmarks.tracking.selection import most_present
from neuface.structs import Scheme, Track

ONE_VIEW_KEY = "points_px"
ALL_VIEWS_KEY = "landmarks"
SCHEME_KEY = "scheme"
NPZ_MAGIC = b"PK"
MOST_ARRAYS = 100
"""Bounds the arrays among which landmarks of another name are looked for; each is read by itself."""
KINDS = (
    "npz or npy with (frames, points, 2), (frames, faces, points, 2) or (views, frames, points, 2), OpenFace's csv, "
    "json, a 300-W pts or a folder of them"
)
CODE_ENDINGS = frozenset({".pkl", ".pickle", ".p", ".pt", ".pth", ".joblib"})
"""Endings of files that can execute code when they are read."""


def read_landmarks(path: str | os.PathLike[str]) -> Track:
    """The landmarks of the most present person in a landmark file; see `read_faces`."""
    return most_present(read_faces(path))


def read_faces(
    path: str | os.PathLike[str], *, views: int | None = None, lengths: Sequence[int] = ()
) -> FoundFaces:
    """Read a landmark file: one view or several, in frame pixels.

    npz and npy hold `(frames, points, 2)`, `(frames, faces, points, 2)` for one view or `(views, frames, points, 2)`
    for all, under any name if only one array can be meant; a third column is the confidence. NaN where nothing was
    found. `scheme` may name the order of the points, and is believed; without it, their number determines it. Text
    files: see `neuface.io.landmark_texts`.

    Args:
        path: the file, or a folder of pts files, one per frame in natural order.
        views: how many cameras the clip has, to distinguish views from faces; None if that is not known.
        lengths: numbers of frames that would fit.

    Raises:
        InputError: The file is missing, of no such kind, damaged, or it is not clear which landmarks are meant.
    """
    file = Path(path)
    wanted = _Wanted(file=file, views=views, lengths=tuple(lengths))
    try:
        if not file.exists():
            raise InputError(f"{file}: no such landmark file")
        if file.is_dir():
            return _from_frames(_frames_of_folder(file), file)
        with file.open("rb") as stream:
            start = stream.read(len(NPY_MAGIC))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error})") from error
    if start == NPY_MAGIC:
        return _from_array(_load_npy(file), wanted)
    ending = file.suffix.lower()
    if start.startswith(NPZ_MAGIC) or ending == ".npz":
        return _from_archive(wanted)
    if ending == ".csv":
        return _from_frames(frames_of_csv(file, lengths), file)
    if ending == ".json":
        return _from_frames(frames_of_json(file), file)
    if ending == ".pts":
        return _from_frames([[points_of_pts(file)]], file)
    if ending in CODE_ENDINGS:
        raise InputError(
            f"{file}: such files can execute code and are not read; expected {KINDS}. Where they come from: "
            "numpy.save('talk.npy', points)"
        )
    raise InputError(
        f"{file}: cannot be read as landmarks, it may be damaged or of another kind. Expected {KINDS}"
    )


def _frames_of_folder(folder: Path) -> Frames:
    files = sorted(folder.glob("*.pts"), key=lambda file: natural_key(file.name))
    if not files:
        raise InputError(f"{folder}: is a folder without pts files; expected {KINDS}")
    return [[points_of_pts(file)] for file in files]


def _from_frames(frames: Frames, file: Path) -> FoundFaces:
    faces = faces_of_frames(frames, None, str(file))
    return faces_of_views(
        [faces[:, 0] if faces.shape[1] == 1 else faces], len(faces), what=f"{file}: landmarks"
    )


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """The file, and what is known of the clip whose landmarks it should hold."""

    file: Path
    views: int | None
    lengths: tuple[int, ...]


def _from_array(
    array: np.ndarray, wanted: _Wanted, key: str | None = None, scheme: str | None = None
) -> FoundFaces:
    """The faces of one array, whose axes are distinguished by its name, or by the clip's views and frames."""
    views, lengths = wanted.views, wanted.lengths
    what = f"{wanted.file}: {key or 'landmarks'}"
    if array.ndim == 2:
        array = array[None]
    by_views = False
    if array.ndim == 4 and key != ONE_VIEW_KEY:
        fits_views = views in (None, len(array)) and (not lengths or array.shape[1] in lengths)
        fits_faces = views in (None, 1) and (not lengths or len(array) in lengths) and len(array) != 1
        by_views = fits_views if fits_views != fits_faces else key == ALL_VIEWS_KEY
        if fits_views == fits_faces and key != ALL_VIEWS_KEY:
            raise InputError(
                f"{what}: of shape {array.shape}, it is not clear whether the first axis counts views or frames; "
                f"call it {ALL_VIEWS_KEY!r} (views, frames, points, 2) or {ONE_VIEW_KEY!r} (frames, faces, points, 2)"
            )
    each = list(array) if by_views or array.ndim == 5 else [array]
    return faces_of_views(each, len(each[0]), _scheme_of(wanted.file, scheme, array.shape[-2]), what=what)


def _load_npy(file: Path) -> np.ndarray:
    try:
        return _checked(plain_array(file.read_bytes(), "fiu"), str(file))
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as landmarks, it may be cut short ({error})") from error


def _checked(array: np.ndarray, what: str) -> np.ndarray:
    if not _may_be_landmarks(array):
        raise InputError(
            f"{what}: of shape {array.shape} and type {array.dtype}, it is no array of landmarks; expected numbers, "
            f"(frames, points, 2), with {layouts_in_words()} points"
        )
    return array


def _may_be_landmarks(array: np.ndarray) -> bool:
    return (
        array.dtype.kind in "fiu"
        and 2 <= array.ndim <= 5
        and array.shape[-1] in (2, 3)
        and layout_with(array.shape[-2]) is not None
        and 0 not in array.shape
    )


def _from_archive(wanted: _Wanted) -> FoundFaces:
    file = wanted.file
    try:
        # Foreign entries are listed first and read one by one: they may be large, or objects.
        keys = sorted(read_arrays(file, ()))
        own = [key for key in (ALL_VIEWS_KEY, ONE_VIEW_KEY) if key in keys][:1]
        arrays = read_arrays(file, (*own, SCHEME_KEY)) if own else read_arrays(file, (SCHEME_KEY,))
    except InputError as error:
        raise InputError(
            f"{file}: cannot be read as landmarks, it may be cut short or of another kind ({error}). Expected {KINDS}"
        ) from error
    scheme = str(arrays[SCHEME_KEY]) if SCHEME_KEY in keys else None
    if own:
        (key,) = own
        return _from_array(_checked(arrays[key], f"{file}: {key}"), wanted, key, scheme)
    if len(keys) > MOST_ARRAYS:
        raise InputError(
            f"{file}: it is not clear which of its {len(keys)} arrays are the landmarks; call them {ONE_VIEW_KEY!r}"
        )
    found: dict[str, np.ndarray] = {}
    for key in keys:
        try:
            array = read_arrays(file, (key,))[key]
        except InputError:
            continue
        if _may_be_landmarks(array):
            found[key] = array
    flat = {key: array for key, array in found.items() if array.shape[-1] == 2}
    meant = flat if len(flat) == 1 else found
    if len(meant) != 1:
        what = f"several arrays may be meant ({', '.join(meant)})" if meant else "no landmarks in this file"
        raise InputError(
            f"{file}: {what}; expected one array of shape (frames, points, 2) with {layouts_in_words()} points. Its "
            f"keys: {', '.join(keys) or 'none'}"
        )
    ((key, array),) = meant.items()
    return _from_array(array, wanted, key, scheme)


def _scheme_of(file: Path, name: str | None, points: int) -> Scheme | None:
    """The scheme that a file names; None if it names none."""
    if name is None:
        return None
    try:
        layout = layout_named(name)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    without_irises = name == MEDIAPIPE478.name and points == MEDIAPIPE468.count
    if points != layout.count and not without_irises:
        raise InputError(f"{file}: its scheme is {name!r} but it has {points} points per frame")
    return layout.scheme


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
