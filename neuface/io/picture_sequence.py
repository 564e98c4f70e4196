"""Frames of one camera as picture files: a folder, a pattern of names, or a list of files."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from glob import escape, glob
from itertools import pairwise
from math import gcd
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from neuface.errors import InputError
from neuface.frames import DEFAULT_FPS, check_range, check_view
from neuface.io.video import VideoSource
from neuface.io.video_streams import open_video

PICTURE_ENDINGS = frozenset(
    {
        ".png",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".webp",
        ".ppm",
        ".pgm",
        ".pnm",
    }
    | {".tga", ".jp2", ".exr", ".dpx", ".heic", ".heif", ".avif"}
)
"""Endings of files that hold one picture; a GIF is a video."""
VIDEO_ENDINGS = frozenset(
    {".mp4", ".mov", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".m4v", ".ts", ".mts", ".gif"}
)
"""Endings by which a folder of videos is distinguished from a folder of pictures."""
CAMERA_WORDS = re.compile(r"cam|view|left|right", re.IGNORECASE)
"""Words in names that say that a number counts cameras rather than frames."""
NUMBER_PATTERN = re.compile(r"%0?(\d*)d")
DIGITS = re.compile(r"\d+")
MOST_NAMED = 5
"""Bounds the files that a message lists."""


class PictureSequence:
    """Picture files as the frames of one view, opened as they are read.

    A picture that cannot be decoded is a black frame, which is later found to show nothing, and `remarks` names it.
    Numbers that are missing in the names are lost frames: `timestamps_s` leaves room for them.

    Args:
        paths: the files, in any order: natural order (`2.png` before `10.png`) is made.
        name: the name of the view.
        fps: pictures per second; one number in the names is one picture, or as many as all of them have in common.

    Raises:
        InputError: no pictures, a file is missing, the pictures differ in size, or their order is not
            clear from the names.
    """

    views = 1

    def __init__(self, paths: Sequence[Path], name: str, fps: float = DEFAULT_FPS) -> None:
        if not paths:
            raise InputError(f"{name}: no pictures; expected at least one")
        self.name, self.fps, self.start_s = name, fps, 0.0
        self._paths, steps = _ordered(list(paths))
        self.files = tuple(map(str, self._paths))
        first, problems = self._first_readable()
        self._size_hw = first.size_hw(0)
        stored_wh = [_stored_wh(path) for path in self._paths]
        expected_wh = Counter(size for size in stored_wh if size is not None).most_common(1)[0][0]
        for path, size in zip(self._paths, stored_wh, strict=True):
            if size is not None and size != expected_wh:
                raise InputError(
                    f"{path}: is {size[0]}x{size[1]}, but most of these pictures are "
                    f"{expected_wh[0]}x{expected_wh[1]}; expected frames of one size"
                )
        self._unreadable = {index for index, size in enumerate(stored_wh) if size is None} | set(problems)
        self.timestamps_s = tuple(step / fps for step in steps)
        self.remarks = (*first.remarks, *self._remarks(steps))

    @property
    def time(self) -> int:
        return len(self._paths)

    def size_hw(self, view: int) -> tuple[int, int]:
        """Height and width of the pictures as they are shown."""
        check_view(self, view)
        return self._size_hw

    def read(self, view: int, start: int, stop: int) -> UInt8[Tensor, "n h w 3"]:
        """Pictures `start <= t < stop`, RGB; a damaged one is black."""
        check_range(self, view, start, stop)
        frames = torch.zeros((stop - start, *self._size_hw, 3), dtype=torch.uint8)
        for index in range(start, stop):
            if index not in self._unreadable:
                frames[index - start] = self._picture(index)
        return frames

    def _picture(self, index: int) -> Tensor:
        try:
            source = VideoSource(self._paths[index])
        except InputError:
            # Its header was good; its content is not.
            return torch.zeros((*self._size_hw, 3), dtype=torch.uint8)
        if source.size_hw(0) != self._size_hw:
            raise InputError(
                f"{self._paths[index]}: is shown as {source.size_hw(0)} (height, width), the first picture as "
                f"{self._size_hw}; expected frames of one size"
            )
        picture = source.read(0, 0, 1)[0]
        source.close()
        return picture

    def _first_readable(self) -> tuple[VideoSource, list[int]]:
        problems: list[InputError] = []
        for path in self._paths:
            try:
                source = VideoSource(path)
            except InputError as error:
                problems.append(error)
                continue
            source.close()
            return source, list(range(len(problems)))
        raise problems[0]

    def _remarks(self, steps: Sequence[int]) -> list[str]:
        texts = []
        missing = sum(b - a - 1 for a, b in pairwise(steps))
        if missing:
            texts.append(f"{self.name}: missing numbers: {missing}, among {len(steps)} pictures")
        if self._unreadable:
            names = [self._paths[index].name for index in sorted(self._unreadable)]
            more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
            texts.append(f"{self.name}: pictures that cannot be read: {', '.join(names[:MOST_NAMED])}{more}")
        return texts


def is_picture_file(path: Path) -> bool:
    """Whether the name is that of a file with one picture."""
    return path.suffix.lower() in PICTURE_ENDINGS


def pictures_in_folder(folder: Path) -> list[Path]:
    """The picture files of a folder. Raises InputError if there are none, or they cannot be listed."""
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error})") from error
    pictures = [entry for entry in entries if is_picture_file(entry) and entry.is_file()]
    if pictures:
        return pictures
    if any(entry.suffix.lower() in VIDEO_ENDINGS for entry in entries):
        raise InputError(
            f"{folder}: is a folder of videos; give them by name, those of one recording together"
        )
    if any(entry.is_dir() for entry in entries):
        raise InputError(
            f"{folder}: is a folder of folders; give those with the pictures of each camera by name"
        )
    raise InputError(f"{folder}: is a folder without pictures; expected frames such as 001.png")


def pictures_of_pattern(pattern: str) -> list[Path] | None:
    """The files that `seq/%03d.png` or `seq/*.png` means; None if this is no pattern.

    Raises:
        InputError: no file is meant.
    """
    folder, name = os.path.split(pattern)
    if NUMBER_PATTERN.search(name):
        widths = [int(width or 1) for width in NUMBER_PATTERN.findall(name)]
        literal = NUMBER_PATTERN.split(name)[::2]
        expression = re.escape(literal[0])
        for width, following in zip(widths, literal[1:], strict=True):
            expression += rf"\d{{{width},}}{re.escape(following)}"
        candidates = glob(os.path.join(escape(folder), "*")) if folder else glob("*")
        found = [Path(path) for path in candidates if re.fullmatch(expression, os.path.basename(path))]
    elif any(sign in pattern for sign in "*?["):
        found = [Path(path) for path in glob(pattern)]
    else:
        return None
    if not found:
        raise InputError(f"{pattern}: no file is named like this")
    return found


def _stored_wh(path: Path) -> tuple[int, int] | None:
    """Width and height that a picture's header states; None if it cannot be opened."""
    try:
        video = open_video(path)
    except InputError:
        if not path.exists():
            raise
        return None
    size = video.stream.width, video.stream.height
    video.close()
    return size if all(size) else None


