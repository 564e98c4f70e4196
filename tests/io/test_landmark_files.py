"""Landmark archives: real ones, round trips and damaged ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data_folders import DATA, required

from neuface.clips import read_clip
from neuface.errors import InputError
from neuface.io.landmarks import read_landmarks, write_landmarks
from neuface.landmarks import schemes
from neuface.landmarks.schemes import IBUG68, MEDIAPIPE478
from neuface.structs import Track

REAL_FILES = {
    "grid_corpus/bbaf2n.landmarks.npz": (1, 75, 478, 2),
    "intel_head_pose/head-pose-face-detection-female-and-male.landmarks.npz": (1, 56, 478, 2),
    "caliscope_4view/calibration_session/mediapipe_landmarks.npz": (4, 111, 478, 2),
}


@pytest.mark.parametrize("name", REAL_FILES)
def test_landmark_files_of_real_clips_are_read(name: str) -> None:
    landmarks = read_landmarks(required(DATA / name))
    assert tuple(landmarks.points_px.shape) == REAL_FILES[name]
    assert landmarks.scheme is MEDIAPIPE478


def test_round_trip_keeps_points_confidence_and_gaps(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(2, 3, 68, generator=generator)
    confidence[1, 2] = 0
    points = torch.rand(2, 3, 68, 2, generator=generator) * 100
    landmarks = Track(points_px=points * (confidence > 0)[..., None], confidence=confidence, scheme=IBUG68)
    write_landmarks(tmp_path / "a.npz", landmarks)
    back = read_landmarks(tmp_path / "a.npz")
    assert back.scheme is IBUG68
    assert torch.equal(back.points_px, landmarks.points_px)
    assert torch.equal(back.confidence, confidence)


def test_the_scheme_that_a_file_names_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stated scheme is used although another one has as many points."""
    other = replace(IBUG68, name="scan68", contour_noise=1.0)
    monkeypatch.setattr(schemes, "SCHEMES", {**schemes.SCHEMES, "scan68": other})
    points = np.random.default_rng(0).uniform(20, 50, (3, 68, 2))
    np.savez(tmp_path / "named.npz", points_px=points, scheme="scan68")
    np.savez(tmp_path / "unnamed.npz", points_px=points)
    frames = np.zeros((3, 60, 80, 3), np.uint8)
    assert read_clip(frames, tmp_path / "named.npz").track.scheme is other
    assert read_clip(frames, [tmp_path / "named.npz"]).track.scheme is other
    assert read_clip(frames, tmp_path / "unnamed.npz").track.scheme is IBUG68
    with pytest.raises(InputError, match=r"named\.npz: scan68, .*unnamed\.npz: ibug68"):
        read_clip([frames, frames], [tmp_path / "named.npz", tmp_path / "unnamed.npz"])


def test_damaged_and_other_files_are_refused_by_name(tmp_path: Path) -> None:
    points = np.ones((3, 68, 2), np.float32)
    np.savez(tmp_path / "good.npz", points_px=points)
    content = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.npz").touch()
    (tmp_path / "words.npz").write_text("no archive")
    np.savez(tmp_path / "foreign.npz", vertices=points)
    np.savez(tmp_path / "objects.npz", points_px=np.array([{}], dtype=object))
    np.savez(tmp_path / "axes.npz", points_px=points[0])
    np.savez(tmp_path / "count.npz", points_px=points[:, :5])
    np.savez(tmp_path / "scheme.npz", points_px=points, scheme="mediapipe478")
    np.savez(tmp_path / "unknown.npz", points_px=points, scheme="wflw98")
    with (tmp_path / "single.npz").open("wb") as stream:
        np.save(stream, points)
    cases = {
        "none.npz": "no such",
        ".": "is a folder",
        "cut.npz": "cut short",
        "empty.npz": "cut short",
        "words.npz": "cannot be read",
        "foreign.npz": "its keys: vertices",
        "objects.npz": "cannot be read",
        "axes.npz": r"shape \(68, 2\)",
        "count.npz": "5 points",
        "scheme.npz": "has 68 points per frame",
        "unknown.npz": "wflw98",
        "single.npz": "single array",
    }
    for name, message in cases.items():
        with pytest.raises(InputError, match=message):
            read_landmarks(tmp_path / name)
