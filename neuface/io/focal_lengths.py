"""Focal lengths that videos and pictures state of themselves."""

from __future__ import annotations

import math
from pathlib import Path

from neuface.errors import InputError
from neuface.frames import files_of
from neuface.io.video_streams import open_video
from neuface.structs import FrameSource

__all__ = ["stated_focal_px"]

FULL_FRAME_DIAGONAL_MM = math.hypot(36.0, 24.0)
"""Diagonal of the picture on 35 mm film, to which equivalent focal lengths refer."""
SHORTEST_MM, LONGEST_MM = 8.0, 1000.0
"""Bounds of an equivalent focal length that is believed, mm; cameras that do not know theirs state 0."""
EXIF_SUB_DIRECTORY, EXIF_FOCAL_LENGTH_35MM = 0x8769, 0xA405
VIDEO_KEY = "camera.focal_length.35mm_equivalent"
"""End of the key under which QuickTime files state the equivalent focal length, mm."""


def stated_focal_px(source: FrameSource) -> list[float | None]:
    """The focal length of every view in pixels of its frames, as its file states it; None where none does.

    Files state the focal length that would give the same view on 35 mm film, here taken by the diagonal. Of the
    pictures of one view the first, the middle and the last are asked, and must agree. Frames that did not come from a
    file, or of which it is not known from which, have none.
    """
    files = files_of(source)
    if source.views != 1 and len(files) != source.views:
        return [None] * source.views
    of_views = [files] if source.views == 1 else [(file,) for file in files]
    lengths_px: list[float | None] = []
    for view, of_view in enumerate(of_views):
        # A camera that zooms between pictures has no one focal length.
        looked_at = {of_view[0], of_view[len(of_view) // 2], of_view[-1]} if of_view else set()
        stated = {_equivalent_mm(Path(file)) for file in looked_at}
        equivalent_mm = stated.pop() if len(stated) == 1 else None
        if equivalent_mm is None or not SHORTEST_MM <= equivalent_mm <= LONGEST_MM:
            lengths_px.append(None)
            continue
        diagonal_px = math.hypot(*source.size_hw(view))
        lengths_px.append(equivalent_mm / FULL_FRAME_DIAGONAL_MM * diagonal_px)
    return lengths_px


def _equivalent_mm(path: Path) -> float | None:
    """What a picture's EXIF data or a video's metadata state; None if they state nothing that is a number."""
    from PIL import Image, UnidentifiedImageError  # On use: it loads slowly.

    try:
        with Image.open(path) as picture:
            details = picture.getexif().get_ifd(EXIF_SUB_DIRECTORY)
            return _number(details.get(EXIF_FOCAL_LENGTH_35MM))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        pass  # It is no picture that states anything; it may be a video.
    try:
        video = open_video(path)
    except InputError:
        return None
    try:
        stated = {**video.container.metadata, **video.stream.metadata}
    finally:
        video.close()
    return _number(next((value for key, value in stated.items() if key.endswith(VIDEO_KEY)), None))


def _number(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) else None
