"""Frames from files, folders, patterns, iterators and captures, and what is asked when it is not clear."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from neuface.errors import InputError
from neuface.frames import ArraySource
from neuface.io.inputs import open_footage
from neuface.io.video import VideoSource, write_image, write_video

TIME = 12
FRAMES = np.random.default_rng(0).integers(0, 256, (TIME, 20, 30, 3), np.uint8)


def write_pictures(folder: Path, name: str = "frame_{}.png", numbers: range = range(TIME)) -> list[Path]:
    """Pictures of `FRAMES` whose numbers have no leading zeros."""
    paths = [folder / name.format(number) for number in numbers]
    for path, picture in zip(paths, FRAMES, strict=False):
        write_image(path, picture)
    return paths


def test_a_folder_a_pattern_and_a_list_of_pictures_are_one_clip_in_natural_order(tmp_path: Path) -> None:
    folder = tmp_path / "seq"
    paths = write_pictures(folder)
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"")
    backwards = [str(path) for path in reversed(paths)]
    for given in (folder, f"{folder}/frame_%d.png", folder / "frame_*.png", backwards, [backwards]):
        footage = open_footage(given)
        assert (footage.frames.views, footage.frames.time, footage.names) == (1, TIME, ("seq",))
        assert np.array_equal(footage.frames.read(0, 0, TIME).numpy(), FRAMES)
        assert footage.timestamps_s == pytest.approx([t / 25 for t in range(TIME)])
        assert footage.remarks == ()
    assert open_footage(folder, fps=10).timestamps_s[1] == 0.1


def test_several_folders_are_views(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_pictures(tmp_path / name)
    footage = open_footage([tmp_path / "a", f"{tmp_path}/b/frame_*.png"])
    assert (footage.frames.views, footage.frames.time, footage.names) == (2, TIME, ("a", "b"))
    stills = open_footage([[tmp_path / "a" / "frame_3.png"], [tmp_path / "b" / "frame_4.png"]])
    assert (stills.frames.views, stills.frames.time) == (2, 1)
    assert np.array_equal(stills.frames.read(1, 0, 1)[0].numpy(), FRAMES[4])


def test_missing_numbers_leave_room_in_time_and_damaged_pictures_are_black(tmp_path: Path) -> None:
    write_pictures(tmp_path, "{}.png", range(100, 100 + 5 * TIME, 5))
    (tmp_path / "110.png").unlink()
    (tmp_path / "130.png").write_bytes(b"broken")
    whole = (tmp_path / "140.png").read_bytes()
    (tmp_path / "140.png").write_bytes(whole[:60])
    footage = open_footage(tmp_path)
    assert footage.frames.time == TIME - 1
    assert footage.timestamps_s[:4] == pytest.approx((0, 1 / 25, 3 / 25, 4 / 25))
    assert not footage.frames.read(0, 5, 6).any()
    assert not footage.frames.read(0, 7, 8).any()
    assert footage.frames.read(0, 6, 7).any()
    assert "missing numbers: 1" in footage.remarks[0]
    assert "130.png" in footage.remarks[1]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["left.png", "right.png"], "one video or several|whether 2 pictures"),
        (["cam_0.png", "cam_1.png", "cam_2.png"], "several cameras"),
        (["cam0_1.png", "cam0_2.png", "cam1_1.png", "cam1_2.png"], "several cameras"),
        (["a_1.png", "b_2.png"], "whether 2 pictures are one video"),
        (["1.png", "2.bmp"], "whether 2 pictures are one video"),
    ],
)
def test_pictures_whose_order_is_not_clear_are_asked_about(
    tmp_path: Path, names: list[str], message: str
) -> None:
    for name in names:
        write_image(tmp_path / name, FRAMES[0])
    for given in (tmp_path, [tmp_path / name for name in names]):
        with pytest.raises(InputError, match=message):
            open_footage(given)


def test_inputs_that_mean_no_clip_are_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "a.mp4", FRAMES, 25)
    write_image(tmp_path / "mixed" / "0.png", FRAMES[0])
    write_image(tmp_path / "mixed" / "1.png", FRAMES[0, :10])
    os.mkfifo(tmp_path / "pipe")
    cases: list[tuple[object, str]] = [
        (tmp_path / "empty", "folder without pictures"),
        (tmp_path / "videos", "folder of videos"),
        (tmp_path, "folder of folders"),
        (tmp_path / "none_%03d.png", "no file is named like this"),
        (tmp_path / "*.png", "no file is named like this"),
        (tmp_path / "mixed", "1.png: is 30x10|0.png: is 30x20"),
        (tmp_path / "pipe", "device or pipe"),
        ("rtsp://camera/stream", "address of a stream"),
        ("https://example.org/talk.mp4", "address of a stream"),
        ([tmp_path / "videos" / "a.mp4", tmp_path / "mixed" / "0.png"], "both pictures and videos"),
        ([tmp_path / "videos" / "a.mp4", FRAMES], "paths only or arrays only"),
        ({"a": 1}, "got dict"),
        (b"talk.mp4", "got bytes"),
        (None, "got NoneType"),
    ]
    for given, message in cases:
        with pytest.raises(InputError, match=message):
            open_footage(given)


def test_a_name_with_pattern_signs_that_exists_is_that_file(tmp_path: Path) -> None:
    write_video(tmp_path / "a%03d [1]*.mp4", FRAMES, 25)
    assert open_footage(tmp_path / "a%03d [1]*.mp4").frames.time == TIME


def endless() -> Iterator[np.ndarray]:
    while True:
        yield from FRAMES


@pytest.mark.parametrize(
    "items",
    [
        iter(FRAMES),
        (torch.from_numpy(frame) for frame in FRAMES),
        (FRAMES[start : start + 5] for start in range(0, TIME, 5)),
        map(np.asarray, FRAMES),
        (frame / 255 for frame in FRAMES),
    ],
)
def test_iterators_are_read_once_and_kept(items: Iterator[object]) -> None:
    footage = open_footage(items, fps=50)
    assert (footage.frames.views, footage.frames.time, footage.timestamps_s[1]) == (1, TIME, 0.02)
    assert np.array_equal(footage.frames.read(0, 3, 9).numpy(), FRAMES[3:9])
    assert np.array_equal(footage.frames.read(0, 0, 2).numpy(), FRAMES[:2])
    with pytest.raises(InputError, match="gave no frames"):
        open_footage(items)


def test_an_endless_iterator_ends_at_max_frames() -> None:
    assert open_footage(endless(), max_frames=30).frames.time == 30


def test_iterators_of_something_else_are_refused_by_item() -> None:
    for items, message in [
        (iter([FRAMES[0], "x"]), "item 1: expected pictures"),
        (iter([FRAMES[0], FRAMES[0, :5]]), r"picture 1 is \(5, 30\)"),
    ]:
        with pytest.raises(InputError, match=message):
            open_footage(items)


class Capture:
    """Reads like OpenCV's capture of a camera (no length) or of a file."""

    def __init__(self, length: int) -> None:
        self.length, self.taken = length, 0

    def isOpened(self) -> bool:
        return True

    def get(self, number: int) -> float:
        return {5: 12.5, 7: float(self.length)}[number]

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.taken += 1
        if 0 < self.length < self.taken:
            return False, None
        return True, FRAMES[(self.taken - 1) % TIME, ..., ::-1]


