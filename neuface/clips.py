"""`read_clip`: frames and landmarks brought together and checked, ready to be fitted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from tqdm import tqdm

from neuface.errors import InputError
from neuface.frames import DEFAULT_FPS, ArraySource, Clip, FirstFrames, MultiSource, Recording, evenly_timed
from neuface.io.landmarks import read_landmarks
from neuface.io.video import VideoSource
from neuface.landmarks.arrays import as_track
from neuface.landmarks.detectors import Detector, FaceAlignmentDetector
from neuface.structs import FrameSource, Track

FRAMES_PER_DETECTION = 16


def read_clip(
    inputs: Any,
    landmarks: Any = None,
    *,
    detector: Detector | None = None,
    max_frames: int | None = None,
    fps: int | float | None = None,
    names: Sequence[str] | None = None,
    progress: bool = False,
) -> Clip:
    """A face video and one person's landmarks in it, from almost any form of frames.

    Args:
        inputs: The path of a video or picture, a list of them (synchronised views), uint8 RGB frames
            `(time, h, w, 3)` or `(views, time, h, w, 3)`, a list of such arrays (views), a `FrameSource`,
            or a `Clip`, which is returned as it is.
        landmarks: Frame pixels: arrays as `as_track` takes them, `Track`, the path of a landmark file
            (all views) or a list of paths (one per view). None: the detector finds them.
        detector: Finds the landmarks if none are given; the default is `FaceAlignmentDetector`.
        max_frames: Use only the first so many frames (of landmarks, too).
        fps: Frames per second; the default is the first video's, or 25 for arrays.
        names: One name per view; the default is the file names, or `view0`, `view1`, ...
        progress: Show a progress bar while landmarks are detected.

    Returns:
        The clip. `clip.track.usable` marks the frames with at least 6 landmarks.

    Raises:
        InputError: Frames or landmarks that cannot be used or do not fit each other, or no face at all.
        MissingDependencyError: Landmarks must be detected and the detector's package or weights are missing.
    """
    if isinstance(inputs, Clip):
        _refuse_more(landmarks=landmarks, detector=detector, max_frames=max_frames, fps=fps, names=names)
        return inputs
    whole, default_names, default_fps = _open_frames(inputs)
    view_names = _checked_names(names, default_names)
    rate = default_fps if fps is None else fps
    if not 0 < rate < float("inf"):
        raise InputError(f"fps: expected a positive number, got {fps}")
    if max_frames is not None and max_frames < 1:
        raise InputError(f"max_frames: expected at least 1, got {max_frames}")
    frames = whole if max_frames is None else FirstFrames(whole, max_frames)
    recording = Recording(
        frames=frames, timestamps_s=evenly_timed(frames.time, float(rate)), names=view_names
    )
    if landmarks is None:
        track = _detect(frames, detector or FaceAlignmentDetector(), progress)
    else:
        given = _load_if_path(landmarks, whole.views)
        track = as_track(given, whole.views, whole.time, sizes_hw=recording.sizes_hw)[:, : frames.time]
    if not bool(track.found.any()):
        raise InputError(
            f"no face in any of the {frames.time} frame(s) of {', '.join(view_names)}; "
            "expected a face in at least one. Check the video, or give landmarks= yourself"
        )
    return Clip(recording=recording, track=track)


def _refuse_more(**given: Any) -> None:
    """A clip is whole: what else is given would be left out without a word."""
    further = ", ".join(name for name, value in given.items() if value is not None)
    if further:
        raise InputError(
            f"a Clip has its own {further} already: give the frames or paths instead, or the Clip alone "
            "(dataclasses.replace makes another one of it)"
        )


def _is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)


def _open_frames(inputs: Any) -> tuple[FrameSource, list[str], float]:
    """The frames, a name per view and the frames per second."""
    if _is_path(inputs):
        video = VideoSource(inputs)
        return video, [video.name], video.fps
    if isinstance(inputs, list | tuple) and any(_is_path(item) for item in inputs):
        if not all(_is_path(item) for item in inputs):
            raise InputError("inputs: a list must hold paths only or arrays only, one per view")
        videos = [VideoSource(item) for item in inputs]
        labels = _unique([video.name for video in videos])
        return MultiSource(videos, labels), labels, videos[0].fps
    source = inputs if isinstance(inputs, FrameSource) else ArraySource(inputs)
    return source, [f"view{view}" for view in range(source.views)], DEFAULT_FPS


def _unique(names: list[str]) -> list[str]:
    """Equal file names from several folders get their view's number."""
    if len(set(names)) == len(names):
        return names
    return [f"view{view}_{name}" for view, name in enumerate(names)]


def _checked_names(names: Sequence[str] | None, default: list[str]) -> tuple[str, ...]:
    if names is None:
        return tuple(default)
    if isinstance(names, str) or len(names) != len(default) or len(set(names)) != len(names):
        raise InputError(f"names: expected {len(default)} different name(s), one per view, got {names!r}")
    return tuple(names)


def _load_if_path(landmarks: Any, views: int) -> Any:
    """The landmarks of files; anything else as it is."""
    if _is_path(landmarks):
        found = read_landmarks(landmarks)
        if len(found.points_px) != views:
            raise InputError(
                f"{os.fspath(landmarks)}: has landmarks of {len(found.points_px)} view(s), the clip has {views}; "
                "expected one file with all views, or a list with one file per view"
            )
        return found
    if isinstance(landmarks, list | tuple) and any(_is_path(item) for item in landmarks):
        if not all(_is_path(item) for item in landmarks):
            raise InputError("landmarks: a list must hold paths only or arrays only, one per view")
        return _joined_views(landmarks, [read_landmarks(path) for path in landmarks], views)
    return landmarks


def _joined_views(paths: Sequence[Any], files: Sequence[Track], views: int) -> Track:
    """The landmarks of several files as the views of one clip."""
    found = sum(len(item.points_px) for item in files)
    if len(files) != views or found != views:
        raise InputError(
            f"landmarks: {len(files)} file(s) with {found} view(s) for a clip of {views} "
            "view(s); expected one file per view"
        )
    kinds = {(item.points_px.shape[1], item.scheme.name) for item in files}
    if len(kinds) > 1:
        listed = ", ".join(
            f"{os.fspath(path)}: {item.points_px.shape[1]} frames of {item.scheme.name}"
            for path, item in zip(paths, files, strict=True)
        )
        raise InputError(f"landmarks: the files differ in length or scheme ({listed}); expected one for all")
    return Track.cat(files)


def _detect(frames: FrameSource, detector: Detector, progress: bool) -> Track:
    points, confidence = [], []
    total = frames.views * frames.time
    with tqdm(total=total, desc="landmarks", unit="frame", disable=not progress) as bar:
        for view in range(frames.views):
            for start in range(0, frames.time, FRAMES_PER_DETECTION):
                stop = min(start + FRAMES_PER_DETECTION, frames.time)
                found_px, found_confidence = detector.detect(frames.read(view, start, stop))
                points.append(found_px)
                confidence.append(found_confidence)
                bar.update(stop - start)
    sizes = (frames.views, frames.time)
    return Track(
        points_px=torch.cat(points).unflatten(0, sizes),
        confidence=torch.cat(confidence).unflatten(0, sizes),
        scheme=detector.scheme,
    )
