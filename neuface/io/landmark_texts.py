"""Landmarks in text files: OpenFace's csv, 300-W's pts, and json. They give lists of frames, each a list of faces."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuface.errors import InputError

Frames = list[list[np.ndarray]]
"""The faces of every frame, each `(points, 2 or 3)`."""
LARGEST_TEXT = 1 << 30
"""Bounds the bytes of a text file that is read into memory."""
COLUMN = re.compile(r"([xy])_?(\d+)")
FRAME_COLUMNS = ("frame", "frame_id", "frame_number", "frame_index")
MOST_FRAMES = 10_000_000
"""Bounds the number of a frame; a damaged number would allocate as many lists."""
POINT_KEYS = ("points_px", "landmarks", "landmark", "points", "keypoints", "lmk", "landmarks_2d", "lms")
"""Names under which json files of other programs hold the points, most certain first."""


def frames_of_csv(file: Path, lengths: Sequence[int]) -> Frames:
    """The rows of OpenFace's FeatureExtraction or FaceLandmarkVidMulti, and of tables with the same columns.

    Columns are `x_0 ... x_67, y_0 ...`; `frame` counts from 1 in OpenFace, from 0 if a row says so; `success` 0 means
    no face and `confidence` is that of all points. Frames without a row have no face.

    Raises:
        InputError: the columns or numbers are not there.
    """
    rows = csv.reader(_text(file).splitlines(), skipinitialspace=True)
    header = [name.strip().lower() for name in next(rows, [])]
    columns = {
        match.groups(): index for index, name in enumerate(header) if (match := COLUMN.fullmatch(name))
    }
    numbers = sorted({int(number) for _, number in columns})
    pairs = [(columns.get(("x", str(n))), columns.get(("y", str(n)))) for n in numbers]
    if not pairs or any(x is None or y is None for x, y in pairs):
        raise InputError(
            f"{file}: has no columns x_0, x_1, ... and y_0, y_1, ... as OpenFace writes them; its columns begin with "
            f"{', '.join(header[:6]) or 'nothing'}"
        )
    order = [index for pair in pairs for index in pair if index is not None]
    frame_at = next((header.index(name) for name in FRAME_COLUMNS if name in header), None)
    success_at, confidence_at = (header.index(n) if n in header else None for n in ("success", "confidence"))
    found: list[tuple[int, np.ndarray | None]] = []
    for line, row in enumerate(rows):
        if not row:
            continue
        try:
            number = line if frame_at is None else int(float(row[frame_at]))
            points = np.array([float(row[index]) for index in order], np.float32).reshape(-1, 2)
            seen = success_at is None or float(row[success_at]) > 0
            if confidence_at is not None:
                confidence = np.full((len(points), 1), float(row[confidence_at]), np.float32)
                points = np.concatenate([points, confidence], 1)
        except (IndexError, ValueError, OverflowError) as error:
            raise InputError(
                f"{file}, row {line + 2}: no numbers ({error}); is the file cut short?"
            ) from error
        found.append((number, points if seen else None))
    if not found:
        raise InputError(f"{file}: has no rows")
    first = 0 if frame_at is None or any(number == 0 for number, _ in found) else 1
    needed = max(number for number, _ in found) - first + 1
    if min(number for number, _ in found) < 0 or needed > MOST_FRAMES:
        raise InputError(f"{file}: numbers of frames must be 0 to {MOST_FRAMES}")
    # OpenFace leaves out frames at the end, too.
    time = min((length for length in lengths if length >= needed), default=needed)
    frames: Frames = [[] for _ in range(time)]
    for number, points in found:
        if points is not None:
            frames[number - first].append(points)
    return frames


def points_of_pts(file: Path) -> np.ndarray:
    """The points of one 300-W annotation, which counts pixels from 1. Raises InputError if it is none."""
    text = _text(file)
    inside = re.search(r"\{([^}]*)\}", text)
    try:
        numbers = np.array([float(word) for word in inside.group(1).split()] if inside else [], np.float32)
        stated = re.search(r"n_points\s*:\s*(\d+)", text)
        points = numbers.reshape(-1, 2)
        if len(points) == 0 or (stated and int(stated.group(1)) != len(points)):
            raise ValueError(f"{len(points)} points")
    except ValueError as error:
        raise InputError(
            f"{file}: is no whole annotation of 300-W ({error}); expected n_points: 68 and that many lines in braces"
        ) from error
    return points - 1


def frames_of_json(file: Path) -> Frames:
    """Nested lists of points, alone or under a key that is clear; frames may be a list, or be numbered by their keys.

    A face is a list of `[x, y]`, of `{"x": ..., "y": ...}`, or of numbers that alternate; null is a frame without
    face.

    Raises:
        InputError: the text is no json, or it is not clear where the points are.
    """
    try:
        value = json.loads(_text(file))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: is no json ({error}); is it cut short?") from error
    try:
        frames = _frame_list(value)
        return [_faces(frame) for frame in frames]
    except (TypeError, ValueError, KeyError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{file}: it is not clear where the points are ({error}); expected a list with one entry per frame, each "
            "null, [[x, y], ...] or a list of such faces"
        ) from error


def _frame_list(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [value] if _is_face(value) else value
    if not isinstance(value, dict):
        raise ValueError(f"it holds a single {type(value).__name__}")
    if value and all(re.fullmatch(r"\d+", key) for key in value):
        numbered = {int(key): item for key, item in value.items()}
        first = 0 if 0 in numbered else min(numbered)
        if max(numbered) - first >= MOST_FRAMES:
            raise ValueError("a frame has too large a number")
        return [numbered.get(number) for number in range(first, max(numbered) + 1)]
    return _frame_list(_only_points(value, ("frames", "results", *POINT_KEYS)))


def _faces(frame: Any) -> list[np.ndarray]:
    if frame is None or frame == []:
        return []
    if isinstance(frame, dict) and not {"x", "y"} <= frame.keys():
        return _faces(_only_points(frame, ("faces", *POINT_KEYS)))
    if not isinstance(frame, list):
        raise ValueError(f"a frame is a {type(frame).__name__}")
    return [_points(frame)] if _is_face(frame) else [face for part in frame for face in _faces(part)]


def _only_points(value: dict[str, Any], names: Sequence[str]) -> Any:
    """The value under the first of these names, or the only list or dictionary there is."""
    for name in names:
        if name in value:
            return value[name]
    candidates = [item for item in value.values() if isinstance(item, list | dict)]
    if len(candidates) != 1:
        raise ValueError(f"the keys are {', '.join(list(value)[:8])}")
    return candidates[0]


def _is_face(value: list[Any]) -> bool:
    """Whether this is a list of points: numbers, pairs of numbers, or x and y by name."""
    first = value[0] if value else None
    if isinstance(first, dict):
        return {"x", "y"} <= first.keys()
    if isinstance(first, list):
        return 0 < len(first) <= 3 and all(item is None or isinstance(item, int | float) for item in first)
    return isinstance(first, int | float)


def _points(value: list[Any]) -> np.ndarray:
    if isinstance(value[0], dict):
        value = [[point["x"], point["y"]] for point in value]
    array = np.array(value, dtype=object).astype(np.float32)
    return array if array.ndim == 2 else array.reshape(-1, 2)


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > LARGEST_TEXT:
            raise InputError(
                f"{file}: is larger than {LARGEST_TEXT >> 20} MiB, too large for a text of landmarks"
            )
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as text ({error})") from error
