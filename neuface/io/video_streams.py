"""Video files as they are opened: which stream holds the pictures, and how it wants them shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.stream import Disposition

from neuface.errors import InputError
from neuface.io.orientation import Matrix, orientation_of, turned

TEXT_CODECS = frozenset({"ansi", "bintext", "xbin", "idf"})
"""FFmpeg would draw a text file as a terminal and call it a video."""
MOST_PIXELS = 1 << 27
"""Bounds the pixels of a frame (134 million); a header that claims more would allocate gigabytes."""
WIDEST_PIXEL = 4
"""Bounds how many times wider than high, or higher than wide, a pixel can be; broadcast formats stay below 2."""


@dataclass(kw_only=True)
class OpenVideo:
    """One stream of pictures in an open container."""

    container: InputContainer
    stream: Any
    remarks: tuple[str, ...] = ()
    """What the user should know about the choice of the stream."""
    undecodable: int = field(default=0, init=False)
    """Packets that could not be decoded so far."""
    discarded: int = field(default=0, init=False)
    """Packets so far that the container says are not to be shown."""

    def frames(self) -> Iterator[Any]:
        """All frames that can be decoded from here on; damaged packets are left out and counted."""
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.error.FFmpegError, OSError):
                # The container itself ends in the middle: what the decoder still holds is good.
                packet = None
            self.discarded += packet is not None and packet.is_discard
            try:
                frames = self.stream.codec_context.decode(packet)
            except (av.error.FFmpegError, OSError, ValueError):
                self.undecodable += 1
                frames = []
            yield from frames
            if packet is None:
                return

    def close(self) -> None:
        """Release the file."""
        self.container.close()


def open_video(path: Path, stream: int | None = None) -> OpenVideo:
    """Open a video or picture file.

    Args:
        path: a regular file.
        stream: number of the stream of pictures, counted from 0 without covers; None takes the one that the file
            calls its default, or the first.

    Raises:
        InputError: the file is missing, no regular file, empty, or holds no video that can be opened.
    """
    _check_regular(path)
    try:
        # `file:` and the options: a name is never a pattern or a protocol, and no playlist leaves the disk.
        options = {"pattern_type": "none", "protocol_whitelist": "file"}
        container = av.open(f"file:{path}", options=options, metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a video or picture ({error})") from error
    try:
        chosen, remarks = _choose(path, container, stream)
    except InputError:
        container.close()
        raise
    chosen.thread_type = "AUTO"
    return OpenVideo(container=container, stream=chosen, remarks=remarks)


def _check_regular(path: Path) -> None:
    if "://" in str(path) or str(path).startswith(("rtsp:", "http:", "https:")):
        raise InputError(
            f"{path}: is the address of a stream; expected a file. Record it first (ffmpeg -i ADDRESS talk.mp4), or "
            "give an iterator of pictures with max_frames="
        )
    try:
        if not path.exists():
            raise InputError(f"{path}: no such file")
        if path.is_dir():
            raise InputError(f"{path}: is a folder; expected a video or picture file")
        if not path.is_file():
            raise InputError(
                f"{path}: is a device or pipe, which cannot be read twice; expected a file. Record it first, or give "
                "an iterator of pictures with max_frames="
            )
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty")
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read ({error})") from error


def _choose(path: Path, container: InputContainer, number: int | None) -> tuple[Any, tuple[str, ...]]:
    """The stream whose pictures are meant, and what to say about it."""
    known = [item for item in container.streams.video if item.codec_context is not None]
    shown = [item for item in known if item.codec_context.name not in TEXT_CODECS]
    streams = [item for item in shown if not item.disposition & Disposition.attached_pic]
    if not streams:
        what = "sound and a cover picture" if shown else "sound or text"
        raise InputError(f"{path}: has no video in it (only {what}); expected a video or picture")
    if number is not None:
        if not 0 <= number < len(streams):
            raise InputError(f"{path}: has no video stream {number}; expected 0 to {len(streams) - 1}")
        return streams[number], ()
    defaults = [item for item in streams if item.disposition & Disposition.default]
    chosen = (defaults or streams)[0]
    if len(streams) == 1:
        return chosen, ()
    taken = streams.index(chosen)
    sizes = ", ".join(f"{item.width}x{item.height}" for item in streams)
    return chosen, (
        f"{path}: holds {len(streams)} streams of pictures ({sizes}); number {taken} is read. Others: "
        f"neuface.read_clip(VideoSource(path, stream={1 if taken == 0 else 0}))",
    )


@dataclass(frozen=True, kw_only=True)
class Display:
    """How decoded frames are to be shown."""

    decoded_wh: tuple[int, int]
    pixel_aspect: Fraction
    """Width of a pixel over its height."""
    orientation: Matrix

    @property
    def square_wh(self) -> tuple[int, int]:
        """Width and height before turning, in square pixels: the width is scaled, as players do."""
        width, height = self.decoded_wh
        return max(1, round(width * self.pixel_aspect)), height

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width as shown."""
        width, height = self.square_wh
        return (width, height) if self.orientation[0] == 0 else (height, width)

    def picture(self, frame: Any) -> np.ndarray:
        """The frame as RGB bytes `(h, w, 3)`, scaled to square pixels and turned upright."""
        width, height = self.square_wh
        pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
        return np.ascontiguousarray(turned(pixels, self.orientation))


def display_of(path: Path, video: OpenVideo, frame: Any) -> Display:
    """How this frame and its container want it shown.

    Raises:
        InputError: the frame is too large, its pixels are impossibly wide, or it is turned by no quarter turn.
    """
    if frame.width * frame.height > MOST_PIXELS:
        raise InputError(
            f"{path}: frames of {frame.width}x{frame.height} pixels are too large; expected at most "
            f"{MOST_PIXELS >> 20} Mi pixels. Scale the video down, if that is its true size"
        )
    aspect = video.stream.sample_aspect_ratio or video.stream.codec_context.sample_aspect_ratio or Fraction(1)
    if not Fraction(1, WIDEST_PIXEL) <= aspect <= WIDEST_PIXEL:
        raise InputError(
            f"{path}: claims pixels {aspect} times as wide as high; expected 1/{WIDEST_PIXEL} to {WIDEST_PIXEL}. If "
            "that is wrong, remove it: ffmpeg -i IN -vf setsar=1 OUT"
        )
    return Display(
        decoded_wh=(frame.width, frame.height),
        pixel_aspect=aspect,
        orientation=orientation_of(path, video.container, video.stream, frame),
    )
