"""Landmarks given by the caller: arrays of several layouts, checked and brought into one form.

Rules, once for all layouts:
    * A point with a NaN or an infinite coordinate, or at exactly (-1, -1), is missing.
    * A frame whose found points all coincide (an array filled with zeros, say) has no face.
    * Points outside the frame are kept (a face may be cut off), but points further outside than the frame
      is large are missing.
    * An axis of several faces may stand before the points; `neuface.landmarks.tracking` follows them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from neuface.errors import InputError
from neuface.landmarks.plausibility import (
    SMALLEST_COORDINATE_RANGE_PX,
    check_axes,
    check_size,
    looks_like_depth,
)
from neuface.landmarks.program_outputs import faces_of_frames, is_list_of_frames
from neuface.landmarks.schemes import PointLayout, layout_with, layouts_in_words
from neuface.landmarks.tracking.found_faces import FoundFaces, join_views
from neuface.landmarks.tracking.selection import most_present
from neuface.structs import Scheme, Track

FRAMES_PER_PIECE = 512
"""Number of frames that are converted and checked at once, which bounds the memory."""
LAYOUTS = "(frames, points, 2) or (views, frames, points, 2)"

CONFIDENCE_SLACK = 1e-3
"""Bounds how far outside of 0 to 1 a confidence is: many are maxima of float heatmaps, with rounding errors."""


def as_track(
    value: Any, views: int, time: int, *, sizes_hw: Sequence[tuple[int, int]] | None = None
) -> Track:
    """The landmarks of the most present person; arguments and errors are those of `as_faces`."""
    return most_present(as_faces(value, views, time, sizes_hw=sizes_hw))


def as_faces(
    value: Any, views: int, time: int, *, sizes_hw: Sequence[tuple[int, int]] | None = None
) -> FoundFaces:
    """Landmarks in frame pixels from numpy or torch arrays, for a clip of `views` x `time`.

    Args:
        value: `(time, n, 2)`, `(views, time, n, 2)`, a list of one such `(time, n, 2)` array per view,
            `Track`, or `FoundFaces`. A third column is the confidence, 0 to 1; without it every finite point has 1.
            `n` is 68 (`ibug68`), 478 (`mediapipe478`), or one of the orders that are read as those: 51, 98 (WFLW) and
            468; points that are not given are missing. A list with one entry per frame may hold None, arrays of one
            face or of several, or results of MediaPipe (`neuface.landmarks.program_outputs`). An axis of several
            faces may stand before the points, in any order from frame to frame;
            an array without it holds one person's landmarks throughout. All but a `Track` are compared with a face.
        views: Number of cameras of the clip.
        time: Number of frames of the clip.
        sizes_hw: Frame height and width of every view, to recognise points that cannot belong to the frame.

    Returns:
        float32 landmarks; missing points have confidence 0 and position 0 (rules: see the module). Those of a float32
            `Track` in which nothing needs to be marked are its own tensors.

    Raises:
        InputError: The layout, length or number of points does not fit; the third column is no confidence;
            coordinates are not in the frame's pixels; or the faces are mirrored, have swapped axes or are stretched.
    """
    if isinstance(value, Track | FoundFaces):
        given = FoundFaces.of_track(value) if isinstance(value, Track) else value
        faces = _checked_faces(given, views, time, sizes_hw)
    else:
        faces = faces_of_views(_split_views(value, views, time, sizes_hw), time, sizes_hw=sizes_hw)
    if bool((faces.confidence > 0).any()):
        _check_are_pixels(faces.points_px, sizes_hw)
    # A track states its scheme and unit already, and may be of a head that is no person's.
    if bool((faces.confidence > 0).any()) and not isinstance(value, Track):
        ibug68 = list(faces.scheme.to_ibug68)
        check_axes(
            faces.points_px[..., ibug68, :].flatten(0, 2),
            faces.confidence[..., ibug68].flatten(0, 2) > 0,
            "landmarks",
        )
    return faces


def faces_of_views(
    arrays: Sequence[Any],
    time: int,
    scheme: Scheme | None = None,
    *,
    sizes_hw: Sequence[tuple[int, int]] | None = None,
    what: str = "landmarks",
) -> FoundFaces:
    """The faces of several views by the rules of this module.

    Args:
        arrays: One `(time, n, d)` or `(time, faces, n, d)` array per view.
        time: The number of frames that each must have.
        scheme: The numbering of the points. None: their number determines it.
        sizes_hw: As for `as_faces`.
        what: The beginning of error messages.

    Raises:
        InputError: As for `as_faces`.
    """
    labels = [what] if len(arrays) == 1 else [f"{what} of view {view}" for view in range(len(arrays))]
    given = [_numbers(array, label) for array, label in zip(arrays, labels, strict=True)]
    layouts = [_layout_of(array, label, time) for array, label in zip(given, labels, strict=True)]
    points_per_view = sorted({layout.scheme.count for layout in layouts})
    if len(points_per_view) > 1:
        raise InputError(
            f"{what}: the views have different numbers of points, {points_per_view}; "
            "expected one scheme for all views"
        )
    views = []
    for view, (array, layout) in enumerate(zip(given, layouts, strict=True)):
        size = None if sizes_hw is None else sizes_hw[view : view + 1]
        points_px, confidence = _in_scheme(array, layout, labels[view])
        if size is not None:
            check_size(points_px[0], confidence[0], size[0], labels[view])
        _mark_missing(points_px, confidence, size)
        views.append(
            FoundFaces(
                points_px=points_px,
                confidence=confidence,
                scheme=scheme or layout.scheme,
                one_person=array.ndim == 3,
            )
        )
    return join_views(views)


def _checked_faces(
    value: FoundFaces, views: int, time: int, sizes_hw: Sequence[tuple[int, int]] | None
) -> FoundFaces:
    expected = (views, time, value.scheme.count)
    got = (*value.confidence.shape[:2], value.confidence.shape[-1])
    if got != expected:
        raise InputError(
            f"landmarks: expected {value.scheme.name} for {views} view(s) x {time} frame(s) x {expected[2]} "
            f"points, got {got[0]} x {got[1]} x {got[2]}"
        )
    points_px, confidence = value.points_px.float(), value.confidence.float()
    if not _are_marked(points_px, confidence, sizes_hw):
        # What is given stays as it is.
        points_px, confidence = points_px.clone(), confidence.clone()
        _mark_missing(points_px, confidence, sizes_hw)
    return replace(value, points_px=points_px, confidence=confidence)


def _numbers(value: Any, what: str) -> np.ndarray | Tensor:
    """The array itself, if it holds numbers: it may be large, and is converted piece by piece."""
    if isinstance(value, Tensor):
        array = value.detach()
        numeric = not array.is_complex() and array.dtype != torch.bool
    else:
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise InputError(f"{what}: not an array of numbers ({error})") from error
        numeric = array.dtype.kind in "fiu"
    if not numeric:
        raise InputError(f"{what}: expected an array of numbers, got {_describe(value)}")
    return array


def _floats(array: np.ndarray | Tensor) -> Tensor:
    """A copy as float32."""
    if isinstance(array, Tensor):
        return array.to(torch.float32, copy=True)
    return torch.from_numpy(array.astype(np.float32))


def _describe(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    return type(value).__name__ if dtype is None else f"{type(value).__name__} of {dtype}"


def _split_views(value: Any, views: int, time: int, sizes_hw: Sequence[tuple[int, int]] | None) -> list[Any]:
    """One `(time, n, d)` or `(time, faces, n, d)` array per view."""
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = list(value)
    if views == 1 and time == 1 and _is_one_result(value):
        value = [value]
    if views == 1 and is_list_of_frames(value, time):
        return [faces_of_frames(list(value), sizes_hw[0] if sizes_hw else None, "landmarks")]
    if isinstance(value, list | tuple):
        if len(value) != views:
            raise InputError(
                f"landmarks: expected a list of {views} array(s), one per view, or of {time} frames, got a list of "
                f"{len(value)}"
            )
        return [
            faces_of_frames(item, sizes_hw[view] if sizes_hw else None, f"landmarks of view {view}")
            if is_list_of_frames(item, time)
            else item
            for view, item in enumerate(value)
        ]
    array = _numbers(value, "landmarks")
    if array.ndim == 5 or (array.ndim == 4 and tuple(array.shape[:2]) == (views, time)):
        if array.shape[0] != views:
            raise InputError(f"landmarks: expected {views} view(s), got {array.shape[0]}: {_shape(array)}")
        return list(array)
    if views == 1 and time == 1 and array.ndim == 2:
        return [array[None]]
    if views == 1 and array.ndim in (3, 4):
        _check_one_view_not_many(array, time)
        return [array]
    raise InputError(
        f"landmarks: expected {LAYOUTS} with {views} view(s) and {time} frame(s), got {_shape(array)}"
        f"{_axes_hint(tuple(array.shape))}"
    )


def _is_one_result(value: Any) -> bool:
    return any(hasattr(value, name) for name in ("face_landmarks", "multi_face_landmarks", "landmark"))


def _axes_hint(shape: tuple[int, ...]) -> str:
    """What to do about points whose axes are in another order, or in one."""
    if len(shape) >= 2 and shape[-2] in (2, 3) and layout_with(shape[-1]) is not None:
        return "; put the coordinates last: points.swapaxes(-1, -2)"
    if len(shape) == 2 and shape[1] % 2 == 0 and layout_with(shape[1] // 2) is not None:
        return (
            f"; points.reshape(-1, {shape[1] // 2}, 2) if x and y alternate, else "
            f"points.reshape(-1, 2, {shape[1] // 2}).swapaxes(1, 2)"
        )
    return ""


def _check_one_view_not_many(array: np.ndarray | Tensor, time: int) -> None:
    """Four axes are frames x faces for one view; if the second one is the clip's length, they were views."""
    if array.ndim == 4 and array.shape[0] != time and array.shape[1] == time:
        raise InputError(
            f"landmarks: they hold {array.shape[0]} views but the clip has one: {_shape(array)}; "
            "give the landmarks of that view alone"
        )


