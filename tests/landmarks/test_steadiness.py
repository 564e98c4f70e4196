"""The smooth path of neighbouring frames: what lies on it, what is off it, and where there is none."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neuface.geometry.rotations import rotvec_to_rotmat
from neuface.landmarks.mean_face import MEAN_FACE_MM
from neuface.landmarks.steadiness import LARGEST_JUMP, smooth_path, squashed

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


def nodding_face() -> Tensor:
    """The mean face's iBUG-68 landmarks; it nods by 35 degrees, turns by 50 and comes twice as near."""
    share = torch.sin(torch.linspace(0, 2 * torch.pi, TIME, dtype=torch.float64))
    turns = rotvec_to_rotmat(torch.stack((0.6 * share, 0.9 * share.roll(5), 0.2 * share), -1))
    nearer = torch.linspace(1.0, 2.0, TIME, dtype=torch.float64)
    mean = torch.tensor(MEAN_FACE_MM, dtype=torch.float64)
    return nearer[:, None, None] * (mean @ turns.mT)[..., :2] * torch.tensor([1.0, -1.0]) + 300.0


def test_faces_that_nod_turn_and_come_nearer_are_not_squashed() -> None:
    assert not squashed(nodding_face(), torch.ones(TIME, 68, dtype=torch.bool)).any()


def test_squashed_faces_are_found_along_either_axis() -> None:
    points, found = nodding_face(), torch.ones(TIME, 68, dtype=torch.bool)
    found[20] = False
    for frame, axis in ((9, 1), (25, 0), (20, 1)):
        brows = points[frame, 17:27, axis].mean()
        points[frame, :, axis] = brows + 0.75 * (points[frame, :, axis] - brows)
    assert np.flatnonzero(squashed(points, found)).tolist() == [9, 25]
    # In a shot of its own a face has too few neighbours.
    assert np.flatnonzero(squashed(points, found, starts=(0, 9, 12))).tolist() == [25]
