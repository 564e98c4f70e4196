"""Recordings: frames with their times, and where frames come from.

`Recording` is what cameras saw, `Clip` a recording and one person's track in it. Frame sources are arrays in memory,
and sources made of others: several views, the first frames, some of the views. No file is opened here; videos are
read by `neuface.io.video`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from neuface.errors import InputError
from neuface.geometry.perspective import PerspectiveCamera
from neuface.geometry.uneven_times import frame_times_of
from neuface.pictures import PictureArray, is_picture, is_pil, picture, video_array
from neuface.structs import ONLY_ONE, FrameSource, Selection, Track

DEFAULT_FPS = 25.0
"""Frames per second of arrays and pictures, for which no rate is known."""
FPS_DIGITS = 6
"""Decimals of a frame rate that is computed from time stamps, whose rounding errors are smaller."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What synchronised cameras saw.

    Raises:
        InputError: the time stamps, the names or the cameras do not fit the frames, or the time stamps are not finite
            and increasing.
    """

    frames: FrameSource
    timestamps_s: tuple[float, ...]
    """When each frame was taken, seconds; the same for all views."""
    names: tuple[str, ...]
    """One name per view."""
    cameras: PerspectiveCamera | None = None
    """The calibration, one camera per view, if it is known."""
    metric: bool = True
    """Whether the unit of the cameras' translations is the metre; otherwise it is not known."""
    remarks: tuple[str, ...] = ()
    """Sentences about the input that the user should know: lost frames, uneven steps, scaled pixels."""
    shot_starts: tuple[int, ...] = (0,)
    """The first frames of the shots: 0, and each frame after a cut. Nothing is smoothed across a cut."""

    def __post_init__(self) -> None:
        times = self.timestamps_s
        increasing = all(a < b for a, b in pairwise(times)) and all(map(math.isfinite, times))
        if len(times) != self.frames.time or not increasing:
            raise InputError(
                f"timestamps_s: expected {self.frames.time} increasing times in finite seconds, one per frame, got "
                f"{len(times)}{'' if increasing else ', not all of them later than the one before'}"
            )
        if len(self.names) != self.frames.views or len(set(self.names)) != len(self.names):
            raise InputError(
                f"names: expected {self.frames.views} different name(s), one per view, got {self.names!r}"
            )
        if self.cameras is not None and self.cameras.K.shape[:-2] != (self.frames.views,):
            raise InputError(
                f"cameras: expected {self.frames.views} camera(s), one per view, got K of shape "
                f"{tuple(self.cameras.K.shape)}"
            )
        rising = all(a < b for a, b in pairwise((*self.shot_starts, self.frames.time)))
        if self.shot_starts[:1] != (0,) or not rising:
            raise InputError(
                f"shot_starts: expected 0 and then rising numbers of the {self.frames.time} frames, got "
                f"{self.shot_starts}"
            )

    @property
    def views(self) -> int:
        return self.frames.views

    @property
    def time(self) -> int:
        return self.frames.time

    @property
    def sizes_hw(self) -> list[tuple[int, int]]:
        """Frame height and width of every view."""
        return [self.frames.size_hw(view) for view in range(self.views)]

    @property
    def fps(self) -> float:
        """Mean number of frames per second; that of an ordinary video for a single frame."""
        if self.time < 2:
            return DEFAULT_FPS
        return round((self.time - 1) / (self.timestamps_s[-1] - self.timestamps_s[0]), FPS_DIGITS)

    @property
    def frame_times(self) -> tuple[float, ...] | None:
        """The times in units of the usual step between frames; None if they are evenly spaced."""
        return frame_times_of(self.timestamps_s)

    def some_views(self, kept: Sequence[int]) -> Recording:
        """The recording of some of the cameras, in the order of `kept`."""
        return Recording(
            frames=SomeViews(self.frames, kept),
            timestamps_s=self.timestamps_s,
            names=tuple(self.names[view] for view in kept),
            cameras=None if self.cameras is None else self.cameras[list(kept)],
            metric=self.metric,
            remarks=self.remarks,
            shot_starts=self.shot_starts,
        )


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A recording and one person's track in it: what is fitted."""

    recording: Recording
    track: Track
    selection: Selection = ONLY_ONE
    """How many people there were and who was taken."""

    @property
    def views(self) -> int:
        return self.recording.views

    @property
    def time(self) -> int:
        return self.recording.time


def evenly_timed(time: int, fps: float) -> tuple[float, ...]:
    """The time stamps of frames that are taken at a constant rate, seconds.

    >>> evenly_timed(3, 4.0)
    (0.0, 0.25, 0.5)
    """
    return tuple(frame / fps for frame in range(time))


class ArraySource:
    """Frames in memory as a `FrameSource`.

    Takes numpy or torch: `(time, h, w, 3)` for one view, `(views, time, h, w, 3)`, a list of pictures (arrays, or
    those of PIL) for one view, or a list with one such array or list per view, whose sizes may differ. Other forms of
    pictures that are accepted: see `neuface.pictures`.

    Raises:
        InputError: Another type, shape or range of numbers, no frames, or views of different length.
    """

    def __init__(self, frames: Any) -> None:
        views = [_view(value, what) for value, what in _views_in(frames)]
        _check_equal_lengths([f"view {view}" for view in range(len(views))], [len(view) for view in views])
        self._views = views

    @property
    def views(self) -> int:
        return len(self._views)

    @property
    def time(self) -> int:
        return len(self._views[0])

    def size_hw(self, view: int) -> tuple[int, int]:
        check_view(self, view)
        return self._views[view].size_hw

    def read(self, view: int, start: int, stop: int) -> UInt8[Tensor, "n h w 3"]:
        """A copy of frames `start <= t < stop`, on the CPU."""
        check_range(self, view, start, stop)
        return self._views[view].read(start, stop)


