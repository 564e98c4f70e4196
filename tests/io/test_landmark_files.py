"""Landmark archives: real ones, round trips and damaged ones."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data_folders import DATA, needs, required

from neuface.clips import read_clip
from neuface.errors import InputError
from neuface.io.landmarks import read_faces, read_landmarks, write_landmarks
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
    (tmp_path / "folder").mkdir()
    (tmp_path / "words.npz").write_text("no archive")
    np.savez(tmp_path / "foreign.npz", vertices=np.ones((3, 4654, 3)))
    np.savez(tmp_path / "objects.npz", points_px=np.array([{}], dtype=object))
    np.savez(tmp_path / "axes.npz", points_px=points[..., None])
    np.savez(tmp_path / "count.npz", points_px=points[:, :5])
    np.savez(tmp_path / "scheme.npz", points_px=points, scheme="mediapipe478")
    np.savez(tmp_path / "unknown.npz", points_px=points, scheme="wflw98")
    (tmp_path / "talk.pkl").write_bytes(b"\x80\x04.")
    (tmp_path / "talk.txt").write_text("1 2 3")
    np.savez(tmp_path / "two.npz", a=points, b=points)
    np.savez(tmp_path / "axis.npz", a=np.ones((3, 3, 68, 2)))
    np.save(tmp_path / "whole.npy", points)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:-7])
    (tmp_path / "cut.csv").write_text("frame, x_0, y_0\n1, 2, 3\n2, 4")
    (tmp_path / "other.csv").write_text("time,value\n1,2\n")
    (tmp_path / "cut.json").write_text("[[[1, 2], [3")
    (tmp_path / "other.json").write_text('{"a": [1], "b": [2]}')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "cut.pts").write_text("version: 1\nn_points: 3\n{\n1 2\n3 4\n}")
    cases = {
        "none.npz": "no such",
        "folder": "is a folder without pts",
        "cut.npz": "cut short",
        "empty.npz": "cut short",
        "words.npz": "cannot be read",
        "foreign.npz": "Its keys: vertices",
        "objects.npz": "cannot be read",
        "axes.npz": r"shape \(3, 68, 2, 1\)",
        "count.npz": r"shape \(3, 5, 2\)",
        "scheme.npz": "has 68 points per frame",
        "unknown.npz": "wflw98",
        "talk.pkl": "can execute code",
        "talk.txt": "Expected npz or npy",
        "two.npz": r"several arrays may be meant \(a, b\)",
        "axis.npz": "views or frames",
        "cut.npy": "cut short",
        "cut.csv": "row 3: no numbers",
        "other.csv": "has no columns x_0",
        "cut.json": "is no json",
        "other.json": "not clear where the points are",
        "deep.json": "is no json",
        "cut.pts": "no whole annotation",
    }
    for name, message in cases.items():
        with pytest.raises(InputError, match=message):
            read_landmarks(tmp_path / name)


FACES = np.random.default_rng(1).uniform(20, 50, (4, 2, 68, 2)).astype(np.float32).round(2)
"""Four frames of two faces; in the third frame nobody is seen."""
FACES[2] = np.nan


def seen(path: Path, views: int | None = None, lengths: tuple[int, ...] = ()) -> np.ndarray:
    """The points of a file, NaN where they are missing: `(time, faces, points, 2)`."""
    faces = read_faces(path, views=views, lengths=lengths)
    points = faces.points_px.masked_fill((faces.confidence == 0)[..., None], float("nan"))
    return points[0].numpy()


@pytest.mark.parametrize("key", ["lmk", "arr_0", "face_landmark_2d", "landmarks", "points_px"])
def test_one_array_is_found_under_any_key(tmp_path: Path, key: str) -> None:
    np.savez(tmp_path / "a.npz", **{key: FACES[:, 0], "times": np.arange(4), "boxes": np.ones((4, 4))})
    assert np.array_equal(seen(tmp_path / "a.npz")[:, 0], FACES[:, 0], equal_nan=True)
    np.savez(tmp_path / "faces.npz", **{key: FACES})
    assert np.array_equal(seen(tmp_path / "faces.npz", views=1, lengths=(4,)), FACES, equal_nan=True)


def test_npy_and_text_files_agree(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", FACES[:, 0])
    listed = [None if frame == 2 else FACES[frame].tolist() for frame in range(4)]
    names = [f"{axis}_{number}" for axis in "xy" for number in range(68)]
    lines = ["frame, face_id, timestamp, confidence, success, " + ", ".join(names)]
    for frame in (0, 1, 3):
        for face in range(2):
            x_y = ", ".join(f"{number}" for number in FACES[frame, face].T.flatten())
            lines.append(f"{frame + 1}, {face}, 0.0, 1.0, 1, {x_y}")
    lines.append("3, 0, 0.0, 0.02, 0, " + ", ".join(["0"] * 136))
    (tmp_path / "a.csv").write_text("\n".join(lines))
    by_name = [
        {"faces": [{"landmarks": [{"x": x, "y": y} for x, y in face]} for face in frame or []]}
        for frame in listed
    ]
    for name, value in [
        ("list", listed),
        ("key", {"fps": 25, "landmarks": listed}),
        ("numbered", {str(number): frame for number, frame in enumerate(listed) if frame}),
        ("named", {"frames": by_name}),
    ]:
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
        assert np.array_equal(seen(tmp_path / f"{name}.json"), FACES, equal_nan=True), name
    assert np.array_equal(seen(tmp_path / "a.csv"), FACES, equal_nan=True)
    assert len(seen(tmp_path / "a.csv", views=1, lengths=(7, 5))) == 5
    assert np.array_equal(seen(tmp_path / "a.npy")[:, 0], FACES[:, 0], equal_nan=True)


def test_a_folder_of_pts_is_read_in_natural_order_and_counts_from_one(tmp_path: Path) -> None:
    for number in range(12):
        rows = "\n".join(f"{x + 1 + number} {y + 1}" for x, y in FACES[0, 0])
        (tmp_path / f"f{number}.pts").write_text(f"version: 1\nn_points:  68\n{{\n{rows}\n}}\n")
    points = seen(tmp_path)
    assert points.shape == (12, 1, 68, 2)
    assert np.allclose(points[11, 0], FACES[0, 0] + (11, 0), atol=1e-4)
    assert np.allclose(seen(tmp_path / "f0.pts")[0, 0], FACES[0, 0], atol=1e-4)


@needs(DATA / "field_cases")
@pytest.mark.parametrize("name", ["lm.npy", "openface_like.csv", "landmarks_key_3d.npz"])
def test_files_of_other_programs_agree_with_ours(name: str) -> None:
    folder = DATA / "field_cases"
    ours = read_clip(folder / "base16.mp4", folder / "base16.landmarks.npz").track
    theirs = read_clip(folder / "base16.mp4", folder / name).track
    assert theirs.found.float().mean() > 0.8
    both = theirs.found & ours.found
    assert (theirs.points_px[both] - ours.points_px[both]).abs().max() < 1.0
