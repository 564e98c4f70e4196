"""Videos and pictures as files, read and written by PyAV."""

from __future__ import annotations

import itertools
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from neuface.errors import InputError
from neuface.frames import check_range, check_view
from neuface.geometry.uneven_times import frame_times_of
from neuface.io.atomic import atomic_path
from neuface.io.video_index import index_of
from neuface.io.video_streams import open_video

CACHE_BYTES = 64 * 2**20
"""Bounds the memory of recently read frames, bytes."""
QUALITY_CRF = "18"
"""libx264's constant rate factor: visually lossless, so that measured pictures stay comparable."""
LARGEST_FPS_DENOMINATOR = 1001
"""Bounds the denominator of a written frame rate; containers want small integers, and 30000/1001 is exact."""
TIME_BASE = Fraction(1, 90_000)
"""The unit of written time stamps of uneven frames, seconds; it divides the steps of all usual rates."""


class VideoSource:
    """One video or picture as a `FrameSource` of one view, decoded as it is read.

    Frames come as they are meant to be shown: turned upright, and scaled to square pixels. The file is decoded once
    at the start without keeping pictures, because containers often do not know how many frames they hold. Later
    reads continue where the last one ended, or seek; recently read frames are kept (at most 64 MiB). A damaged or
    truncated file gives the frames that can be decoded, and `remarks` says how many are missing.

    Args:
        path: the file.
        stream: which of several streams of pictures, counted from 0; None takes the file's default.

    Raises:
        InputError: The file is missing, a folder, empty, not readable as a video, no frame decodes, or it asks for
            something that neuface does not do: pixels wider than four times their height, turns by no quarter turn,
            another shape of the frames midway.
    """

    views = 1

    def __init__(self, path: str | os.PathLike[str], *, stream: int | None = None) -> None:
        self._path, self._stream = Path(path), stream
        self.files = (str(self._path),)
        self._cache: OrderedDict[int, Tensor] = OrderedDict()
        self._video = open_video(self._path, stream)
        try:
            index = index_of(self._path, self._video)
        except InputError:
            self._video.close()
            raise
        self._display, self._pts, self._keyframes = index.display, index.pts, index.keyframes
        self.fps, self.timestamps_s, self.remarks = index.fps, index.timestamps_s, index.remarks
        self.start_s = index.start_s
        # Seeking goes by time stamps: without unique ones, going back means starting again.
        known = [pts for pts in self._pts if pts is not None]
        self._can_seek = len(set(known)) == len(self._pts) and known == sorted(known)
        self._frames: Iterator[Any] = iter(())
        self._position = len(self._pts)

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self._path.stem

    @property
    def time(self) -> int:
        return len(self._pts)

    def size_hw(self, view: int) -> tuple[int, int]:
        """Height and width of the frames as they are shown: turned upright, in square pixels."""
        check_view(self, view)
        return self._display.size_hw

    def read(self, view: int, start: int, stop: int) -> UInt8[Tensor, "n h w 3"]:
        """Frames `start <= t < stop`, RGB. Raises InputError outside of the video or if the file changed."""
        check_range(self, view, start, stop)
        if start == stop:
            return torch.zeros((0, *self.size_hw(0), 3), dtype=torch.uint8)
        return torch.stack([self._cached_frame(index) for index in range(start, stop)])

    def close(self) -> None:
        """Release the file; a later read opens it again."""
        self._video.close()
        self._frames, self._position, self._can_seek = iter(()), len(self._pts), False
        self._cache.clear()

    def _cached_frame(self, index: int) -> Tensor:
        if index not in self._cache:
            frame = self._decode_frame(index)
            self._cache[index] = frame
            while len(self._cache) > 1 and len(self._cache) * frame.nbytes > CACHE_BYTES:
                self._cache.popitem(last=False)
        return self._cache[index]

    def _decode_frame(self, index: int) -> Tensor:
        if self._position != index:
            self._move_to(index)
        frame = next(self._frames, None)
        if frame is None:
            raise InputError(f"{self._path}: frame {index} cannot be read any more; has the file changed?")
        self._position = index + 1
        return torch.from_numpy(self._display.picture(frame))

    def _move_to(self, index: int) -> None:
        """Make frame `index` the next one that is decoded."""
        key = self._keyframes[max(bisect_right(self._keyframes, index) - 1, 0)] if self._keyframes else 0
        must_jump = index < self._position or key > self._position
        if must_jump and not (key > 0 and self._can_seek and self._seek(key, index)):
            self._video.close()
            self._video = open_video(self._path, self._stream)
            self._frames, self._position = self._video.frames(), 0
        skipped = index - self._position
        next(itertools.islice(self._frames, skipped, skipped), None)
        self._position = index

    def _seek(self, key: int, index: int) -> bool:
        """Seek to frame `index` through its key frame; False if the container does not lead there."""
        try:
            self._video.container.seek(self._pts[key] or 0, stream=self._video.stream)
        except (av.error.FFmpegError, OSError, ValueError):
            return False
        frames = self._video.frames()
        seen_key = False
        for frame in frames:
            seen_key |= frame.pts == self._pts[key]
            if frame.pts == self._pts[index] and seen_key:
                self._frames, self._position = itertools.chain([frame], frames), index
                return True
            if frame.pts is None or frame.pts > self._pts[index]:
                return False
        return False


