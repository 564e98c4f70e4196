"""Landmarks given by the caller: arrays of several layouts, checked and brought into one form.

Rules, once for all layouts:
    * A point with a NaN or an infinite coordinate, or at exactly (-1, -1), is missing.
    * A frame whose found points all coincide (an array filled with zeros, say) has no face.
    * Points outside the frame are kept (a face may be cut off), but points further outside than the frame
      is large are missing.
    * With several faces per frame, one is followed: the largest of the first frame that has any, then in each
      frame the one whose centre is nearest to where it was last seen. If even that one is further away than
      the followed face was large, the face is missing in that frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuface.errors import InputError
from neuface.landmarks.schemes import MEDIAPIPE478, MEDIAPIPE_MESH_POINTS, scheme_with
from neuface.structs import Scheme, Track

LAYOUTS = "(frames, points, 2) or (views, frames, points, 2)"

# Confidences are often maxima of float heatmaps: rounding may push them this far outside 0..1.
CONFIDENCE_SLACK = 1e-3

# A face spans more than this in pixels; smaller coordinates mean the caller divided by the frame size.
SMALLEST_COORDINATE_RANGE_PX = 2.0


def as_track(
    value: Any, views: int, time: int, *, sizes_hw: Sequence[tuple[int, int]] | None = None
) -> Track:
    """Landmarks in frame pixels from numpy or torch arrays, for a clip of `views` x `time`.

    Args:
        value: `(time, n, 2)`, `(views, time, n, 2)`, a list of one such `(time, n, 2)` array per view, or
            `Track`. A third column is the confidence, 0 to 1; without it every finite point has 1.
            `n` is 68 (`ibug68`), 478 (`mediapipe478`) or 468 (MediaPipe without the irises, which become
            missing points). An axis of several faces may stand before the points: one face is followed.
        views: Number of cameras of the clip.
        time: Number of frames of the clip.
        sizes_hw: Frame height and width of every view, to recognise points that cannot belong to the frame.

    Returns:
        float32 landmarks; missing points have confidence 0 and position 0 (rules: see the module).

    Raises:
        InputError: The layout, length or number of points does not fit; the third column is no confidence;
            coordinates are not in pixels; or no view has a landmark in any frame.
    """
    if isinstance(value, Track):
        landmarks = _checked_track(value, views, time, sizes_hw)
    else:
        landmarks = track_of_views(_split_views(value, views, time), time, sizes_hw=sizes_hw)
    if not bool(landmarks.found.any()):
        raise InputError(
            "landmarks: no frame of any view has a landmark (all are NaN or have confidence 0); expected a "
            "face in at least one frame. Check the detector's output, or the video"
        )
    _check_are_pixels(landmarks.points_px, sizes_hw)
    return landmarks


def track_of_views(
    arrays: Sequence[Any],
    time: int,
    scheme: Scheme | None = None,
    *,
    sizes_hw: Sequence[tuple[int, int]] | None = None,
    what: str = "landmarks",
) -> Track:
    """Landmarks by the rules of this module, whether or not there is a face.

    Args:
        arrays: One `(time, n, d)` or `(time, faces, n, d)` array per view.
        time: The number of frames that each must have.
        scheme: The numbering of the points. None: their number determines it.
        sizes_hw: As for `as_track`.
        what: The beginning of error messages.

    Raises:
        InputError: As for `as_track`.
    """
    labels = [what] if len(arrays) == 1 else [f"{what} of view {view}" for view in range(len(arrays))]
    tensors = [_to_float_tensor(array, label) for array, label in zip(arrays, labels, strict=True)]
    per_view = [_one_view(tensor, label, time) for tensor, label in zip(tensors, labels, strict=True)]
    points_per_view = sorted({array.shape[1] for array in per_view})
    if len(points_per_view) > 1:
        raise InputError(
            f"{what}: the views have different numbers of points, {points_per_view}; "
            "expected one scheme for all views"
        )
    raw = torch.stack(per_view)
    points_px, confidence = _mark_missing(raw[..., :2], raw[..., 2], sizes_hw)
    known = scheme or scheme_with(raw.shape[-2])
    assert known is not None, "_one_view refuses numbers of points that no scheme has"
    return Track(points_px=points_px, confidence=confidence, scheme=known)


def _checked_track(value: Track, views: int, time: int, sizes_hw: Sequence[tuple[int, int]] | None) -> Track:
    expected = (views, time, value.scheme.count)
    got = tuple(value.confidence.shape)
    if got != expected:
        raise InputError(
            f"landmarks: expected {value.scheme.name} for {views} view(s) x {time} frame(s) x {expected[2]} "
            f"points, got {got[0]} x {got[1]} x {got[2]}"
        )
    points_px, confidence = _mark_missing(value.points_px.float(), value.confidence.float(), sizes_hw)
    return replace(value, points_px=points_px, confidence=confidence)


def _to_float_tensor(value: Any, what: str) -> Tensor:
    if isinstance(value, Tensor):
        tensor = value.detach()
        numeric = not tensor.is_complex() and tensor.dtype != torch.bool
    else:
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise InputError(f"{what}: not an array of numbers ({error})") from error
        numeric = array.dtype.kind in "fiu"
        tensor = torch.from_numpy(array.astype(np.float32)) if numeric else torch.empty(0)
    if not numeric:
        raise InputError(f"{what}: expected an array of numbers, got {_describe(value)}")
    return tensor.float()


def _describe(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    return type(value).__name__ if dtype is None else f"{type(value).__name__} of {dtype}"


def _split_views(value: Any, views: int, time: int) -> list[Any]:
    """One `(time, n, d)` or `(time, faces, n, d)` array per view."""
    if isinstance(value, list | tuple):
        if len(value) != views:
            raise InputError(
                f"landmarks: expected a list of {views} array(s), one per view, got a list of {len(value)}"
            )
        return list(value)
    array = _to_float_tensor(value, "landmarks")
    if array.ndim == 5 or (array.ndim == 4 and tuple(array.shape[:2]) == (views, time)):
        if array.shape[0] != views:
            raise InputError(f"landmarks: expected {views} view(s), got {array.shape[0]}: {_shape(array)}")
        return list(array.unbind(0))
    if views == 1 and array.ndim in (3, 4):
        _check_one_view_not_many(array, time)
        return [array]
    raise InputError(
        f"landmarks: expected {LAYOUTS} with {views} view(s) and {time} frame(s), got {_shape(array)}"
    )


def _check_one_view_not_many(array: Tensor, time: int) -> None:
    """Four axes are frames x faces for one view; if the second one is the clip's length, they were views."""
    if array.ndim == 4 and array.shape[0] != time and array.shape[1] == time:
        raise InputError(
            f"landmarks: they hold {array.shape[0]} views but the clip has one: {_shape(array)}; "
            "give the landmarks of that view alone"
        )


