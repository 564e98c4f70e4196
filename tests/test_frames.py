"""Frame sources in memory, and sources made of others."""

from __future__ import annotations

import io
import math
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from neuface.errors import InputError
from neuface.frames import ArraySource, FirstFrames, MultiSource, Recording, SomeViews, evenly_timed
from neuface.geometry.perspective import PerspectiveCamera
from neuface.io.video import VideoSource, write_video


def moving_frames(time: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Smooth pictures whose mean brightness tells their number."""
    frames = np.zeros((time, height, width, 3), np.uint8)
    frames[...] = (20 + 200 * np.arange(time) / time)[:, None, None, None]
    frames[:, : height // 2] //= 2
    return frames


def test_array_source_layouts_agree() -> None:
    frames = moving_frames(6)
    for value, views in [
        (frames, 1),
        (torch.from_numpy(frames), 1),
        (np.stack([frames, frames]), 2),
        (torch.from_numpy(np.stack([frames, frames])), 2),
        ([frames, frames[:, ::2]], 2),
    ]:
        source = ArraySource(value)
        assert (source.views, source.time, source.size_hw(0)) == (views, 6, (48, 64))
        assert np.array_equal(source.read(0, 2, 4).numpy(), frames[2:4])
    assert ArraySource([frames, frames[:, ::2]]).size_hw(1) == (24, 64)


def test_reads_never_share_memory_with_the_callers_array() -> None:
    frames = moving_frames(3)
    for value in (frames, torch.from_numpy(frames)):
        ArraySource(value).read(0, 0, 3).zero_()
    assert frames.any()


def test_every_form_of_pictures_gives_the_same_bytes() -> None:
    frames = moving_frames(4)
    grey = frames[..., 0]
    opaque = np.concatenate([frames, np.full_like(frames[..., :1], 255)], -1)
    forms = [
        frames.astype(np.int64),
        frames.astype(np.float32),
        frames / np.float64(255),
        torch.from_numpy(frames) / 255,
        frames.astype(">u2"),
        frames.transpose(0, 3, 1, 2),
        torch.from_numpy(frames.copy()).permute(0, 3, 1, 2).half() / 255,
        opaque,
        opaque / 255,
        grey,
        grey[..., None],
        grey[:, None],
        list(frames),
        list(torch.from_numpy(frames).permute(0, 3, 1, 2)),
        [frame / 255 for frame in frames],
        list(grey),
        [Image.fromarray(frame) for frame in frames],
        [av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames],
    ]
    for form in forms:
        source = ArraySource(form)
        assert (source.views, source.time, source.size_hw(0)) == (1, 4, (48, 64))
        # float16 holds 0..1 in steps of half a level.
        assert np.abs(source.read(0, 1, 3).numpy().astype(int) - frames[1:3]).max() <= 1
    one = ArraySource(frames[0])
    assert (one.time, one.size_hw(0)) == (1, (48, 64))
    views = ArraySource([list(frames), list(frames)])
    assert (views.views, views.time) == (2, 4)


def test_pictures_of_pil_are_turned_upright() -> None:
    picture = Image.fromarray(moving_frames(3)[1])
    exif = picture.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", exif=exif)
    assert ArraySource([Image.open(buffer)]).size_hw(0) == (64, 48)


TRANSPARENT = np.zeros((2, 8, 8, 4), np.uint8)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (moving_frames(2).astype(np.float32) / 127.5 - 1, r"\(frames \+ 1\) \* 127.5"),
        (moving_frames(2).astype(np.uint16) * 257, "divide 16 bits by 257"),
        (np.full((2, 8, 8, 3), np.nan), "values from nan"),
        (np.zeros((2, 8, 8, 3), bool), "expected 0 to 255"),
        (TRANSPARENT, r"frames\[..., :3\]"),
        (np.zeros((3, 40, 50), np.uint8), "may be one picture"),
        (np.zeros((2, 8, 8, 5), np.uint8), "3 channels of RGB"),
        (np.zeros((0, 8, 8, 3), np.uint8), "no frames"),
        ([], "no views"),
        ("text", "got str"),
        ({"frames": moving_frames(2)}, "got dict"),
        ([moving_frames(3), moving_frames(5)], "view 0: 3, view 1: 5"),
        ([moving_frames(3)[0], moving_frames(5)], "both pictures and videos"),
        ([moving_frames(1)[0], moving_frames(1, 10, 10)[0]], r"picture 1: is \(10, 10\)"),
        ([Image.new("I;16", (8, 8))], "mode I;16"),
        ([Image.new("RGBA", (8, 8))], "not opaque"),
    ],
)
def test_unusable_arrays_are_refused(value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ArraySource(value)


def test_multi_source_joins_views_and_names_unequal_ones(tmp_path: Path) -> None:
    write_video(tmp_path / "left.mp4", moving_frames(4), 25)
    write_video(tmp_path / "right.mp4", moving_frames(6, 32, 32), 25)
    left, right = VideoSource(tmp_path / "left.mp4"), VideoSource(tmp_path / "right.mp4")
    with pytest.raises(InputError, match="left: 4, right: 6"):
        MultiSource([left, right])
    with pytest.raises(InputError, match="no views"):
        MultiSource([])
    both = MultiSource([left, FirstFrames(right, 4)])
    assert (both.views, both.time, both.size_hw(1)) == (2, 4, (32, 32))
    assert torch.equal(both.read(1, 1, 3), right.read(0, 1, 3))


def test_ranges_outside_the_clip_are_refused() -> None:
    source = ArraySource(moving_frames(3))
    with pytest.raises(InputError, match="has 3 frames"):
        source.read(0, 1, 4)
    with pytest.raises(InputError, match="view 1"):
        source.read(1, 0, 1)
    assert source.read(0, 1, 1).shape == (0, 48, 64, 3)


def test_some_views_of_a_source() -> None:
    views = [moving_frames(3), moving_frames(3, 20, 30), moving_frames(3, 10, 12)]
    others = SomeViews(ArraySource(views), (2, 0))
    assert (others.views, others.time, others.size_hw(0), others.size_hw(1)) == (2, 3, (10, 12), (48, 64))
    assert np.array_equal(others.read(1, 1, 3).numpy(), views[0][1:3])
    with pytest.raises(InputError, match="view 2 does not exist"):
        others.read(2, 0, 1)


@pytest.mark.parametrize("fps", [6.0, 12.5, 25.0, 30000 / 1001, 30.0])
def test_the_frame_rate_follows_from_the_time_stamps(fps: float) -> None:
    frames = ArraySource(moving_frames(7, 4, 4))
    recording = Recording(frames=frames, timestamps_s=evenly_timed(7, fps), names=("a",))
    assert recording.fps == round(fps, 6)


def test_some_views_of_a_recording_keep_their_names_and_times() -> None:
    frames = ArraySource([moving_frames(2), moving_frames(2, 20, 30), moving_frames(2, 10, 12)])
    recording = Recording(frames=frames, timestamps_s=(0.0, 0.4), names=("a", "b", "c"))
    others = recording.some_views([2, 0])
    assert (others.names, others.timestamps_s, others.sizes_hw) == (
        ("c", "a"),
        (0.0, 0.4),
        [(10, 12), (48, 64)],
    )


@pytest.mark.parametrize(
    ("times", "names", "message"),
    [
        ((0.0,), ("a",), "expected 2 increasing times"),
        ((0.1, 0.1), ("a",), "expected 2 increasing times"),
        ((0.0, math.nan), ("a",), "expected 2 increasing times"),
        ((math.nan, 0.1), ("a",), "expected 2 increasing times"),
        ((0.0, math.inf), ("a",), "expected 2 increasing times"),
        ((0.0, 0.1), ("a", "b"), r"expected 1 different name\(s\)"),
    ],
)
def test_times_and_names_must_fit_the_frames(
    times: tuple[float, ...], names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Recording(frames=ArraySource(moving_frames(2)), timestamps_s=times, names=names)


def test_there_is_one_camera_for_every_view() -> None:
    camera = PerspectiveCamera(
        K=torch.eye(3).expand(2, 3, 3),
        distortion=torch.zeros(2, 5),
        rotation=torch.eye(3).expand(2, 3, 3),
        translation=torch.zeros(2, 3),
    )
    frames = ArraySource(moving_frames(2))
    with pytest.raises(InputError, match=r"cameras: expected 1 camera\(s\), one per view"):
        Recording(frames=frames, timestamps_s=(0.0, 0.1), names=("a",), cameras=camera)
    calibrated = Recording(frames=frames, timestamps_s=(0.0, 0.1), names=("a",), cameras=camera[:1])
    assert calibrated.cameras is not None
    assert calibrated.cameras.K.shape == (1, 3, 3)