def _layout_of(array: np.ndarray | Tensor, what: str, time: int) -> PointLayout:
    """The order of one view's points; InputError if the array's shape is not that of landmarks."""
    if array.ndim not in (3, 4) or array.shape[-1] not in (2, 3):
        raise InputError(
            f"{what}: expected (frames, points, 2), or 3 with a confidence column, got {_shape(array)}"
            f"{_axes_hint(tuple(array.shape))}"
        )
    if array.shape[0] != time:
        raise InputError(
            f"{what}: {array.shape[0]} frames of landmarks for a video of {time} frames; "
            "expected one set of landmarks per frame (NaN where there is no face)"
        )
    if 0 in array.shape:
        raise InputError(
            f"{what}: an array of {_shape(array)} has no landmarks; use NaN where there is no face"
        )
    layout = layout_with(array.shape[-2])
    if layout is None:
        raise InputError(
            f"{what}: {array.shape[-2]} points per frame; expected {layouts_in_words()}, got {_shape(array)}"
        )
    return layout


def _in_scheme(
    array: np.ndarray | Tensor, layout: PointLayout, what: str
) -> tuple[Float[Tensor, "1 time faces n 2"], Float[Tensor, "1 time faces n"]]:
    """Points and confidence of one view as float32; what is missing is still NaN."""
    time, faces = array.shape[0], array.shape[1] if array.ndim == 4 else 1
    like = torch.empty(0, device=array.device) if isinstance(array, Tensor) else torch.empty(0)
    points_px = like.new_empty(1, time, faces, layout.scheme.count, 2)
    confidence = like.new_ones(1, time, faces, layout.scheme.count)
    lowest, highest = math.inf, -math.inf
    for frames in _pieces(time):
        piece = _floats(array[frames])
        if piece.shape[-1] == 3:
            third = piece[..., 2][piece[..., 2].isfinite()]
            if len(third):
                lowest, highest = min(lowest, float(third.min())), max(highest, float(third.max()))
        placed = layout.in_scheme(piece).unflatten(0, (1, -1))
        points_px[0, frames] = placed[0, ..., :2].reshape(points_px[0, frames].shape)
        if piece.shape[-1] == 3:
            confidence[0, frames] = placed[0, ..., 2].reshape(confidence[0, frames].shape)
    if lowest < -CONFIDENCE_SLACK or highest > 1 + CONFIDENCE_SLACK:
        raise InputError(
            f"{what}: the third column must be a confidence between 0 and 1, got values from "
            f"{lowest:.3g} to {highest:.3g}; if it is a depth, drop it: points[..., :2]"
        )
    if highest == lowest == 0.0 and bool((points_px.nan_to_num() != 0).any()):
        raise InputError(
            f"{what}: the third column is 0 for every point of every frame, so that no point would count; expected a "
            "confidence between 0 and 1. If it is a depth, drop it: points[..., :2]"
        )
    ibug68 = list(layout.scheme.to_ibug68)
    third = confidence[..., ibug68].flatten(0, 2)
    known = points_px[..., ibug68, :].isfinite().all(-1).flatten(0, 2) & third.isfinite()
    if array.shape[-1] == 3 and looks_like_depth(third, known):
        raise InputError(
            f"{what}: the third column lies between 0 and 1, but is the depth of a face; expected a confidence. Drop "
            "it: points[..., :2]"
        )
    return points_px, confidence


