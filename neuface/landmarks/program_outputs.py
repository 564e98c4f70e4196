"""What other landmark programs return in Python, frame by frame: face-alignment's lists and MediaPipe's results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuface.errors import InputError

PIXEL_CENTRE = 0.5
"""MediaPipe counts from the frame's outer edge, neuface from the centre of the first pixel; pixels."""


def is_list_of_frames(value: Any, time: int) -> bool:
    """Whether this is a list with one entry per frame: None, the faces of that frame, or a result of MediaPipe."""
    if not isinstance(value, list | tuple) or len(value) != time:
        return False
    return all(
        item is None
        or _is_result(item)
        or isinstance(item, list | tuple)
        or getattr(item, "ndim", 0) in (2, 3)
        for item in value
    ) and not all(getattr(item, "ndim", 0) == 3 and len(item) == time for item in value)


def faces_of_frames(
    value: Sequence[Any], size_hw: tuple[int, int] | None, what: str
) -> Float[Tensor, "time faces n d"]:
    """One array of all faces; places without a face are NaN.

    Entries are None or an empty list (no face), `(n, 2)` or `(faces, n, 2)` arrays, lists of such, and results of
    MediaPipe's FaceLandmarker or FaceMesh, whose normalised coordinates become pixels of the frame. A third column is
    kept if it can be a confidence; depth is left out.

    Raises:
        InputError: an entry is something else, the faces differ in their number of points, or the size of the frame
            is needed and not known.
    """
    frames = [_faces(item, size_hw, f"{what}, frame {number}") for number, item in enumerate(value)]
    shapes = {face.shape for faces in frames for face in faces}
    if len(shapes) > 1:
        listed = ", ".join(map(str, sorted(shapes)))
        raise InputError(f"{what}: the faces differ in shape ({listed}); expected one scheme in all frames")
    if not shapes:
        raise InputError(
            f"{what}: none of the {len(frames)} frames has a face, so that the number of points is not known; "
            "expected a face in at least one"
        )
    (points, axes) = next(iter(shapes))
    most = max(len(faces) for faces in frames)
    joined = np.full((len(frames), most, points, axes), np.nan, np.float32)
    for number, faces in enumerate(frames):
        for place, face in enumerate(faces):
            joined[number, place] = face
    third = joined[..., 2] if axes == 3 else np.empty(0)
    third = third[np.isfinite(third)]
    is_depth = axes == 3 and len(third) > 0 and (third.min() < 0 or third.max() > 1)
    return torch.from_numpy(joined[..., :2] if is_depth else joined)


def _is_result(item: Any) -> bool:
    return any(hasattr(item, name) for name in ("face_landmarks", "multi_face_landmarks", "landmark"))


def _faces(item: Any, size_hw: tuple[int, int] | None, what: str) -> list[np.ndarray]:
    if item is None:
        return []
    if hasattr(item, "face_landmarks"):
        return [_normalised(face, size_hw, what) for face in item.face_landmarks]
    if hasattr(item, "multi_face_landmarks"):
        return [_normalised(face.landmark, size_hw, what) for face in item.multi_face_landmarks or ()]
    if hasattr(item, "landmark"):
        return [_normalised(item.landmark, size_hw, what)]
    if isinstance(item, list | tuple):
        if len(item) == 0:
            return []
        if hasattr(item[0], "x") and hasattr(item[0], "y"):
            return [_normalised(item, size_hw, what)]
        if _is_result(item[0]) or getattr(item[0], "ndim", 0) == 2 or _depth_of(item) == 3:
            return [face for part in item for face in _faces(part, size_hw, what)]
        if isinstance(item[0], list | tuple) and item[0] and hasattr(item[0][0], "x"):
            return [_normalised(face, size_hw, what) for face in item]
    array = _numbers(item, what)
    if array.size == 0:
        return []
    if array.ndim == 2 and array.shape[1] in (2, 3):
        return [array]
    if array.ndim == 3 and array.shape[2] in (2, 3):
        return list(array)
    raise InputError(
        f"{what}: expected None, (points, 2) or (faces, points, 2), got an array of shape {array.shape}"
    )


def _depth_of(value: Any) -> int:
    """How deeply lists are nested, along their first items."""
    depth = 0
    while isinstance(value, list | tuple) and value:
        depth, value = depth + 1, value[0]
    return depth


def _numbers(item: Any, what: str) -> np.ndarray:
    if isinstance(item, Tensor):
        item = item.detach().cpu().numpy()
    try:
        array = np.asarray(item)
    except ValueError as error:
        raise InputError(f"{what}: no array of numbers ({error})") from error
    if array.dtype == object:
        # A missing coordinate may be None.
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"{what}: no array of numbers ({error})") from error
    if array.dtype.kind not in "fiu":
        raise InputError(f"{what}: expected numbers, got {array.dtype}")
    return array.astype(np.float32)


def _normalised(points: Sequence[Any], size_hw: tuple[int, int] | None, what: str) -> np.ndarray:
    """The pixels of MediaPipe's points, which are parts of the frame's width and height."""
    if size_hw is None:
        raise InputError(
            f"{what}: MediaPipe's points are parts of the frame; the size of the frame is not known"
        )
    height, width = size_hw
    return np.array(
        [(point.x * width - PIXEL_CENTRE, point.y * height - PIXEL_CENTRE) for point in points], np.float32
    )
