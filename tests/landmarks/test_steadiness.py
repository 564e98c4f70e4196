"""The smooth path of neighbouring frames: what lies on it, what is off it, and where there is none."""

from __future__ import annotations

import numpy as np

from neuface.landmarks.steadiness import LARGEST_JUMP, smooth_path

TIME = 40
EYES = (0, 1)
FACE = np.array([[0.0, 0.0], [30.0, 0.0], [15.0, 20.0], [15.0, 40.0]])


def moving_face() -> np.ndarray:
    """Four landmarks of a face that drifts and turns a little, 30 px between the eyes."""
    seconds = np.arange(TIME)[:, None, None] / 25.0
    return FACE + np.concatenate([60 * np.sin(2 * seconds), 20 * seconds], -1)


def test_a_moving_face_does_not_jump() -> None:
    path = smooth_path(moving_face(), np.ones(TIME, bool), EYES)
    assert np.nanmax(path.jump) < LARGEST_JUMP / 2


def test_jumps_are_found_and_do_not_bend_the_path() -> None:
    points = moving_face()
    points[[10, 11, 30]] += 25.0
    path = smooth_path(points, np.ones(TIME, bool), EYES)
    assert set(np.flatnonzero(path.jump > LARGEST_JUMP)) == {10, 11, 30}
    assert np.abs(path.points_px[10] - moving_face()[10]).max() < 5.0


def test_a_gap_is_predicted_and_long_absence_is_not() -> None:
    found = np.ones(TIME, bool)
    found[10:13] = False
    found[20:] = False
    points = np.where(found[:, None, None], moving_face(), 0.0)
    path = smooth_path(points, found, EYES)
    assert np.abs(path.points_px[11] - moving_face()[11]).max() < 5.0
    assert np.isnan(path.jump[~found]).all()
    assert np.isnan(path.points_px[30:]).all()


def test_no_path_crosses_a_cut() -> None:
    points = moving_face()
    points[20:] += 500.0
    path = smooth_path(points, np.ones(TIME, bool), EYES, starts=(0, 20))
    assert np.nanmax(path.jump) < LARGEST_JUMP
