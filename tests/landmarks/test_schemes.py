"""The iBUG-68 numbering and the map from MediaPipe."""

import pickle

import pytest
import torch
from data_folders import DATA, required
from scipy.optimize import linear_sum_assignment

from neuface.errors import InputError
from neuface.head.model import HeadModel
from neuface.io.landmarks import read_landmarks
from neuface.landmarks.schemes import (
    IBUG68,
    INNER51,
    MEDIAPIPE478,
    SCHEMES,
    outer_eye_distance_px,
    scheme_named,
    scheme_with,
    to_ibug68,
)
from neuface.structs import Scheme, Track

FRONTAL = DATA / "grid_corpus" / "bbaf2n.landmarks.npz"


def frontal_face() -> Track:
    return read_landmarks(required(FRONTAL))


def test_map_and_groups_cover_the_68_points_once() -> None:
    assert len(set(MEDIAPIPE478.to_ibug68)) == 68
    covered = [index for _, indices in IBUG68.groups for index in indices]
    assert covered == list(range(68)) == list(IBUG68.to_ibug68)
    assert [*IBUG68.contour, *range(68)[INNER51]] == covered


def test_the_parts_of_both_schemes_are_counterparts() -> None:
    for name, indices in IBUG68.groups:
        assert MEDIAPIPE478.group(name) == tuple(MEDIAPIPE478.to_ibug68[index] for index in indices)
    assert tuple(MEDIAPIPE478.to_ibug68[index] for index in IBUG68.outer_eyes) == MEDIAPIPE478.outer_eyes


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=list(SCHEMES))
def test_mirroring_twice_changes_nothing_and_exchanges_the_eyes(scheme: Scheme) -> None:
    order = scheme.mirrored
    assert [order[index] for index in order] == list(range(scheme.count))
    assert tuple(order[corner] for corner in scheme.outer_eyes) == scheme.outer_eyes[::-1]
    for _, indices in scheme.groups:
        assert {order[index] for index in indices} == set(indices)
    # Mirroring and taking the counterparts commute.
    assert [order[point] for point in scheme.to_ibug68] == [
        scheme.to_ibug68[point] for point in IBUG68.mirrored
    ]


def test_dense_points_mirror_to_the_nearest_points_of_a_symmetric_head(open_head: HeadModel) -> None:
    points = open_head.landmarks(open_head.neutral(), MEDIAPIPE478.name)
    reflected = points * points.new_tensor([-1.0, 1.0, 1.0])
    _, nearest = linear_sum_assignment(torch.cdist(points, reflected).square().numpy())
    assert nearest.tolist() == list(MEDIAPIPE478.mirrored)


def test_a_scheme_can_be_hashed_and_pickled() -> None:
    assert pickle.loads(pickle.dumps(MEDIAPIPE478)) == MEDIAPIPE478
    assert {IBUG68: 1, MEDIAPIPE478: 2}[MEDIAPIPE478] == 2


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
    eyes = points[list(IBUG68.outer_eyes)]
    axis = eyes[1] - eyes[0]
    size = axis.norm()
    axis = axis / size
    middle = points[[27, 30, 33, 51, 57, 8]].mean(0)
    # Reflect across the face's midline: an almost symmetric face lands on itself, renumbered.
    relative = points - middle
    reflected = relative - 2 * (relative @ axis)[:, None] * axis
    distance = (reflected[list(IBUG68.mirrored)] - relative).norm(dim=-1) / size
    assert distance.max() < 0.2
    assert distance.mean() < 0.07


def test_to_ibug68_takes_points_and_confidence() -> None:
    points = torch.arange(478 * 2, dtype=torch.float32).reshape(1, 1, 478, 2)
    confidence = torch.arange(478, dtype=torch.float32).reshape(1, 1, 478) / 478
    sparse = to_ibug68(Track(points_px=points, confidence=confidence, scheme=MEDIAPIPE478))
    assert sparse.scheme is IBUG68
    assert torch.equal(sparse.points_px[0, 0, 8], points[0, 0, 152])
    assert torch.equal(sparse.confidence[0, 0], confidence[0, 0, list(MEDIAPIPE478.to_ibug68)])
    assert to_ibug68(sparse) is sparse


def test_outer_eye_distance_is_the_same_in_both_schemes() -> None:
    dense = frontal_face()
    torch.testing.assert_close(outer_eye_distance_px(dense), outer_eye_distance_px(to_ibug68(dense)))
    missing = Track(
        points_px=dense.points_px, confidence=torch.zeros_like(dense.confidence), scheme=dense.scheme
    )
    assert not outer_eye_distance_px(missing).any()


def test_schemes_are_found_by_name_and_by_count() -> None:
    assert scheme_named("ibug68") is IBUG68
    assert [scheme_with(count) for count in (68, 478, 468, 105)] == [IBUG68, MEDIAPIPE478, MEDIAPIPE478, None]
    with pytest.raises(
        InputError, match="unknown landmark scheme 'wflw98': expected 'ibug68' or 'mediapipe478'"
    ):
        scheme_named("wflw98")
