"""Camera files: what is read, what is refused, and the real session's numbers against what its cameras saw."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from data_folders import DATA, needs

from neuface.errors import InputError
from neuface.geometry.triangulation import Triangulation, triangulate
from neuface.io.cameras import read_cameras
from neuface.io.cameras.own_json import CONVENTION
from neuface.io.cameras.values import LARGEST_FILE, MOST_CAMERAS
from neuface.io.landmarks import read_landmarks
from neuface.landmarks.arrays import as_track
from neuface.landmarks.schemes import MEDIAPIPE478
from neuface.structs import Track

SESSION = DATA / "caliscope_4view" / "calibration_session"
needs_session = needs(SESSION)

Json = dict[str, Any]


def content() -> Json:
    left: Json = {
        "K": [[800, 0.5, 630.25], [0, 810.0, 350.0], [0.0, 0.0, 1.0]],
        "dist": [-0.3, 0.05, 0.001, 0.002, 0.0],
        "R": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        "t": [0.1, 0.2, 1.5],
    }
    right = {**left, "R": [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]], "t": [0, 0, 1]}
    return {
        "units": "metre",
        "convention": CONVENTION,
        "image_size": [1280, 720],
        "fps": 25,
        "cameras": {"right": right, "left": left},
    }


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "cameras.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_all_fields_of_a_file_are_read(tmp_path: Path) -> None:
    found = read_cameras(written(tmp_path, json.dumps(content())))
    assert found.names == ("right", "left")
    assert found.sizes_hw == ((720, 1280), (720, 1280))
    listed = list(content()["cameras"].values())
    for field, tensor in (
        ("K", found.cameras.K),
        ("dist", found.cameras.distortion),
        ("R", found.cameras.rotation),
        ("t", found.cameras.translation),
    ):
        torch.testing.assert_close(
            tensor, torch.tensor([camera[field] for camera in listed], dtype=torch.float64)
        )


def changed(path: str, value: Any) -> Callable[[], Json]:
    """The content with one entry replaced, or removed for the value `...`."""

    def make() -> Json:
        whole = json.loads(json.dumps(content()))
        *outer, last = [int(part) if part.isdigit() else part for part in path.split("/")]
        place: Any = whole
        for part in outer:
            place = place[part]
        if value is ...:
            del place[last]
        else:
            place[last] = value
        return whole

    return make


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("units", "millimetre", "units"),
        ("units", 1, "units"),
        ("convention", "x_world = R @ x_cam + t", "convention"),
        ("fps", 0, "fps"),
        ("fps", True, "fps"),
        ("fps", "25", "fps"),
        ("fps", 10**400, "fps"),
        ("fps", ..., "no fps"),
        ("image_size", [1280], "image_size"),
        ("image_size", [1280, 720.5], "image_size"),
        ("image_size", [0, 720], "image_size"),
        ("image_size", [100_000, 720], "image_size"),
        ("image_size", [600, 360], "principal point"),
        ("cameras", {}, "cameras"),
        ("cameras", [], "cameras"),
        ("cameras", {str(number): 0 for number in range(MOST_CAMERAS + 1)}, "cameras"),
        ("model", "fisheye", "unknown field 'model'"),
        ("cameras/left", None, "'left' must be an object"),
        ("cameras/left/model", "fisheye", "'left' has the unknown field 'model'"),
        ("cameras/left/t", ..., "'left' has no t"),
        ("cameras/left/t", [0, 0], "'left', t"),
        ("cameras/left/t/1", None, "'left', t"),
        ("cameras/left/t/1", [0.0], "'left', t"),
        ("cameras/left/t/1", 1e9, "'left', t"),
        ("cameras/left/dist", [0, 0, 0, 0], "'left', dist"),
        ("cameras/left/dist/4", float("nan"), "'left', dist"),
        ("cameras/left/dist/4", float("inf"), "'left', dist"),
        ("cameras/left/K", [[800, 0, 630], [0, 810, 350]], "'left', K"),
        ("cameras/left/K/0/0", -800, "'left', K"),
        ("cameras/left/K/1/0", 0.5, "'left', K"),
        ("cameras/left/K/2/2", 2.0, "'left', K"),
        ("cameras/left/K/0/2", 1281.0, "'left', the principal point"),
        ("cameras/left/R/0/0", 1.01, "'left', R"),
        ("cameras/left/R/0/0", -1.0, "'left', R"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, path: str, value: Any, named: str) -> None:
    file = written(tmp_path, json.dumps(changed(path, value)()))
    with pytest.raises(InputError) as caught:
        read_cameras(file)
    assert named in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b'{"units": "metre"',
        b"\xff\xfe",
        b"[" * 200_000,
        b"9" * 100_000,
        json.dumps(content()).replace('"fps"', '"units": "metre", "fps"').encode(),
        json.dumps(content()).encode() + b" " * LARGEST_FILE,
    ],
    ids=["empty", "list", "null", "cut", "binary", "deep", "digits", "twice", "large"],
)
def test_a_file_that_is_not_json_with_cameras_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InputError, match=r"cameras\.json"):
        read_cameras(written(tmp_path, data))


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.json", "a\0b"):
        with pytest.raises(InputError):
            read_cameras(path)


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    """After any change of bytes the result is a camera set or an InputError."""
    whole, chance = json.dumps(content()).encode(), random.Random(0)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(data))
            kind = chance.randrange(3)
            if kind == 0:
                data[place] = chance.choice(b'0123456789-+.eE[]{},:"NaI\x00\xff')
            elif kind == 1:
                del data[place : place + chance.randint(1, 30)]
            else:
                data[place:place] = data[place : place + chance.randint(1, 30)]
        try:
            found = read_cameras(written(tmp_path, bytes(data)))
        except InputError:
            refused += 1
        else:
            assert bool(found.cameras.K.isfinite().all())
    assert refused > 200


def test_frames_must_have_the_size_of_the_calibration(tmp_path: Path) -> None:
    found = read_cameras(written(tmp_path, json.dumps(content())))
    cameras, remarks = found.for_views(["right", "left"], [(720, 1280), (720, 1280)])
    torch.testing.assert_close(cameras.K, found.cameras.K)
    assert remarks == ()
    with pytest.raises(InputError, match=r"'left' is calibrated for frames of 1280 x 720 px.* 640 x 400 px"):
        found.for_views(["right", "left"], [(720, 1280), (400, 640)])


# --- The real session


@pytest.fixture(scope="module")
def session_landmarks() -> Track:
    landmarks = read_landmarks(SESSION / "mediapipe_landmarks.npz")
    return as_track(landmarks, 4, 111, sizes_hw=[(720, 1280)] * 4)


def reprojection_error(found: Triangulation) -> float:
    return float(found.error_px[found.valid].median())


@needs_session
def test_the_real_cameras_observe_one_face_of_plausible_size(session_landmarks: Track) -> None:
    """Eye distance, depth and reprojection error are plausible only if the calibration is that of the frames."""
    rig = read_cameras(SESSION / "cameras.json")
    assert (rig.names, set(rig.sizes_hw)) == (("0", "1", "2", "3"), {(720, 1280)})
    points, confidence = session_landmarks.points_px, session_landmarks.confidence
    # Every twelfth point is enough and faster; the outer eye corners are among them.
    chosen = sorted({*range(0, 478, 12), *MEDIAPIPE478.outer_eyes})
    right, left = (chosen.index(corner) for corner in MEDIAPIPE478.outer_eyes)
    points, confidence = points[:, :, chosen], confidence[:, :, chosen]
    twice_seen = (confidence > 0).any(-1).sum(0) >= 2
    assert int(twice_seen.sum()) == 111

    found = triangulate(rig.cameras, points, confidence, max_error_px=6.0)
    assert float(found.valid.float().mean()) > 0.75
    assert reprojection_error(found) < 3
    apart_mm = 1000 * torch.linalg.vector_norm(found.points[:, left] - found.points[:, right], dim=-1)
    apart_mm = apart_mm[apart_mm.isfinite()]
    assert len(apart_mm) > 90
    assert 80 < float(apart_mm.min()) <= float(apart_mm.max()) < 105
    # The face is in front of each camera, 0.3 to 1.5 m away.
    centre = found.points[found.valid].mean(0).double()
    depth = rig.cameras.to_camera(centre.expand(4, 1, 3))[:, 0, 2]
    assert 0.3 < float(depth.min()) <= float(depth.max()) < 1.5


@needs_session
def test_a_wrong_calibration_has_a_larger_reprojection_error(session_landmarks: Track) -> None:
    cameras = read_cameras(SESSION / "cameras.json").cameras
    inner = slice(0, 478, 40)
    points, confidence = session_landmarks.points_px[:, :, inner], session_landmarks.confidence[:, :, inner]
    fits = reprojection_error(triangulate(cameras, points, confidence))
    straight = replace(cameras, distortion=torch.zeros_like(cameras.distortion))
    halved = replace(cameras, K=cameras.K * torch.tensor([[0.5], [0.5], [1.0]]))
    for wrong in (straight, halved, cameras[[1, 0, 2, 3]]):
        assert reprojection_error(triangulate(wrong, points, confidence)) > 3 * fits