def _pieces(time: int) -> Iterator[slice]:
    """All frames, FRAMES_PER_PIECE at a time."""
    for start in range(0, time, FRAMES_PER_PIECE):
        yield slice(start, min(start + FRAMES_PER_PIECE, time))


def _mark_missing(
    points_px: Float[Tensor, "views time faces n 2"],
    confidence: Float[Tensor, "views time faces n"],
    sizes_hw: Sequence[tuple[int, int]] | None,
) -> None:
    """Set position and confidence to 0 wherever the module's rules call a point missing, and bound the confidence."""
    for frames in _pieces(points_px.shape[1]):
        points, confident = points_px[:, frames], confidence[:, frames]
        found = _found(points, confident, sizes_hw)
        points.masked_fill_(~found[..., None], 0.0)
        confident.clamp_(0, 1).masked_fill_(~found, 0.0)


def _are_marked(
    points_px: Float[Tensor, "views time faces n 2"],
    confidence: Float[Tensor, "views time faces n"],
    sizes_hw: Sequence[tuple[int, int]] | None,
) -> bool:
    """Whether `_mark_missing` would change nothing: a long clip's landmarks are not copied without need."""
    for frames in _pieces(points_px.shape[1]):
        points, confident = points_px[:, frames], confidence[:, frames]
        found = _found(points, confident, sizes_hw)
        is_marked = (confident == 0) & (points == 0).all(-1)
        if not bool(torch.where(found, confident <= 1, is_marked).all()):
            return False
    return True


