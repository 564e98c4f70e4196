"""Which way up a file wants its pictures: EXIF's eight orientations, mp4's matrices, and other containers' rotation.

PyAV gives the rotation of a frame, but not whether it is mirrored as well. Its access to the whole display matrix
frees memory twice (PyAV 18.1, `Frame.side_data`), so the two kinds of files that may mirror are read here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from neuface.errors import InputError

Matrix = tuple[int, int, int, int]
"""Rows of the matrix that takes directions of the stored picture to directions of the shown one (x right, y down)."""

UPRIGHT: Matrix = (1, 0, 0, 1)
EXIF_ORIENTATIONS: dict[int, Matrix] = {
    1: UPRIGHT,
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, -1, 1, 0),
    7: (0, -1, -1, 0),
    8: (0, 1, -1, 0),
}
EXIF_BYTES = 1 << 18
"""Bounds how far into a picture its EXIF block is looked for; JPEG allows it 64 KiB, after blocks of that size."""
ORIENTATION_TAG = 0x0112
MOST_TAGS = 1000
"""Bounds the entries of an EXIF directory that are looked at."""
MOST_BOXES = 10_000
"""Bounds the boxes of an mp4 file that are looked at."""
LEAST_TURN_COSINE = 0.999
"""Bounds the cosine of the angle between a matrix and the nearest quarter turn; it allows for rounding."""


def orientation_of(path: Path, container: Any, stream: Any, frame: Any) -> Matrix:
    """How a frame of this file is turned or mirrored to be shown.

    Raises:
        InputError: it is to be turned by no quarter turn, or sheared.
    """
    names = set(container.format.name.split(","))
    if "mov" in names:
        linear = _matrix_of_track(path, stream.id)
        if linear is not None:
            return _rounded(path, linear)
    elif names & {"image2"} or any(name.endswith("_pipe") for name in names):
        exif = _exif_orientation(path)
        if exif in EXIF_ORIENTATIONS:
            return EXIF_ORIENTATIONS[exif]
    # PyAV's angle is counterclockwise as seen, y pointing down.
    angle = np.radians(frame.rotation)
    cosine, sine = np.cos(angle), np.sin(angle)
    return _rounded(path, np.array([[cosine, sine], [-sine, cosine]]))


def turned(pixels: np.ndarray, matrix: Matrix) -> np.ndarray:
    """A stored picture `(h, w, channels)` as it is shown.

    >>> turned(np.array([[[1], [2]]]), EXIF_ORIENTATIONS[6])[..., 0].tolist()
    [[1], [2]]
    """
    xx, xy, yx, yy = matrix
    if xx == 0:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if yx + yy < 0 else 1, :: -1 if xx + xy < 0 else 1]


def _rounded(path: Path, linear: np.ndarray) -> Matrix:
    lengths = np.linalg.norm(linear, axis=1, keepdims=True)
    exact = linear / lengths if lengths.all() else linear
    rounded = np.where(np.abs(exact) > LEAST_TURN_COSINE, np.sign(exact), 0).astype(int)
    xx, xy, yx, yy = rounded.flatten().tolist()
    if abs(xx * yy - xy * yx) != 1:
        degrees = np.degrees(np.arctan2(exact[1, 0], exact[0, 0]))
        raise InputError(
            f"{path}: asks to be shown turned by {degrees:.0f} degrees or sheared; expected quarter turns or "
            "reflections. Apply it to the pictures: ffmpeg -i IN OUT"
        )
    return xx, xy, yx, yy


def _exif_orientation(path: Path) -> int | None:
    """The orientation that a JPEG, PNG or WebP states in its EXIF block."""
    with path.open("rb") as file:
        head = file.read(EXIF_BYTES)
    if head.startswith(b"\xff\xd8"):
        start = head.find(b"Exif\0\0") + 6
        found = start > 5
    elif head.startswith(b"\x89PNG"):
        start = head.find(b"eXIf") + 4
        found = start > 3
    else:
        start = head.find(b"EXIF") + 8
        found = head.startswith(b"RIFF") and start > 7
        start += 6 * head.startswith(b"Exif\0\0", start)
    order = {b"II": "<", b"MM": ">"}.get(head[start : start + 2]) if found else None
    if order is None:
        return None
    tiff = head[start:]
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(min(count, MOST_TAGS)):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, directory + 2 + 12 * entry)
            if tag == ORIENTATION_TAG:
                return value
    except struct.error:
        return None
    return None


def _matrix_of_track(path: Path, track: int) -> np.ndarray | None:
    """The linear part of an mp4 track's matrix, as `Matrix` reads; None if the file does not say."""
    with path.open("rb") as file:
        for header in _boxes(file, path.stat().st_size, (b"moov", b"trak", b"tkhd")):
            # Version 1 has 64-bit times; the matrix is followed by width and height.
            version = header[:1]
            at_id, at_matrix = (20, 52) if version == b"\1" else (12, 40)
            try:
                (number,) = struct.unpack_from(">I", header, at_id)
                a, b, _, c, d = struct.unpack_from(">5i", header, at_matrix)
            except struct.error:
                return None
            if number == track:
                return np.array([[a, c], [b, d]], dtype=float)
    return None


def _boxes(file: BinaryIO, end: int, names: tuple[bytes, ...]) -> Iterator[bytes]:
    """The first 128 bytes of the content of every box that lies at this path of names."""
    for _ in range(MOST_BOXES):
        start = file.tell()
        header = file.read(8)
        if len(header) < 8 or start >= end:
            return
        size, name = struct.unpack(">I4s", header)
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8).ljust(8, b"\0"))
        stop = start + size if size else end
        if stop <= file.tell() - 1 or stop > end:
            return
        if name == names[0]:
            if len(names) == 1:
                yield file.read(min(128, stop - file.tell()))
            else:
                yield from _boxes(file, stop, names[1:])
        file.seek(stop)
