"""Focal lengths that files state."""

from __future__ import annotations

import math
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from neuface.frames import ArraySource
from neuface.io.focal_lengths import EXIF_FOCAL_LENGTH_35MM, EXIF_SUB_DIRECTORY, stated_focal_px
from neuface.io.inputs import open_footage

WIDTH, HEIGHT = 64, 48
FULL_FRAME_MM = math.hypot(36, 24)


def picture(path: Path, equivalent_mm: int | None) -> Path:
    image = Image.new("RGB", (WIDTH, HEIGHT), (120, 90, 60))
    exif = Image.Exif()
    if equivalent_mm is not None:
        exif.get_ifd(EXIF_SUB_DIRECTORY)[EXIF_FOCAL_LENGTH_35MM] = equivalent_mm
    image.save(path, exif=exif)
    return path


def video(path: Path, metadata: dict[str, str]) -> Path:
    with av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata.update(metadata)
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for shade in (60, 90, 120):
            frame = av.VideoFrame.from_ndarray(np.full((HEIGHT, WIDTH, 3), shade, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_a_picture_states_its_focal_length_on_35_mm_film(tmp_path: Path) -> None:
    footage = open_footage(picture(tmp_path / "a.jpg", 28))
    expected = 28 / FULL_FRAME_MM * math.hypot(WIDTH, HEIGHT)
    assert stated_focal_px(footage.frames) == [pytest.approx(expected)]


@pytest.mark.parametrize("equivalent_mm", [None, 0, 5, 60000])
def test_a_focal_length_that_is_missing_or_impossible_is_not_believed(
    tmp_path: Path, equivalent_mm: int | None
) -> None:
    footage = open_footage(picture(tmp_path / "a.jpg", equivalent_mm))
    assert stated_focal_px(footage.frames) == [None]


def test_pictures_of_different_focal_lengths_have_none(tmp_path: Path) -> None:
    for number, equivalent_mm in enumerate((24, 24, 70)):
        picture(tmp_path / f"{number}.jpg", equivalent_mm)
    assert stated_focal_px(open_footage(tmp_path).frames) == [None]
    picture(tmp_path / "2.jpg", 24)
    assert stated_focal_px(open_footage(tmp_path).frames)[0] is not None


def test_a_video_states_its_focal_length(tmp_path: Path) -> None:
    key = "com.apple.quicktime.camera.focal_length.35mm_equivalent"
    files = [video(tmp_path / "a.mov", {key: "26"}), video(tmp_path / "b.mov", {})]
    footage = open_footage(files)
    expected = 26 / FULL_FRAME_MM * math.hypot(WIDTH, HEIGHT)
    assert stated_focal_px(footage.frames) == [pytest.approx(expected), None]


@pytest.mark.parametrize("text", ["nan", "inf", "wide", ""])
def test_words_are_no_focal_length(tmp_path: Path, text: str) -> None:
    key = "com.apple.quicktime.camera.focal_length.35mm_equivalent"
    footage = open_footage(video(tmp_path / "a.mov", {key: text}))
    assert stated_focal_px(footage.frames) == [None]


def test_arrays_state_nothing() -> None:
    frames = ArraySource(np.zeros((2, 3, HEIGHT, WIDTH, 3), np.uint8))
    assert stated_focal_px(frames) == [None, None]
