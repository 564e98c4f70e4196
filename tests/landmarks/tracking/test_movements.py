"""Whether two tracks are of one person, by what their faces do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from jaxtyping import Float

from neuface.geometry.rotations import rotvec_to_rotmat
from neuface.landmarks.mean_face import MEAN_FACE_MM
from neuface.landmarks.tracking import movements as module
from neuface.landmarks.tracking.movements import Movements, movement_evidence, movements

TIME = 150
SECONDS = np.arange(TIME) / 25.0
LOWER_LIP = (8, *range(55, 60), *range(65, 68))
LOWER_LIDS = (40, 41, 46, 47)


def face(
    seed: int, yaw_rad: float = 0.0, *, moves: float = 1.0, noise_mm: float = 0.3, px_per_mm: float = 1.5
) -> Float[np.ndarray, "time 68 2"]:
    """A face that opens its mouth, blinks and nods at random times of its own, from some angle, in pixels.

    The seed is that of its movements; noise is another one in every call.
    """
    random = np.random.default_rng(seed)
    phase, rate = random.uniform(0, 6, (3, 3)), random.uniform(2, 12, (3, 3))
    mouth, lids, nod = moves * np.sin(rate[..., None] * SECONDS + phase[..., None]).mean(1)
    points = np.tile(np.array(MEAN_FACE_MM), (TIME, 1, 1))
    points[:, LOWER_LIP, 1] -= 6 * (1 + mouth[:, None])
    points[:, LOWER_LIDS, 1] += 3 * (1 + lids[:, None])
    turn = torch.zeros(TIME, 3, dtype=torch.float64)
    turn[:, 0] = torch.from_numpy(0.1 * nod)
    view = rotvec_to_rotmat(torch.tensor([0.0, yaw_rad, 0.0], dtype=torch.float64))
    seen = points @ (view @ rotvec_to_rotmat(turn)).mT.numpy()
    noise = np.random.default_rng(abs(hash((seed, yaw_rad, px_per_mm)))).normal(0, noise_mm, (TIME, 68, 2))
    return 300 + px_per_mm * (seen[..., :2] * (1, -1) + noise)


def of(points_px: Float[np.ndarray, "time 68 2"]) -> Movements:
    return movements(points_px, SECONDS)


def test_one_person_is_recognised_from_another_angle_and_two_are_not_confused() -> None:
    for seed in range(4):
        one, same = of(face(seed)), of(face(seed, 0.6))
        other = of(face(seed + 10, 0.6))
        assert movement_evidence(one, same) > 8
        assert movement_evidence(one, other) < 0.5
        assert movement_evidence(one, same) == pytest.approx(movement_evidence(same, one))


def test_faces_that_do_not_move_tell_nothing() -> None:
    still = [of(face(seed, moves=0.0, noise_mm=noise)) for seed, noise in ((0, 0.3), (1, 0.6), (2, 0.0))]
    for one in still:
        for other in (*still, of(face(3))):
            assert abs(movement_evidence(one, other)) < 0.5


def test_place_size_and_turn_of_the_picture_do_not_matter() -> None:
    points = face(0, 0.6)
    expected = movement_evidence(of(face(0)), of(points))
    turn = rotvec_to_rotmat(torch.tensor([0.0, 0.0, 0.5], dtype=torch.float64))[:2, :2].numpy()
    changed = 40.0 + 1.7 * points @ turn.T
    assert movement_evidence(of(face(0)), of(changed)) == pytest.approx(expected, abs=0.5)


def test_the_same_movement_at_another_time_is_another_person() -> None:
    late = np.roll(face(0, 0.6), 12, axis=0)
    assert movement_evidence(of(face(0)), of(late)) < 0.5


def test_missing_frames_and_uneven_times_are_borne() -> None:
    random = np.random.default_rng(5)
    kept = random.random(TIME) < 0.7
    missed = face(0, 0.6)
    missed[random.random(TIME) < 0.2] = np.nan
    one, other = (movements(points[kept], SECONDS[kept]) for points in (face(0), missed))
    assert np.isfinite(other.value).all()
    assert movement_evidence(one, other) > 5
    nobody = movements(np.full((TIME, 68, 2), np.nan), SECONDS)
    assert movement_evidence(of(face(0)), nobody) == 0


def test_landmarks_without_a_contour_serve_as_well() -> None:
    inner = [face(0), face(0, 0.6), face(10, 0.6)]
    for points in inner:
        points[:, :17] = np.nan
    one, same, other = map(of, inner)
    assert movement_evidence(one, same) > 5
    assert movement_evidence(one, other) < 0.5


def test_the_filter_is_the_weighted_mean_by_time() -> None:
    random = np.random.default_rng(2)
    values, known = random.normal(size=(30, 2)), random.random(30) < 0.8
    seconds = np.cumsum(random.uniform(0.01, 0.2, 30))
    weight = np.exp(-np.abs(seconds[:, None] - seconds) / 0.3) * known
    expected = weight @ values / weight.sum(1, keepdims=True)
    assert module._smoothed(values, known, seconds, 0.3) == pytest.approx(expected)