def test_a_capture_of_opencv_has_its_channels_reversed() -> None:
    footage = open_footage(Capture(TIME))
    assert np.array_equal(footage.frames.read(0, 0, TIME).numpy(), FRAMES)
    assert footage.timestamps_s[1] == 0.08
    with pytest.raises(InputError, match="live and has no end"):
        open_footage(Capture(0))
    assert open_footage(Capture(0), max_frames=20).frames.time == 20


def test_a_frame_source_keeps_its_own_times(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", FRAMES, 30)
    footage = open_footage(VideoSource(tmp_path / "a.mp4"))
    assert footage.timestamps_s[:2] == pytest.approx((0, 1 / 30))
    assert footage.names == ("a",)
    assert open_footage(ArraySource(FRAMES)).timestamps_s[1] == 0.04


def test_views_of_different_rates_and_offsets_are_matched_by_time(tmp_path: Path) -> None:
    fast, slow = FRAMES, FRAMES[:6]
    write_video(tmp_path / "fast.mp4", fast, 50)
    write_video(tmp_path / "slow.mp4", slow, 25)
    paths = [tmp_path / "fast.mp4", tmp_path / "slow.mp4"]
    footage = open_footage(paths)
    assert footage.chosen == ((0, 2, 4, 6, 8, 10), (0, 1, 2, 3, 4, 5))
    assert torch.equal(footage.frames.read(0, 2, 3), VideoSource(paths[0]).read(0, 4, 5))
    later = open_footage(paths, offsets_s=(0.0, 0.08))
    assert later.chosen == ((4, 6, 8, 10), (0, 1, 2, 3))
    assert any("matched by time" in remark for remark in later.remarks)
    write_video(tmp_path / "short.mp4", slow, 50)
    with pytest.raises(InputError, match=re.escape("(fast: 12 in 0.24 s, short: 6 in 0.12 s)")):
        open_footage([paths[0], tmp_path / "short.mp4"])
    with pytest.raises(InputError, match="share no time"):
        open_footage(paths, offsets_s=(0, 100))
    with pytest.raises(InputError, match="expected 2 times"):
        open_footage(paths, offsets_s=(0,))
