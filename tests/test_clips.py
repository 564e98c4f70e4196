"""`read_clip` from all kinds of input, and what it says about unusable ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from data_folders import DATA, needs

from neuface.clips import read_clip, read_people
from neuface.cropping import source_crops, steady_crops
from neuface.errors import InputError
from neuface.frames import ArraySource
from neuface.io.inputs import open_footage
from neuface.io.landmarks import write_landmarks
from neuface.io.video import write_video
from neuface.landmarks.arrays import as_track
from neuface.landmarks.candidates import FrameFaces
from neuface.landmarks.schemes import IBUG68
from neuface.structs import Selection, Status

TIME = 6
FRAMES = np.random.default_rng(0).integers(0, 256, (TIME, 60, 80, 3), np.uint8)
POINTS = np.random.default_rng(1).uniform(20, 50, (TIME, 68, 2)).astype(np.float32)


class CentreDetector:
    """Finds a face in every bright frame."""

    scheme = IBUG68

    def detect(self, frames: torch.Tensor) -> list[FrameFaces]:
        face = FrameFaces(
            points_px=torch.from_numpy(POINTS[:1]), confidence=torch.ones(1, 68), score=torch.ones(1)
        )
        return [face if frame.float().mean() > 50 else FrameFaces.none(68) for frame in frames]


def test_arrays_become_a_clip_with_default_names_and_rate() -> None:
    clip = read_clip(FRAMES, POINTS)
    assert (clip.views, clip.time, clip.recording.fps, clip.recording.names) == (1, TIME, 25.0, ("view0",))
    assert clip.track.usable.all()
    assert read_clip(clip) is clip
    both = read_clip(
        torch.from_numpy(np.stack([FRAMES] * 2)), np.stack([POINTS] * 2), names=["a", "b"], fps=50
    )
    assert (both.views, both.recording.fps, both.recording.names) == (2, 50.0, ("a", "b"))
    assert read_clip(ArraySource(FRAMES), POINTS).time == TIME


def test_views_may_differ_in_size() -> None:
    clip = read_clip([FRAMES, FRAMES[:, :50, :70]], [POINTS, POINTS])
    assert clip.recording.sizes_hw == [(60, 80), (50, 70)]
    crops = steady_crops(clip.track, clip.recording.sizes_hw)
    assert source_crops(clip.recording.frames, crops).shape == (2, TIME, 3, 224, 224)


def test_files_of_one_and_of_several_views(tmp_path: Path) -> None:
    for name in ("left", "right"):
        write_video(tmp_path / f"{name}.mp4", FRAMES, 30)
    one, two = tmp_path / "one.npz", tmp_path / "two.npz"
    write_landmarks(one, as_track(POINTS, 1, TIME))
    write_landmarks(two, as_track([POINTS, POINTS], 2, TIME))
    left = read_clip(str(tmp_path / "left.mp4"), one)
    assert (left.recording.names, left.recording.fps) == (("left",), 30.0)
    videos = [tmp_path / "left.mp4", tmp_path / "right.mp4"]
    for landmarks in (two, [one, one], [POINTS, POINTS]):
        clip = read_clip(videos, landmarks)
        assert clip.recording.names == ("left", "right")
        assert torch.equal(clip.track.points_px[1], left.track.points_px[0])
    with pytest.raises(InputError, match=r"landmarks of 1 view\(s\), the clip has 2"):
        read_clip(videos, one)
    with pytest.raises(InputError, match="one file per view"):
        read_clip(videos, [one])
    same = read_clip([tmp_path / "left.mp4"] * 2, two)
    assert len(set(same.recording.names)) == 2


def test_max_frames_cuts_frames_and_landmarks() -> None:
    clip = read_clip(FRAMES, POINTS, max_frames=4)
    assert (clip.time, clip.track.points_px.shape[1], clip.track.usable.shape) == (4, 4, (1, 4))
    assert read_clip(FRAMES, POINTS, max_frames=100).time == TIME
    assert read_clip(FRAMES, POINTS[:4], max_frames=4).track.found.shape == (1, 4)
    with pytest.raises(InputError, match=f"5 frames of landmarks for a video of {TIME}"):
        read_clip(FRAMES, POINTS[:5], max_frames=4)


def test_frames_with_few_points_are_not_valid() -> None:
    points = POINTS.copy()
    points[1] = np.nan
    points[2, 5:] = np.nan
    points[3, 6:] = np.nan
    clip = read_clip(FRAMES, points)
    assert clip.track.usable[0].tolist() == [True, False, False, True, True, True]
    assert steady_crops(clip.track, clip.recording.sizes_hw).T_crop_frame.isfinite().all()


def test_detector_is_used_when_no_landmarks_are_given() -> None:
    frames = np.full((40, 60, 80, 3), 200, np.uint8)
    frames[20] = 0
    clip = read_clip(frames, detector=CentreDetector(), max_frames=30)
    assert clip.time == 30
    assert (~clip.track.usable[0]).nonzero()[:, 0].tolist() == [20]
    assert clip.track.status is not None
    assert clip.track.status[0, 20] == Status.UNREADABLE


def test_a_clip_without_any_face_has_no_usable_frame() -> None:
    black = read_clip(np.zeros_like(FRAMES), detector=CentreDetector())
    assert not black.track.usable.any()
    assert black.selection == Selection(people=0, number=0, rule="the person who is present in most frames")
    late = POINTS.copy()
    late[:3] = np.nan
    assert not read_clip(FRAMES, late, max_frames=3).track.usable.any()


def test_unusable_options_and_landmarks_are_refused() -> None:
    with pytest.raises(InputError, match="max_frames"):
        read_clip(FRAMES, POINTS, max_frames=0)
    with pytest.raises(InputError, match="fps"):
        read_clip(FRAMES, POINTS, fps=0)
    with pytest.raises(InputError, match="names"):
        read_clip(FRAMES, POINTS, names=["a", "b"])
    with pytest.raises(InputError, match="paths only or arrays only"):
        read_clip([FRAMES, "a.mp4"], POINTS)
    with pytest.raises(InputError, match="paths only or arrays only"):
        read_clip([FRAMES, FRAMES], [POINTS, "a.npz"])
    with pytest.raises(InputError, match="no such file"):
        read_clip("missing.mp4", POINTS)
    with pytest.raises(InputError, match="no such landmark file"):
        read_clip(FRAMES, "missing.npz")


@needs(DATA / "caliscope_4view")
def test_four_real_cameras() -> None:
    folder = DATA / "caliscope_4view" / "calibration_session"
    videos = [folder / f"cam_{camera}.mp4" for camera in range(4)]
    clip = read_clip(videos, folder / "mediapipe_landmarks.npz", max_frames=3)
    assert (clip.views, clip.time, clip.recording.fps) == (4, 3, 6.0)
    assert clip.track.usable.any()
    assert clip.recording.names == ("cam_0", "cam_1", "cam_2", "cam_3")


@needs(DATA / "caliscope_4view")
def test_a_fist_that_holds_a_board_is_no_person() -> None:
    """The landmark network takes it for a face in all these frames."""
    footage = open_footage(DATA / "caliscope_4view" / "calibration_session" / "cam_2.mp4")
    (man,) = read_people(footage.frames.read(0, 84, 111))
    assert man.track.usable.all()
    assert float(man.track.points_px[0].mean(1)[:, 1].max()) < 400


@needs(DATA / "intel_head_pose")
def test_one_of_two_real_faces_is_followed() -> None:
    name = "head-pose-face-detection-female-and-male"
    folder = DATA / "intel_head_pose"
    clip = read_clip(folder / f"{name}.gif", folder / f"{name}.landmarks.npz")
    centres = clip.track.points_px[0][clip.track.usable[0]].mean(1)
    assert clip.track.usable.float().mean() > 0.9
    assert centres.diff(dim=0).norm(dim=-1).max() < 60