def read_video(path: str | os.PathLike[str]) -> tuple[UInt8[Tensor, "time h w 3"], float]:
    """All frames of a video (RGB) and its frames per second. Raises InputError as `VideoSource` does."""
    source = VideoSource(path)
    try:
        return source.read(0, 0, source.time), source.fps
    finally:
        source.close()


def write_video(
    path: str | os.PathLike[str],
    frames: Iterable[Any],
    fps: int | float,
    *,
    timestamps_s: Sequence[float] | None = None,
) -> None:
    """Write uint8 RGB frames `(h, w, 3)`, numpy or torch, as an H.264 mp4 that players everywhere accept.

    Odd sizes are padded by repeating the last row or column. The file appears whole or not at all. Frames that are
    not evenly spaced are shown at `timestamps_s`, the seconds of each, so that the video keeps time with its sound.

    Raises:
        InputError: No frames, a frame that is not uint8 `(h, w, 3)`, frames of different size, or a frame
            rate that is not positive.
    """
    if not 0 < fps < float("inf"):
        raise InputError(f"{path}: frames per second must be positive, got {fps}")
    # The container's time base has to be a fraction of small integers; 30000/1001 and the like are exact.
    rate = Fraction(fps).limit_denominator(LARGEST_FPS_DENOMINATOR)
    checked = (_checked_picture(frame, f"{path}, frame {index}") for index, frame in enumerate(frames))
    with atomic_path(path) as temporary:
        first = next(checked, None)
        if first is None:
            raise InputError(f"{path}: no frames to write")
        with av.open(f"file:{temporary}", "w", format="mp4") as container:
            height, width = (side + side % 2 for side in first.shape[:2])
            stream = container.add_stream("libx264", rate=rate, options={"crf": QUALITY_CRF})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            uneven = timestamps_s is not None and frame_times_of(timestamps_s) is not None
            if uneven:
                stream.codec_context.time_base = TIME_BASE
            for index, picture in enumerate(itertools.chain([first], checked)):
                if picture.shape != first.shape:
                    raise InputError(
                        f"{path}, frame {index}: is {picture.shape[:2]}, the first is {first.shape[:2]}; "
                        "expected frames of one size"
                    )
                padding = ((0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0))
                frame = av.VideoFrame.from_ndarray(np.pad(picture, padding, mode="edge"), format="rgb24")
                if uneven and timestamps_s is not None:
                    frame.pts, frame.time_base = (
                        round((timestamps_s[index] - timestamps_s[0]) / TIME_BASE),
                        TIME_BASE,
                    )
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


def write_image(path: str | os.PathLike[str], picture: Any) -> None:
    """Write a uint8 RGB picture `(h, w, 3)`, numpy or torch, as PNG. Raises InputError for anything else."""
    array = np.ascontiguousarray(_checked_picture(picture, str(path)))
    encoder: Any = av.CodecContext.create("png", "w")
    encoder.height, encoder.width = array.shape[:2]
    encoder.pix_fmt, encoder.time_base = "rgb24", Fraction(1, 1)
    frame = av.VideoFrame.from_ndarray(array, format="rgb24")
    content = b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _checked_picture(value: Any, what: str) -> np.ndarray:
    picture = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    if picture.ndim != 3 or picture.shape[-1] != 3 or picture.dtype != np.uint8 or 0 in picture.shape:
        raise InputError(f"{what}: expected uint8 (h, w, 3), got {picture.dtype} of shape {picture.shape}")
    return picture