class _PictureList:
    """Pictures of one size in a list, converted as they are read."""

    def __init__(self, values: Sequence[Any], what: str) -> None:
        self._pictures = [picture(value, f"{what}, picture {index}") for index, value in enumerate(values)]
        self.size_hw = self._pictures[0].size_hw
        for index, item in enumerate(self._pictures):
            if item.size_hw != self.size_hw:
                raise InputError(
                    f"{what}, picture {index}: is {item.size_hw}, the first is {self.size_hw} (height, width); "
                    "expected frames of one size"
                )

    def __len__(self) -> int:
        return len(self._pictures)

    def read(self, start: int, stop: int) -> UInt8[Tensor, "n h w 3"]:
        if start == stop:
            return torch.zeros((0, *self.size_hw, 3), dtype=torch.uint8)
        return torch.cat([item.read(0, 1) for item in self._pictures[start:stop]])


def _views_in(frames: Any) -> list[tuple[Any, str]]:
    """What is given for each view, and how errors name it."""
    if isinstance(frames, np.ndarray) and frames.dtype == object:
        frames = list(frames)
    if isinstance(frames, list | tuple):
        if not frames:
            raise InputError("frames: no views; expected (time, h, w, 3) for at least one camera")
        pictures = [is_picture(item) for item in frames]
        if all(pictures):
            return [(list(frames), "frames")]
        if any(pictures):
            raise InputError(
                "frames: the list holds both pictures and videos; expected pictures of one camera, or one video "
                "per camera"
            )
        return [(item, f"frames of view {view}") for view, item in enumerate(frames)]
    if getattr(frames, "ndim", None) == 5:
        return [(item, f"frames of view {view}") for view, item in enumerate(frames)]
    return [(frames, "frames")]


def _view(value: Any, what: str) -> PictureArray | _PictureList:
    if isinstance(value, list | tuple) and value:
        return _PictureList(value, what)
    return picture(value, what) if is_pil(value) else video_array(value, what)


class MultiSource:
    """Several sources as the views of one, in their order.

    Raises:
        InputError: No sources, or sources of different length (`names` says which is which).
    """

    def __init__(self, sources: Sequence[FrameSource], names: Sequence[str] | None = None) -> None:
        if not sources:
            raise InputError("no views: expected at least one video")
        labels = [getattr(source, "name", f"view {index}") for index, source in enumerate(sources)]
        _check_equal_lengths(list(names or labels), [source.time for source in sources])
        self._views = [(source, view) for source in sources for view in range(source.views)]
        self.files = tuple(file for source in sources for file in files_of(source))

    @property
    def views(self) -> int:
        return len(self._views)

    @property
    def time(self) -> int:
        return self._views[0][0].time

    def size_hw(self, view: int) -> tuple[int, int]:
        check_view(self, view)
        source, inner = self._views[view]
        return source.size_hw(inner)

    def read(self, view: int, start: int, stop: int) -> UInt8[Tensor, "n h w 3"]:
        check_range(self, view, start, stop)
        source, inner = self._views[view]
        return source.read(inner, start, stop)


class FirstFrames:
    """The first `time` frames of another source (all of them if it has fewer)."""

    def __init__(self, source: FrameSource, time: int) -> None:
        self._source = source
        self.views = source.views
        self.time = min(time, source.time)
        self.files = files_of(source)

    def size_hw(self, view: int) -> tuple[int, int]:
        return self._source.size_hw(view)

    def read(self, view: int, start: int, stop: int) -> UInt8[Tensor, "n h w 3"]:
        check_range(self, view, start, stop)
        return self._source.read(view, start, stop)


class SomeViews:
    """Some views of another source, in the order of `kept`."""

    def __init__(self, source: FrameSource, kept: Sequence[int]) -> None:
        self._source, self._kept = source, tuple(kept)
        self.views, self.time = len(kept), source.time
        self.files = files_of(source)

    def size_hw(self, view: int) -> tuple[int, int]:
        return self._source.size_hw(self._inner(view))

    def read(self, view: int, start: int, stop: int) -> UInt8[Tensor, "n h w 3"]:
        return self._source.read(self._inner(view), start, stop)

    def _inner(self, view: int) -> int:
        check_view(self, view)
        return self._kept[view]


def files_of(source: FrameSource) -> tuple[str, ...]:
    """The files from which frames are read, as far as the source knows."""
    return tuple(getattr(source, "files", ()))


def check_view(source: FrameSource, view: int) -> None:
    """Raises InputError for a view that the source does not have."""
    if not 0 <= view < source.views:
        raise InputError(f"view {view} does not exist: expected 0 to {source.views - 1}")


def check_range(source: FrameSource, view: int, start: int, stop: int) -> None:
    """Raises InputError for a view or for frames that the source does not have."""
    check_view(source, view)
    if not 0 <= start <= stop <= source.time:
        raise InputError(f"frames {start} to {stop} do not exist: the clip has {source.time} frames")


def _check_equal_lengths(names: Sequence[str], lengths: Sequence[int]) -> None:
    if len(set(lengths)) > 1:
        listed = ", ".join(f"{name}: {length}" for name, length in zip(names, lengths, strict=True))
        raise InputError(
            f"the views have different numbers of frames ({listed}); expected synchronised views of equal "
            "length: cut them to the frames they share"
        )