def _one_view(array: Tensor, what: str, time: int) -> Float[Tensor, "time n 3"]:
    """Checked points and confidence of one view; missing points are still NaN."""
    if array.ndim not in (3, 4) or array.shape[-1] not in (2, 3):
        raise InputError(
            f"{what}: expected (frames, points, 2), or 3 with a confidence column, got {_shape(array)}"
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
    if scheme_with(array.shape[-2]) is None:
        raise InputError(
            f"{what}: {array.shape[-2]} points per frame; expected 68 (iBUG), 478 (MediaPipe) or "
            f"468 (MediaPipe without irises), got {_shape(array)}"
        )
    if array.shape[-1] == 2:
        array = torch.cat([array, torch.ones_like(array[..., :1])], dim=-1)
    confidence = array[..., 2][array[..., 2].isfinite()]
    if bool((confidence < -CONFIDENCE_SLACK).any() | (confidence > 1 + CONFIDENCE_SLACK).any()):
        raise InputError(
            f"{what}: the third column must be a confidence between 0 and 1, got values from "
            f"{confidence.min():.3g} to {confidence.max():.3g}; if it is a depth, drop it: points[..., :2]"
        )
    if array.shape[-2] == MEDIAPIPE_MESH_POINTS:
        irises = MEDIAPIPE478.count - MEDIAPIPE_MESH_POINTS
        array = torch.cat([array, array.new_zeros(*array.shape[:-2], irises, 3)], dim=-2)
    return follow_one_face(array) if array.ndim == 4 else array


def follow_one_face(faces: Float[Tensor, "time faces n 3"]) -> Float[Tensor, "time n 3"]:
    """The track of one face (x, y, confidence) by the rule of this module; NaN where it is not seen."""
    found = faces.isfinite().all(-1) & (faces[..., 2] > 0)
    x_y = faces[..., :2]
    lowest = x_y.masked_fill(~found[..., None], float("inf")).amin(-2)
    highest = x_y.masked_fill(~found[..., None], float("-inf")).amax(-2)
    centres, sizes = (lowest + highest) / 2, (highest - lowest).amax(-1)
    has_face = found.any(-1)

    track = torch.full_like(faces[:, 0], float("nan"))
    last_centre: Tensor | None = None
    last_size = faces.new_zeros(())
    for frame in range(len(faces)):
        present = has_face[frame].nonzero()[:, 0]
        if len(present) == 0:
            continue
        if last_centre is None:
            chosen = present[sizes[frame, present].argmax()]
        else:
            distances = torch.linalg.vector_norm(centres[frame, present] - last_centre, dim=-1)
            if distances.min() > last_size:
                continue
            chosen = present[distances.argmin()]
        track[frame] = faces[frame, chosen]
        last_centre, last_size = centres[frame, chosen], sizes[frame, chosen]
    return track


def _mark_missing(
    points: Float[Tensor, "views time n 2"],
    confidence: Float[Tensor, "views time n"],
    sizes_hw: Sequence[tuple[int, int]] | None,
) -> tuple[Float[Tensor, "views time n 2"], Float[Tensor, "views time n"]]:
    """Position and confidence 0 wherever the module's rules call a point missing."""
    found = points.isfinite().all(-1) & confidence.isfinite() & (confidence > 0)
    found &= ~(points == -1).all(-1)
    if sizes_hw is not None:
        size_xy = points.new_tensor([(width, height) for height, width in sizes_hw])[:, None, None]
        found &= ((points > -size_xy) & (points < 2 * size_xy)).all(-1)
    lowest = points.masked_fill(~found[..., None], float("inf")).amin(-2)
    highest = points.masked_fill(~found[..., None], float("-inf")).amax(-2)
    found &= (highest > lowest).any(-1)[..., None]
    return points.masked_fill(~found[..., None], 0.0), confidence.clamp(0, 1).masked_fill(~found, 0.0)


def _check_are_pixels(
    points: Float[Tensor, "views time n 2"], sizes_hw: Sequence[tuple[int, int]] | None
) -> None:
    if sizes_hw is not None and max(max(size) for size in sizes_hw) <= SMALLEST_COORDINATE_RANGE_PX:
        return
    largest = float(points.abs().max())
    if largest <= SMALLEST_COORDINATE_RANGE_PX:
        raise InputError(
            f"landmarks: no coordinate exceeds {largest:.3g}, so they look normalised; expected pixels "
            "of the frame: multiply x by the frame's width and y by its height"
        )


def _shape(array: Tensor) -> str:
    return f"shape {tuple(array.shape)}"