def _found(
    points: Float[Tensor, "views time faces n 2"],
    confidence: Float[Tensor, "views time faces n"],
    sizes_hw: Sequence[tuple[int, int]] | None,
) -> Bool[Tensor, "views time faces n"]:
    """Which points the module's rules do not call missing."""
    found = points.isfinite().all(-1) & confidence.isfinite() & (confidence > 0)
    found &= ~(points == -1).all(-1)
    if sizes_hw is not None:
        size_xy = points.new_tensor([(width, height) for height, width in sizes_hw])[:, None, None, None]
        found &= ((points > -size_xy) & (points < 2 * size_xy)).all(-1)
    lowest = points.masked_fill(~found[..., None], float("inf")).amin(-2)
    highest = points.masked_fill(~found[..., None], float("-inf")).amax(-2)
    return found & (highest > lowest).any(-1)[..., None]


def _check_are_pixels(
    points: Float[Tensor, "views time faces n 2"], sizes_hw: Sequence[tuple[int, int]] | None
) -> None:
    if sizes_hw is not None and max(max(size) for size in sizes_hw) <= SMALLEST_COORDINATE_RANGE_PX:
        return
    largest = max(abs(float(value)) for value in points.aminmax())
    if largest <= SMALLEST_COORDINATE_RANGE_PX:
        raise InputError(
            f"landmarks: no coordinate exceeds {largest:.3g}, so they look normalised; expected pixels "
            "of the frame: multiply x by the frame's width and y by its height"
        )


def _shape(array: np.ndarray | Tensor) -> str:
    return f"shape {tuple(array.shape)}"
