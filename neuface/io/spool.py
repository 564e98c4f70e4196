"""Frames that can be had only once, kept in a temporary file: iterators, generators, and captures of OpenCV."""

from __future__ import annotations

import itertools
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from neuface.errors import InputError
from neuface.frames import check_range, check_view
from neuface.pictures import is_picture, picture, video_array

OPENCV_FPS, OPENCV_FRAME_COUNT = 5, 7
"""OpenCV's numbers of the properties of a capture (`cv2.CAP_PROP_FPS`, `cv2.CAP_PROP_FRAME_COUNT`)."""


class SpooledFrames:
    """Frames of an iterator as a `FrameSource` of one view; memory stays small however long it is.

    Args:
        items: pictures `(h, w, 3)` and the other forms of `neuface.pictures`, or batches with an axis of time.
        max_frames: stop after so many frames, which an endless source needs.
        what: the beginning of error messages.

    Raises:
        InputError: no frames, an item that is no picture, frames of different size, or no room on the disk.
    """

    views = 1

    def __init__(self, items: Iterable[Any], max_frames: int | None = None, what: str = "frames") -> None:
        self.time = 0
        self._size_hw = (0, 0)
        try:
            # The file lives as long as this source, and vanishes with it.
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
            weakref.finalize(self, self._file.close)
            for frame in itertools.islice(_single_frames(items, what), max_frames):
                size_hw = (int(frame.shape[0]), int(frame.shape[1]))
                if self.time == 0:
                    self._size_hw = size_hw
                if size_hw != self._size_hw:
                    raise InputError(
                        f"{what}: picture {self.time} is {size_hw}, the first is {self._size_hw} (height, width); "
                        "expected frames of one size"
                    )
                self._file.write(frame.contiguous().numpy().tobytes())
                self.time += 1
        except OSError as error:
            raise InputError(
                f"{what}: frame {self.time} cannot be kept in a temporary file ({error}); make room in "
                f"{tempfile.gettempdir()}, or name another folder in TMPDIR"
            ) from error
        if self.time == 0:
            raise InputError(f"{what}: the iterator gave no frames; an iterator can be used only once")

    def size_hw(self, view: int) -> tuple[int, int]:
        """Height and width of the frames."""
        check_view(self, view)
        return self._size_hw

    def read(self, view: int, start: int, stop: int) -> UInt8[Tensor, "n h w 3"]:
        """Frames `start <= t < stop`, RGB."""
        check_range(self, view, start, stop)
        height, width = self._size_hw
        self._file.seek(start * height * width * 3)
        content = bytearray(self._file.read((stop - start) * height * width * 3))
        return torch.from_numpy(np.frombuffer(content, np.uint8).reshape(-1, height, width, 3))


def is_capture(value: Any) -> bool:
    """Whether this is a `cv2.VideoCapture` or reads like one."""
    return all(hasattr(value, name) for name in ("read", "isOpened", "get"))


def capture_fps(capture: Any) -> float | None:
    """The frames per second that a capture states."""
    fps = float(capture.get(OPENCV_FPS))
    return fps if 0 < fps < float("inf") else None


def captured_frames(capture: Any, max_frames: int | None) -> Iterator[np.ndarray]:
    """The frames of a capture, whose channels OpenCV orders blue, green, red.

    Raises:
        InputError: it is not open, or is a live camera and nothing says when to stop.
    """
    if not capture.isOpened():
        raise InputError("the capture is not open; expected one whose isOpened() is true")
    if max_frames is None and capture.get(OPENCV_FRAME_COUNT) <= 0:
        raise InputError("the capture is live and has no end: say how many frames to take with max_frames=")
    while True:
        there, frame = capture.read()
        if not there:
            return
        yield frame[..., ::-1]


def _single_frames(items: Iterable[Any], what: str) -> Iterator[UInt8[Tensor, "h w 3"]]:
    for number, item in enumerate(items):
        label = f"{what}, item {number}"
        frames = picture(item, label) if is_picture(item) else video_array(item, label)
        for index in range(len(frames)):
            yield frames.read(index, index + 1)[0]
