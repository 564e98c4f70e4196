"""What a video holds, found by decoding it once: frames, their times, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from neuface.errors import InputError
from neuface.frames import DEFAULT_FPS, evenly_timed
from neuface.io.video_streams import Display, OpenVideo, display_of

EVEN_STEP_TOLERANCE = 0.25
"""Bounds how far a step between two frames may be from the usual one, as a part of it; containers with milliseconds
round the steps of 240 frames/s by 0.12."""
STEADY_SHARE = 0.6
"""Bounds the share of usual steps (their multiples included) from which a video counts as one of a steady rate."""
SAME_SHAPE_TOLERANCE = 0.02
"""Bounds how far the frames' width over height may change midway, as a part of it; streams that adapt their size to
the network round it to even numbers."""


@dataclass(frozen=True, kw_only=True)
class VideoIndex:
    """Where the frames of a video are, and when they were taken."""

    display: Display
    pts: list[int | None]
    keyframes: list[int]
    timestamps_s: tuple[float, ...]
    """Seconds since the first frame."""
    start_s: float
    """The first frame's time on the container's clock; 0 if it has none."""
    fps: float
    """Frames per second that the file states, or the usual ones."""
    remarks: tuple[str, ...]
    """Sentences about what the user should know: scaled pixels, missing frames, uneven steps."""


def index_of(path: Path, video: OpenVideo) -> VideoIndex:
    """Decode every frame once.

    Raises:
        InputError: no frame decodes, or frames cannot be shown as the file asks (`display_of`).
    """
    pts: list[int | None] = []
    keyframes: list[int] = []
    damaged, resized = 0, 0
    display = None
    for number, frame in enumerate(video.frames()):
        if display is None:
            display = display_of(path, video, frame)
        elif (frame.width, frame.height) != display.decoded_wh:
            _check_same_shape(path, number, frame, display)
            resized += 1
        if frame.key_frame:
            keyframes.append(number)
        damaged += bool(frame.is_corrupt)
        pts.append(frame.pts)
    if display is None:
        raise InputError(f"{path}: no frame of this video can be decoded; is the file damaged?")
    rate = video.stream.average_rate or video.stream.guessed_rate
    fps = float(rate) if rate else DEFAULT_FPS
    clock = Clock.of(pts, video.stream.time_base, fps)
    stated = max(video.stream.frames - video.discarded, 0)
    return VideoIndex(
        display=display,
        pts=pts,
        keyframes=keyframes,
        timestamps_s=clock.timestamps_s,
        start_s=clock.start_s,
        fps=fps,
        remarks=(
            *video.remarks,
            *(f"{path}: {text}" for text in _display_remarks(display, resized)),
            *(
                f"{path}: {text}"
                for text in (*clock.remarks, *_damage_remarks(stated, len(pts), damaged, video.undecodable))
            ),
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Clock:
    """When the frames of a video were taken."""

    timestamps_s: tuple[float, ...]
    start_s: float
    remarks: tuple[str, ...]

    @classmethod
    def of(cls, pts: Sequence[int | None], unit_s: Fraction | None, fps: float) -> Clock:
        """The times of frames with these stamps; frames without usable ones are evenly timed.

        >>> Clock.of([0, 1, 2, 5], Fraction(1, 25), 25.0).remarks
        ('missing frames: 2; the time stamps leave room for them among 4 frames at 25 per second',)
        """
        known = [stamp for stamp in pts if stamp is not None]
        if len(pts) == 1 or not known or unit_s is None:
            return cls(timestamps_s=evenly_timed(len(pts), fps), start_s=0.0, remarks=())
        if len(known) < len(pts) or any(a >= b for a, b in pairwise(known)):
            text = f"the time stamps are not all there or not in order; {fps:g} even frames per second are assumed"
            return cls(timestamps_s=evenly_timed(len(pts), fps), start_s=0.0, remarks=(text,))
        seconds = [float((stamp - known[0]) * unit_s) for stamp in known]
        return cls(
            timestamps_s=tuple(seconds),
            start_s=float(known[0] * unit_s),
            remarks=_step_remarks(np.diff(seconds)),
        )


def _step_remarks(steps_s: np.ndarray) -> tuple[str, ...]:
    """What the steps between frames say: nothing if they are even, else how many are missing or how they vary."""
    usual = float(np.median(steps_s))
    multiples = np.maximum(np.round(steps_s / usual), 1)
    near = np.abs(steps_s / usual - multiples) <= EVEN_STEP_TOLERANCE
    if near.all() and (multiples == 1).all():
        return ()
    if near.mean() >= STEADY_SHARE:
        missing = int((multiples - 1).sum())
        if missing:
            return (
                f"missing frames: {missing}; the time stamps leave room for them among {len(steps_s) + 1} frames at "
                f"{1 / usual:.4g} per second",
            )
    return (
        f"the frames are unevenly timed, {steps_s.min() * 1000:.0f} to {steps_s.max() * 1000:.0f} ms apart; their "
        "real times are kept",
    )


def _check_same_shape(path: Path, number: int, frame: Any, display: Display) -> None:
    width, height = display.decoded_wh
    if abs(frame.width * height / (frame.height * width) - 1) > SAME_SHAPE_TOLERANCE:
        raise InputError(
            f"{path}: from frame {number} on the pictures are {frame.width}x{frame.height}, before {width}x{height}; "
            "expected one shape. Cut the video there, or scale it: ffmpeg -i IN -vf scale=WIDTH:HEIGHT OUT"
        )


def _display_remarks(display: Display, resized: int) -> list[str]:
    texts = []
    if display.square_wh != display.decoded_wh:
        (stored_w, stored_h), (width, height) = display.decoded_wh, display.square_wh
        texts.append(
            f"its pixels are not square ({display.pixel_aspect}): frames of {stored_w}x{stored_h} are scaled to "
            f"{width}x{height}, and landmarks must be of that size"
        )
    if resized:
        texts.append(f"{resized} frames have another size than the first and are scaled to it")
    return texts


def _damage_remarks(stated: int, found: int, damaged: int, undecodable: int) -> list[str]:
    texts = []
    if stated > found:
        texts.append(f"the file states {stated} frames, of which {found} can be decoded")
    elif undecodable:
        texts.append(f"{undecodable} pieces of the file cannot be decoded; {found} frames can")
    if damaged:
        texts.append(f"{damaged} of {found} frames are decoded from damaged data")
    return texts
