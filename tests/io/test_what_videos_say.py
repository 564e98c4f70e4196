"""What files say of themselves is obeyed, reported, or refused by name: pixels, turns, times, streams and sizes."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.stream import Disposition
from data_folders import DATA, needs
from PIL import Image, ImageOps

from neuface.clips import read_clip
from neuface.errors import InputError, InputWarning
from neuface.io.video import VideoSource

BLOCKS = np.random.default_rng(0).integers(0, 255, (6, 8, 10, 3), np.uint8)
FRAMES = BLOCKS.repeat(12, 1).repeat(12, 2)
"""Six frames of 96 x 120 pixels."""


def write(
    path: Path,
    codec: str = "libx264",
    size_wh: tuple[int, int] = (120, 96),
    *,
    times: Sequence[int] = range(6),
    pixel_aspect: Fraction | None = None,
    streams: int = 1,
) -> Path:
    """A video of `FRAMES` whose time stamps are counted in 25ths of a second."""
    with av.open(str(path), "w") as container:
        opened = []
        for _ in range(streams):
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = *size_wh, "yuv420p"
            if pixel_aspect is not None:
                stream.codec_context.sample_aspect_ratio = pixel_aspect
            opened.append(stream)
        for stream in opened:
            for time, picture in zip(times, FRAMES, strict=True):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame = frame.reformat(width=size_wh[0], height=size_wh[1], format="yuv420p")
                frame.pts, frame.time_base = time, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.mov", "a.ts", "a.mpg", "a.mxf"])
def test_frames_have_square_pixels_in_every_container(tmp_path: Path, name: str) -> None:
    codec = "mpeg2video" if name[2:] in ("ts", "mpg", "mxf") else "mpeg4"
    source = VideoSource(write(tmp_path / name, codec, pixel_aspect=Fraction(16, 15)))
    assert source.size_hw(0) == (96, 128)
    assert source.read(0, 2, 5).shape == (3, 96, 128, 3)
    assert "not square (16/15): frames of 120x96 are scaled to 128x96" in source.remarks[0]


def test_narrow_pixels_are_scaled_and_impossible_ones_refused(tmp_path: Path) -> None:
    assert VideoSource(write(tmp_path / "n.mp4", pixel_aspect=Fraction(8, 9))).size_hw(0) == (96, 107)
    with pytest.raises(InputError, match="claims pixels 9 times as wide as high"):
        VideoSource(write(tmp_path / "w.mp4", pixel_aspect=Fraction(9)))


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_orientations_of_pictures_are_obeyed(tmp_path: Path, ending: str, orientation: int) -> None:
    picture = Image.fromarray(FRAMES[0])
    exif = picture.getexif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{ending}"
    picture.save(path, exif=exif)
    with Image.open(path) as opened:
        expected = np.array(ImageOps.exif_transpose(opened).convert("RGB")).astype(int)
    got = VideoSource(path).read(0, 0, 1)[0].numpy()
    assert got.shape == expected.shape
    assert np.abs(got - expected).mean() < 10


@pytest.mark.parametrize(
    ("times", "remark"),
    [
        ((0, 1, 2, 3, 4, 5), None),
        ((7, 8, 9, 10, 11, 12), None),
        ((0, 1, 2, 4, 5, 6), "missing frames: 1;"),
        ((0, 1, 4, 5, 9, 20), "unevenly timed, 40 to 440 ms apart"),
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_times_are_those_of_the_file(
    tmp_path: Path, name: str, times: tuple[int, ...], remark: str | None
) -> None:
    source = VideoSource(write(tmp_path / name, times=times))
    assert source.timestamps_s == pytest.approx([(time - times[0]) / 25 for time in times], abs=2e-3)
    assert [(remark or "") in text for text in source.remarks] == [True] * (remark is not None)


def test_the_default_of_several_streams_is_read_and_the_others_can_be(tmp_path: Path) -> None:
    path = write(tmp_path / "two.mkv", streams=2)
    assert "holds 2 streams of pictures (120x96, 120x96); number 0 is read" in VideoSource(path).remarks[0]
    second = VideoSource(path, stream=1)
    assert second.remarks == ()
    assert torch.equal(second.read(0, 3, 4), VideoSource(path).read(0, 3, 4))
    with pytest.raises(InputError, match="has no video stream 2; expected 0 to 1"):
        VideoSource(path, stream=2)


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=44100)
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 120, 96, "rgb24"
        cover.disposition = Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(FRAMES[0], format="rgb24")))
        wave = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        wave.sample_rate = 44100
        container.mux(sound.encode(wave))
        container.mux(sound.encode(None))
    with pytest.raises(InputError, match="only sound and a cover picture"):
        VideoSource(tmp_path / "song.mp4")


def test_another_size_midway_is_scaled_and_another_shape_refused(tmp_path: Path) -> None:
    small, large, upright = (
        write(tmp_path / f"{width}.ts", "mpeg2video", (width, height)).read_bytes()
        for width, height in ((120, 96), (240, 192), (96, 120))
    )
    (tmp_path / "sizes.ts").write_bytes(small + large)
    (tmp_path / "shapes.ts").write_bytes(small + upright)
    source = VideoSource(tmp_path / "sizes.ts")
    assert source.read(0, 0, source.time).shape[1:] == (96, 120, 3)
    assert any("another size" in remark for remark in source.remarks)
    with pytest.raises(InputError, match="the pictures are 96x120, before 120x96"):
        VideoSource(tmp_path / "shapes.ts")


@needs(DATA / "field_cases")
def test_clips_of_the_field_say_what_is_odd_about_them() -> None:
    folder = DATA / "field_cases"
    points = np.random.default_rng(0).uniform(100, 200, (16, 68, 2))
    for name, time, remark in [
        ("anamorphic_sar15_11.mp4", 16, "scaled to 319x320"),
        ("truncated_faststart.mp4", None, "the file states 16 frames, of which"),
        ("vfr_11_of_16.mp4", 11, "missing frames: 5;"),
    ]:
        source = VideoSource(folder / name)
        assert time is None or source.time == time
        with pytest.warns(InputWarning, match=remark):
            clip = read_clip(folder / name, points[: source.time])
        assert clip.recording.timestamps_s == source.timestamps_s
        assert clip.recording.remarks == source.remarks
    views = [folder / "base16.mp4", folder / "vfr_11_of_16.mp4"]
    with pytest.warns(InputWarning, match="missing frames: 5;|matched by time|misses 5"):
        both = read_clip(views, [points, points[:11]])
    assert any("misses 5 of 16 frames" in remark for remark in both.recording.remarks)
    times = np.array(VideoSource(views[1]).timestamps_s)
    present = np.abs(np.array(both.recording.timestamps_s)[:, None] - times).min(1) < 1e-3
    assert both.track.found[1].numpy().tolist() == present.tolist()
    assert both.recording.frames.read(1, 0, 16).flatten(1).any(1).tolist() == present.tolist()