def _ordered(paths: list[Path]) -> tuple[list[Path], list[int]]:
    """The pictures in natural order, and the place of each in time, counted in frames from 0."""
    if len(paths) == 1:
        return paths, [0]
    numbers = {path: [int(digits) for digits in DIGITS.findall(path.stem)] for path in paths}
    shapes = Counter((str(path.parent), DIGITS.sub("#", path.stem), path.suffix.lower()) for path in paths)
    remedy = (
        "Pictures of one camera are named alike up to one number, as in frame_001.png; several cameras are a list of "
        "lists, folders or patterns"
    )
    if len(shapes) > 1 or len(set(paths)) < len(paths):
        named = ", ".join(
            str(Path(folder) / f"{stem}{suffix}") for folder, stem, suffix in list(shapes)[:MOST_NAMED]
        )
        raise InputError(f"it is not clear whether {len(paths)} pictures are one video ({named}). {remedy}")
    varying = [column for column in zip(*numbers.values(), strict=True) if len(set(column)) > 1]
    (_, stem, _) = next(iter(shapes))
    last = varying[-1] if varying else ()
    if len(set(last)) < len(paths) or (len(paths) < 10 and CAMERA_WORDS.search(stem)):
        raise InputError(
            f"it is not clear whether {len(paths)} pictures ({paths[0].name}, {paths[1].name}, ...) are one video or "
            f"several cameras. {remedy}"
        )
    ordered = sorted(paths, key=lambda path: numbers[path])
    if len(varying) > 1:
        return ordered, list(range(len(paths)))
    counted = sorted(last)
    unit = gcd(*(b - a for a, b in pairwise(counted)))
    return ordered, [(number - counted[0]) // unit for number in counted]
