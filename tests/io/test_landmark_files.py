"""Landmark archives: real ones, round trips and damaged ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from data_folders import DATA, required

from neuface.errors import InputError
from neuface.io.landmarks import read_landmarks, write_landmarks
from neuface.landmarks.arrays import as_landmarks
from neuface.structs import Landmarks

REAL_FILES = {
    "grid_corpus/bbaf2n.landmarks.npz": (1, (75, 478, 2)),
    "intel_head_pose/head-pose-face-detection-female-and-male.landmarks.npz": (1, (56, 2, 478, 2)),
    "caliscope_4view/calibration_session/mediapipe_landmarks.npz": (4, (111, 478, 2)),
}


@pytest.mark.parametrize("name", REAL_FILES)
def test_real_files(name: str) -> None:
    arrays, scheme = read_landmarks(required(DATA / name))
    views, shape = REAL_FILES[name]
    assert (len(arrays), arrays[0].shape, scheme) == (views, shape, "mediapipe478")


def test_round_trip_keeps_points_confidence_and_gaps(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(2, 3, 68, generator=generator)
    confidence[1, 2] = 0
    points = torch.rand(2, 3, 68, 2, generator=generator) * 100
    landmarks = Landmarks(
        points_px=points * (confidence > 0)[..., None], confidence=confidence, scheme="ibug68"
    )
    write_landmarks(tmp_path / "a.npz", landmarks)
    arrays, scheme = read_landmarks(tmp_path / "a.npz")
    back = as_landmarks(arrays, 2, 3)
    assert scheme == back.scheme == "ibug68"
    assert torch.equal(back.points_px, landmarks.points_px)
    assert torch.equal(back.confidence, confidence)


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
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
        "scheme.npz": "has 68 points",
        "unknown.npz": "wflw98",
        "single.npz": "single array",
    }
    for name, message in cases.items():
        with pytest.raises(InputError, match=message):
            read_landmarks(tmp_path / name)
