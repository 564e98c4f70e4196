"""Frames from whatever the user has: files, folders, patterns, pictures in memory, iterators and captures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuface.errors import InputError
from neuface.frames import DEFAULT_FPS, ArraySource, FirstFrames, evenly_timed
from neuface.io.picture_sequence import (
    PictureSequence,
    is_picture_file,
    pictures_in_folder,
    pictures_of_pattern,
)
from neuface.io.spool import SpooledFrames, capture_fps, captured_frames, is_capture
from neuface.io.video import VideoSource
from neuface.io.views import AlignedViews, ViewTimes, align
from neuface.structs import FrameSource


@dataclass(frozen=True, kw_only=True)
class Footage:
    """Frames and what is known about them."""

    frames: FrameSource
    timestamps_s: tuple[float, ...]
    names: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    """Sentences about what the user should know."""
    chosen: tuple[tuple[int, ...], ...] | None = None
    """For every view, the number of its own frame for every frame of the recording (-1: none); None if equal."""
    whole_time: int
    """How many frames the recording has without `max_frames`."""
    own_lengths: tuple[int, ...] | None = None
    """How many frames every view has by itself; None if as many as the recording has."""


def open_footage(
    inputs: Any,
    *,
    fps: int | float | None = None,
    offsets_s: Sequence[int | float] | None = None,
    max_frames: int | None = None,
) -> Footage:
    """The frames of one or several cameras.

    Args:
        inputs: see `neuface.read_clip`.
        fps: frames per second, instead of the times that files state.
        offsets_s: when each camera's first frame was taken, for files of several cameras.
        max_frames: use only the first so many frames; an endless iterator needs it.

    Raises:
        InputError: something cannot be read, or is not clear.
    """
    if fps is not None and not 0 < fps < float("inf"):
        raise InputError(f"fps: expected a positive number, got {fps}")
    if max_frames is not None and max_frames < 1:
        raise InputError(f"max_frames: expected at least 1, got {max_frames}")
    rate = None if fps is None else float(fps)
    files = _cameras_of_paths(inputs)
    if files is None:
        footage = _from_memory(inputs, rate, max_frames)
    else:
        footage = _from_files([_open_camera(item, rate) for item in files], rate, offsets_s)
        offsets_s = None
    if offsets_s is not None:
        raise InputError("offsets_s: is for files of several cameras; cut arrays to the time they share")
    if max_frames is not None and max_frames < footage.frames.time:
        return Footage(
            frames=FirstFrames(footage.frames, max_frames),
            timestamps_s=footage.timestamps_s[:max_frames],
            names=footage.names,
            remarks=footage.remarks,
            chosen=footage.chosen,
            whole_time=footage.whole_time,
            own_lengths=footage.own_lengths,
        )
    return footage


def _is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)


def _is_path_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(map(_is_path, value))


def _cameras_of_paths(inputs: Any) -> list[Any] | None:
    """One path, or list of pictures' paths, per camera; None if the input is no matter of files."""
    if _is_path(inputs):
        return [inputs]
    if not isinstance(inputs, list | tuple) or not any(
        _is_path(item) or _is_path_list(item) for item in inputs
    ):
        return None
    if not all(_is_path(item) or _is_path_list(item) for item in inputs):
        raise InputError("inputs: a list must hold paths only or arrays only, one per view")
    if not all(map(_is_path, inputs)):
        return list(inputs)
    pictures = [is_picture_file(Path(item)) and _files_of_pattern(item) is None for item in inputs]
    if all(pictures) and len(inputs) > 1:
        return [list(inputs)]
    if any(pictures) and len(inputs) > 1:
        raise InputError(
            "inputs: the list holds both pictures and videos; expected one video, folder or pattern per camera, or "
            "the pictures of one camera"
        )
    return list(inputs)


def _files_of_pattern(item: Any) -> list[Path] | None:
    """The files that a pattern of names means; None for a name that exists as it is, or is no pattern."""
    path = Path(item)
    return None if path.exists() or "://" in str(path) else pictures_of_pattern(os.fspath(item))


