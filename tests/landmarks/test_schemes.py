"""The iBUG-68 numbering and the map from MediaPipe."""

import pytest
import torch
from data_folders import DATA, required

from neuface.errors import InputError
from neuface.io.landmarks import read_landmarks
from neuface.landmarks.arrays import as_landmarks
from neuface.landmarks.schemes import (
    GROUPS_IBUG68,
    INNER51,
    MEDIAPIPE_TO_IBUG68,
    MIRROR_IBUG68,
    OUTER_EYES_IBUG68,
    OUTER_EYES_MEDIAPIPE478,
    number_of_points,
    outer_eye_distance_px,
    to_ibug68,
)
from neuface.structs import Landmarks

FRONTAL = DATA / "grid_corpus" / "bbaf2n.landmarks.npz"


def frontal_face() -> Landmarks:
    arrays, _ = read_landmarks(required(FRONTAL))
    return as_landmarks(arrays, 1, len(arrays[0]))


def test_map_and_groups_cover_the_68_points_once() -> None:
    assert len(set(MEDIAPIPE_TO_IBUG68)) == 68
    covered = [index for group in GROUPS_IBUG68.values() for index in range(68)[group]]
    assert covered == list(range(68))
    assert len(range(68)[INNER51]) == 51
    assert tuple(MEDIAPIPE_TO_IBUG68[index] for index in OUTER_EYES_IBUG68) == OUTER_EYES_MEDIAPIPE478


def test_mirror_is_its_own_inverse_and_stays_in_its_group() -> None:
    assert [MIRROR_IBUG68[index] for index in MIRROR_IBUG68] == list(range(68))
    for group in GROUPS_IBUG68.values():
        assert sorted(MIRROR_IBUG68[group]) == list(range(68)[group])


def test_counterparts_lie_where_ibug_points_lie_on_a_real_face() -> None:
    points = to_ibug68(frontal_face()).points_px[0].mean(0)
    x, y = points.unbind(-1)
    assert x[:17].argmin() < 3
    assert x[:17].argmax() > 13
    assert y[:17].argmax() in (7, 8, 9)
    for left_to_right in (range(9), range(17, 27), range(31, 36), range(48, 55)):
        steps = x[list(left_to_right)].diff()
        assert (steps[2:] > 0).all()
    assert (y[27:31].diff() > 0).all()
    assert y[[37, 38, 43, 44]].max() < y[[40, 41, 46, 47]].min()
    assert y[50:53].max() < y[56:59].min()
    spacing = points[:17].diff(dim=0).norm(dim=-1)
    assert spacing.max() < 2.2 * spacing.min()


def test_mirrored_numbering_matches_a_flipped_frontal_face() -> None:
    points = to_ibug68(frontal_face()).points_px[0].mean(0)
    eyes = points[list(OUTER_EYES_IBUG68)]
    axis = eyes[1] - eyes[0]
    size = axis.norm()
    axis = axis / size
    middle = points[[27, 30, 33, 51, 57, 8]].mean(0)
    # Reflect across the face's midline: an almost symmetric face lands on itself, renumbered.
    relative = points - middle
    reflected = relative - 2 * (relative @ axis)[:, None] * axis
    distance = (reflected[list(MIRROR_IBUG68)] - relative).norm(dim=-1) / size
    assert distance.max() < 0.2
    assert distance.mean() < 0.07


def test_to_ibug68_takes_points_and_confidence() -> None:
    points = torch.arange(478 * 2, dtype=torch.float32).reshape(1, 1, 478, 2)
    confidence = torch.arange(478, dtype=torch.float32).reshape(1, 1, 478) / 478
    sparse = to_ibug68(Landmarks(points_px=points, confidence=confidence, scheme="mediapipe478"))
    assert sparse.scheme == "ibug68"
    assert torch.equal(sparse.points_px[0, 0, 8], points[0, 0, 152])
    assert torch.equal(sparse.confidence[0, 0], confidence[0, 0, list(MEDIAPIPE_TO_IBUG68)])
    assert to_ibug68(sparse) is sparse


def test_outer_eye_distance_is_the_same_in_both_schemes() -> None:
    dense = frontal_face()
    torch.testing.assert_close(outer_eye_distance_px(dense), outer_eye_distance_px(to_ibug68(dense)))
    missing = Landmarks(
        points_px=dense.points_px, confidence=torch.zeros_like(dense.confidence), scheme=dense.scheme
    )
    assert not outer_eye_distance_px(missing).any()


def test_unknown_scheme() -> None:
    assert (number_of_points("ibug68"), number_of_points("mediapipe478")) == (68, 478)
    with pytest.raises(InputError, match="wflw98"):
        number_of_points("wflw98")
    foreign = Landmarks(points_px=torch.zeros(1, 1, 98, 2), confidence=torch.ones(1, 1, 98), scheme="wflw98")
    with pytest.raises(InputError, match="wflw98"):
        to_ibug68(foreign)
