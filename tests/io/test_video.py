"""Frames in and out: exact counts and reads, round trips, and every unusable input."""

import math
import struct
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from data_folders import DATA, required

from neuface.errors import InputError
from neuface.io.video import VideoSource, read_video, write_image, write_video
from neuface.structs import FrameSource

REAL_VIDEOS = {
    "grid_corpus/bbaf2n.mpg": (75, 288, 360, 25.0),
    "intel_head_pose/asl_no.mkv": (66, 480, 640, 30.0),
    "intel_head_pose/head-pose-face-detection-female.gif": (23, 270, 480, 12.5),
    "nasa_astronaut/astronaut.png": (1, 512, 512, 25.0),
}


def moving_frames(time: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Smooth pictures whose mean brightness tells their number."""
    frames = np.zeros((time, height, width, 3), np.uint8)
    frames[...] = (20 + 200 * np.arange(time) / time)[:, None, None, None]
    frames[:, : height // 2] //= 2
    return frames


@pytest.mark.parametrize("name", REAL_VIDEOS)
def test_real_files_are_counted_and_read_exactly_in_any_order(name: str) -> None:
    source = VideoSource(required(DATA / name))
    time, height, width, fps = REAL_VIDEOS[name]
    assert isinstance(source, FrameSource)
    assert (source.time, source.size_hw(0), source.fps) == (time, (height, width), fps)
    in_order = torch.cat([source.read(0, start, min(start + 7, time)) for start in range(0, time, 7)])
    assert len(in_order) == time
    fresh = VideoSource(DATA / name)
    for index in {time - 1, time // 2, 0, time // 3}:
        assert torch.equal(fresh.read(0, index, index + 1)[0], in_order[index])


def test_sequential_reads_decode_each_frame_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "a.mp4", moving_frames(30), 25)
    source = VideoSource(tmp_path / "a.mp4")
    source.read(0, 0, 5)

    def fail(_index: int) -> None:
        raise AssertionError("jumped although the read continues")

    monkeypatch.setattr(source, "_move_to", fail)
    source.read(0, 5, 12)
    source.read(0, 3, 12)  # from the cache


def test_seeking_finds_the_exact_frame_in_a_long_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "long.mp4", moving_frames(600, 16, 16), 25)
    monkeypatch.setattr("neuface.io.video.CACHE_BYTES", 0)
    expected, _ = read_video(tmp_path / "long.mp4")
    source = VideoSource(tmp_path / "long.mp4")
    for index in (599, 300, 10, 520, 521, 255):
        assert torch.equal(source.read(0, index, index + 1)[0], expected[index])


@pytest.mark.parametrize(("height", "width"), [(48, 64), (47, 63)])
def test_written_video_reads_back(tmp_path: Path, height: int, width: int) -> None:
    frames = moving_frames(9, height, width)
    write_video(tmp_path / "new" / "a.mp4", iter(torch.from_numpy(frames)), 30000 / 1001)
    back, fps = read_video(tmp_path / "new" / "a.mp4")
    assert back.shape == (9, height + height % 2, width + width % 2, 3)
    assert math.isclose(fps, 30000 / 1001)
    difference = back[:, :height, :width].float() - torch.from_numpy(frames).float()
    assert difference.abs().mean() < 3
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.mp4"]


def test_uneven_frames_are_written_at_their_times(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.08, 0.2, 0.24, 0.5]
    write_video(tmp_path / "a.mp4", moving_frames(6), 25, timestamps_s=[3 + time for time in times])
    assert VideoSource(tmp_path / "a.mp4").timestamps_s == pytest.approx(times, abs=1e-3)
    even = [frame / 25 for frame in range(6)]
    write_video(tmp_path / "b.mp4", moving_frames(6), 25, timestamps_s=even)
    write_video(tmp_path / "c.mp4", moving_frames(6), 25)
    assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "c.mp4").read_bytes()


def test_rotation_in_the_container_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "phone.mp4"
    write_video(path, moving_frames(4, 48, 64), 25)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    data[matrix : matrix + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    upright, _ = read_video(path)
    assert upright.shape[1:3] == (64, 48)
    # A quarter turn clockwise: the dark upper half becomes the right half.
    last = upright[-1].float()
    assert last[:, 36:].mean() < 0.7 * last[:, :12].mean()


def test_image_round_trip_is_exact(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (31, 45, 3), np.uint8)
    write_image(tmp_path / "a%02d.png", torch.from_numpy(picture))
    source = VideoSource(tmp_path / "a%02d.png")
    assert np.array_equal(source.read(0, 0, 1)[0].numpy(), picture)


def test_truncated_video_keeps_what_decodes(tmp_path: Path) -> None:
    whole = tmp_path / "whole.mkv"
    noise = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), np.uint8)
    with av.open(str(whole), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for picture in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    source = VideoSource(cut)
    assert 1 <= source.time < 20
    assert len(source.read(0, 0, source.time)) == source.time


def test_bad_files_are_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(4000))
    (tmp_path / "words.txt").write_text("not a video\n" * 50)
    write_video(tmp_path / "ok.mp4", moving_frames(5), 25)
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "ok.mp4").read_bytes()[:300])
    cases = {
        "none.mp4": "no such file",
        ".": "is a folder",
        "empty.mp4": "is empty",
        "noise.mp4": "cannot be read|no video|no frame",
        "words.txt": "cannot be read|no video",
        "cut.mp4": "cannot be read|no frame",
    }
    for name, message in cases.items():
        with pytest.raises(InputError, match=message):
            VideoSource(tmp_path / name)


def test_a_file_with_sound_alone_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(InputError, match="only sound"):
        VideoSource(tmp_path / "sound.wav")


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    good, other = moving_frames(1)[0], moving_frames(1, 20, 20)[0]
    for frames, message in [([], "no frames"), ([good, other], "one size"), ([good, good / 2], "uint8")]:
        with pytest.raises(InputError, match=message):
            write_video(path, frames, 25)
    with pytest.raises(InputError, match="positive"):
        write_video(path, [good], 0)
    with pytest.raises(InputError, match="is a folder"):
        write_video(tmp_path, [good], 25)
    with pytest.raises(InputError, match="uint8"):
        write_image(tmp_path / "a.png", good[..., 0])
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]
