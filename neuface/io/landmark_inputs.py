"""The landmarks that a caller gives for a recording: files or values, matched to its views and frames."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch

from neuface.errors import InputError
from neuface.io.inputs import Footage
from neuface.io.landmarks import read_faces
from neuface.io.views import ABSENT
from neuface.landmarks.arrays import as_faces
from neuface.landmarks.tracking.found_faces import FoundFaces, join_views


def given_faces(landmarks: Any, footage: Footage) -> FoundFaces:
    """All faces of a recording, from what `neuface.read_clip` takes as landmarks.

    Landmarks may cover all frames of the files, or only those that are used (`max_frames`, the frames of views that
    are matched by time).

    Raises:
        InputError: they cannot be read, or fit neither.
    """
    views, time = footage.frames.views, footage.frames.time
    sizes_hw = [footage.frames.size_hw(view) for view in range(views)]
    if isinstance(landmarks, list | tuple) and any(map(_is_path, landmarks)):
        if not all(map(_is_path, landmarks)):
            raise InputError("landmarks: a list must hold paths only or arrays only, one per view")
        if len(landmarks) != views:
            raise InputError(
                f"landmarks: {len(landmarks)} file(s) for a clip of {views} view(s); expected one file per view"
            )
    if isinstance(landmarks, list | tuple) and len(landmarks) == views and views > 1:
        each = [
            _of_view(item, view, footage, sizes_hw[view : view + 1]) for view, item in enumerate(landmarks)
        ]
        _check_alike(landmarks, each)
        return join_views(each)
    if isinstance(landmarks, list | tuple) and len(landmarks) == 1 and _is_path(landmarks[0]):
        landmarks = landmarks[0]
    lengths = (footage.whole_time, time, *(footage.own_lengths or ()))
    if isinstance(landmarks, str | os.PathLike):
        name = os.fspath(landmarks)
        landmarks = read_faces(landmarks, views=views, lengths=lengths)
        if len(landmarks.points_px) != views:
            raise InputError(
                f"{name}: has landmarks of {len(landmarks.points_px)} view(s), the clip has {views}; "
                "expected one file with all views, or a list with one file per view"
            )
    if views == 1:
        return _of_view(landmarks, 0, footage, sizes_hw)
    return _with_any_length(landmarks, views, (footage.whole_time, time), sizes_hw)[:, :time]


def _is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)


def _of_view(item: Any, view: int, footage: Footage, size_hw: Sequence[tuple[int, int]]) -> FoundFaces:
    """One view's faces in the frames that are used."""
    time = footage.frames.time
    own = footage.own_lengths[view] if footage.own_lengths else footage.whole_time
    lengths = (own, footage.whole_time, time)
    if _is_path(item):
        item = read_faces(item, views=1, lengths=lengths)
    faces = _with_any_length(item, 1, lengths, size_hw)
    if footage.chosen is None or faces.points_px.shape[1] != own:
        return faces[:, :time]
    numbers = torch.tensor(footage.chosen[view][:time])
    taken = faces[:, numbers.clamp(min=0)]
    absent = numbers == ABSENT
    return taken.map_tensors(
        lambda values: values.masked_fill(absent.view(1, -1, *[1] * (values.ndim - 2)), 0)
    )


def _with_any_length(
    value: Any, views: int, lengths: Sequence[int], sizes_hw: Sequence[tuple[int, int]]
) -> FoundFaces:
    """The faces of a value that has one of these numbers of frames; the error is about the first of them."""
    first: InputError | None = None
    for time in dict.fromkeys(lengths):
        try:
            return as_faces(value, views, time, sizes_hw=sizes_hw)
        except InputError as error:
            first = first or error
    assert first is not None, "there is at least one length"
    raise first


def _check_alike(given: Sequence[Any], each: Sequence[FoundFaces]) -> None:
    schemes = {item.scheme.name for item in each}
    if len(schemes) > 1:
        listed = ", ".join(
            f"{os.fspath(item) if _is_path(item) else f'view {view}'}: {faces.scheme.name}"
            for view, (item, faces) in enumerate(zip(given, each, strict=True))
        )
        raise InputError(f"landmarks: the views differ in scheme ({listed}); expected one for all")
