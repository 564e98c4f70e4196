"""Landmark arrays of all layouts, missing points, the choice among several faces, and unusable input."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from neuface.errors import InputError
from neuface.landmarks import arrays, plausibility
from neuface.landmarks.arrays import as_track
from neuface.landmarks.schemes import IBUG68, MEDIAPIPE478
from neuface.structs import Status


def face(time: int, points: int = 68, offset: float = 50.0, size: float = 40.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(offset, offset + size, (time, points, 2)).astype(np.float32)


@pytest.mark.parametrize("convert", [np.float64, np.float32, np.float16, torch.from_numpy])
def test_layouts_of_one_view_agree(convert) -> None:
    points = np.round(face(4))
    for value in (convert(points), convert(points[None]), [convert(points)], convert(points[:, None])):
        landmarks = as_track(value, 1, 4)
        assert landmarks.scheme is IBUG68
        assert landmarks.points_px.dtype == torch.float32
        assert torch.equal(landmarks.points_px[0], torch.from_numpy(points))
        assert (landmarks.confidence == 1).all()


def test_a_list_of_arrays_is_several_views() -> None:
    left, right = face(3, 478), face(3, 478, seed=1)
    stacked = as_track(np.stack([left, right]), 2, 3)
    assert stacked.scheme is MEDIAPIPE478
    assert torch.equal(stacked.points_px, as_track([left, right], 2, 3).points_px)
    with_faces = as_track(np.stack([left, right])[:, :, None], 2, 3)
    assert torch.equal(stacked.points_px, with_faces.points_px)


def test_missing_points_have_confidence_and_position_zero() -> None:
    points = face(5)
    points[1] = np.nan
    points[2] = 0.0
    points[3, 4] = np.inf
    points[3, 5] = -1.0
    points[4, 6] = (-5.0, 30.0)  # a face cut off by the frame's edge
    points[4, 7] = (-5000.0, 30.0)
    landmarks = as_track(points, 1, 5, sizes_hw=[(120, 160)])
    found = landmarks.confidence[0] > 0
    assert found[0].all()
    assert not found[1].any()
    assert not found[2].any()
    assert found[3].sum() == 66
    assert found[4, 6]
    assert not found[4, 7]
    assert not landmarks.points_px[0][~found].any()
    assert landmarks.points_px.isfinite().all()


def test_third_column_is_the_confidence() -> None:
    confidence = np.random.default_rng(0).uniform(0.1, 1, (3, 68, 1)).astype(np.float32)
    confidence[0, 0], confidence[0, 1] = 0, np.nan
    landmarks = as_track(np.concatenate([face(3), confidence], -1), 1, 3)
    assert torch.equal(landmarks.confidence[0, 1:], torch.from_numpy(confidence[1:, :, 0]))
    assert not landmarks.confidence[0, 0, :2].any()


def test_mediapipe_without_irises_is_padded() -> None:
    landmarks = as_track(face(2, 468), 1, 2)
    assert landmarks.scheme is MEDIAPIPE478
    assert (landmarks.confidence[0, :, :468] == 1).all()
    assert not landmarks.confidence[0, :, 468:].any()


def test_a_faces_axis_may_change_its_order() -> None:
    large, small = face(6, offset=10, size=60), face(6, offset=200, size=40, seed=1)
    both = np.stack([large, small], 1)
    both[3:] = both[3:, ::-1]
    followed = as_track(both, 1, 6)
    assert torch.equal(followed.points_px[0], torch.from_numpy(large))


def test_landmarks_pass_through_with_checks() -> None:
    landmarks = as_track(face(3), 1, 3)
    again = as_track(landmarks, 1, 3)
    assert torch.equal(again.points_px, landmarks.points_px)
    with pytest.raises(InputError, match=r"1 view\(s\) x 4 frame"):
        as_track(landmarks, 1, 4)
    with pytest.raises(InputError, match=r"expected mediapipe478 for .* x 478 points, got 1 x 3 x 68"):
        as_track(replace(landmarks, scheme=MEDIAPIPE478), 1, 3)


NAN_FACE = np.full((3, 68, 2), np.nan)
DEPTH = np.concatenate([face(3), face(3)[..., :1]], -1)


@pytest.mark.parametrize(
    ("value", "views", "message"),
    [
        (face(4), 1, "4 frames of landmarks for a video of 3 frames"),
        (np.zeros((3, 0, 68, 2)), 1, "has no landmarks; use NaN"),
        (face(3, 5), 1, "5 points per frame; expected 51"),
        (face(3)[..., :1], 1, r"\(frames, points, 2\)"),
        (face(3), 2, r"2 view\(s\)"),
        (face(3)[0], 1, "expected"),
        ([face(3)], 2, "a list of 2"),
        ([face(3), face(3, 478)], 2, "different numbers of points"),
        (np.stack([face(3)] * 2), 1, "they hold 2 views"),
        (np.stack([face(3)] * 2)[:, :, None], 1, r"expected 1 view"),
        (DEPTH, 1, r"if it is a depth, drop it: points\[..., :2\]"),
        (face(3) / 200, 1, "look normalised"),
        (np.full((3, 68, 2), "x"), 1, "array of numbers"),
        ("path.npz", 1, "array of numbers"),
        ([[[1, 2], [3]]], 1, "array of numbers"),
    ],
)
def test_unusable_landmarks_are_refused(value: object, views: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_track(value, views, 3)


def test_a_view_without_any_face_is_allowed() -> None:
    landmarks = as_track([face(3), NAN_FACE], 2, 3)
    assert landmarks.found.tolist() == [[True] * 3, [False] * 3]


@pytest.mark.parametrize("value", [NAN_FACE, np.zeros((3, 68, 2)), NAN_FACE[:, None]])
def test_landmarks_without_any_face_are_a_track_without_any(value: np.ndarray) -> None:
    track = as_track(value, 1, 3, sizes_hw=[(60, 80)])
    assert not track.found.any()
    assert track.status is not None
    assert (track.status == Status.NO_FACE).all()


@pytest.mark.parametrize("columns", [2, 3])
def test_what_is_read_does_not_depend_on_the_size_of_the_pieces(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = face(11, 478)
    points[2] = np.nan
    points[3, 4] = -1.0
    points[7, 100] = (5000.0, 3.0)
    if columns == 3:
        confidence = np.random.default_rng(1).uniform(0, 1, (11, 478, 1))
        points = np.concatenate([points, confidence.astype(np.float32)], -1)
    whole = as_track(points, 1, 11, sizes_hw=[(120, 160)])
    monkeypatch.setattr(arrays, "FRAMES_PER_PIECE", 3)
    monkeypatch.setattr(plausibility, "FACES_AT_ONCE", 2)
    pieces = as_track(points, 1, 11, sizes_hw=[(120, 160)])
    assert torch.equal(pieces.points_px, whole.points_px)
    assert torch.equal(pieces.confidence, whole.confidence)


def test_what_is_given_stays_as_it_is() -> None:
    points = torch.from_numpy(face(3))
    points[1, 5] = torch.nan
    before = points.clone()
    track = as_track(points, 1, 3)
    torch.testing.assert_close(points, before, rtol=0, atol=0, equal_nan=True)
    again = as_track(track, 1, 3, sizes_hw=[(40, 40)])  # Points beyond 80 are missing.
    assert float(again.confidence.sum()) < float(track.confidence.sum())
    assert torch.equal(track.points_px[0, 0], before[0])