def _open_camera(item: Any, fps: float | None) -> VideoSource | PictureSequence:
    rate = DEFAULT_FPS if fps is None else fps
    if not _is_path(item):
        paths = [Path(path) for path in item]
        return PictureSequence(paths, paths[0].parent.name or paths[0].stem, rate)
    path = Path(item)
    if path.is_dir():
        return PictureSequence(pictures_in_folder(path), path.resolve().name, rate)
    found = _files_of_pattern(item)
    if found is None:
        return VideoSource(path)
    if all(map(is_picture_file, found)):
        return PictureSequence(found, path.parent.name or path.stem, rate)
    if len(found) == 1:
        return VideoSource(found[0])
    raise InputError(f"{path}: means {len(found)} files that are not all pictures; give videos by name")


def _from_files(
    cameras: Sequence[VideoSource | PictureSequence],
    fps: float | None,
    offsets_s: Sequence[int | float] | None,
) -> Footage:
    remarks = tuple(remark for camera in cameras for remark in camera.remarks)
    names = tuple(_unique([camera.name for camera in cameras]))
    views = [_times_of(camera, name, fps) for camera, name in zip(cameras, names, strict=True)]
    if len(cameras) == 1:
        if offsets_s is not None and len(offsets_s) != 1:
            raise InputError(f"offsets_s: expected 1 time in seconds, got {list(offsets_s)}")
        return Footage(
            frames=cameras[0],
            timestamps_s=views[0].timestamps_s,
            names=names,
            remarks=remarks,
            whole_time=cameras[0].time,
        )
    line = align(views, offsets_s)
    return Footage(
        frames=AlignedViews(cameras, line.chosen),
        timestamps_s=line.timestamps_s,
        names=names,
        remarks=(*remarks, *line.remarks),
        chosen=line.chosen,
        whole_time=len(line.timestamps_s),
        own_lengths=tuple(camera.time for camera in cameras),
    )


def _times_of(camera: VideoSource | PictureSequence, name: str, fps: float | None) -> ViewTimes:
    """The camera's times; a rate that the user gives replaces what the file says."""
    times = camera.timestamps_s if fps is None else evenly_timed(camera.time, fps)
    step_s = float(np.median(np.diff(times))) if camera.time > 1 else 1 / camera.fps
    return ViewTimes(
        name=name, timestamps_s=times, start_s=camera.start_s if fps is None else 0.0, step_s=step_s
    )


def _from_memory(inputs: Any, fps: float | None, max_frames: int | None) -> Footage:
    rate = DEFAULT_FPS if fps is None else fps
    if isinstance(inputs, FrameSource):
        frames: FrameSource = inputs
        stated = getattr(inputs, "timestamps_s", None) if fps is None else None
        if stated is not None:
            return Footage(
                frames=frames,
                timestamps_s=tuple(stated),
                names=_names_of(frames),
                remarks=tuple(getattr(inputs, "remarks", ())),
                whole_time=frames.time,
            )
    elif is_capture(inputs):
        rate = (capture_fps(inputs) or rate) if fps is None else rate
        frames = SpooledFrames(captured_frames(inputs, max_frames), max_frames, "capture")
    elif _gives_items_once(inputs):
        frames = SpooledFrames(inputs, max_frames)
    else:
        frames = ArraySource(inputs)
    return Footage(
        frames=frames,
        timestamps_s=evenly_timed(frames.time, rate),
        names=_names_of(frames),
        whole_time=frames.time,
    )


def _gives_items_once(value: Any) -> bool:
    """Whether this is an iterator, or another collection of pictures that is neither array nor list."""
    if isinstance(value, list | tuple | dict | str | bytes | set) or hasattr(value, "dtype"):
        return False
    return isinstance(value, Iterable) and not hasattr(value, "getexif")


def _names_of(frames: FrameSource) -> tuple[str, ...]:
    name = getattr(frames, "name", None)
    return (name,) if name and frames.views == 1 else tuple(f"view{view}" for view in range(frames.views))


def _unique(names: list[str]) -> list[str]:
    """Equal file names from several folders get their view's number."""
    if len(set(names)) == len(names):
        return names
    return [f"view{view}_{name}" for view, name in enumerate(names)]
