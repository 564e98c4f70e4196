"""Following people through arrays of faces: crossings, gaps, re-entries, false detections, and cuts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from data_folders import DATA, needs
from hypothesis import given, settings
from hypothesis import strategies as st

from neuface.clips import read_people
from neuface.landmarks.tracking.observations import jumps_of_all_faces, observed_faces
from neuface.landmarks.tracking.people import Path, find_people

SIZE = 100.0
FACE = np.random.default_rng(0).uniform(-SIZE / 2, SIZE / 2, (68, 2))


def faces(*paths_px: np.ndarray) -> np.ndarray:
    """`(time, people, 68, 2)`: each person's face, of SIZE, along a path of centres `(time, 2)`; NaN is absence."""
    return np.stack([path[:, None] + FACE for path in paths_px], 1)


def line(start: float, stop: float, time: int = 16, y: float = 150.0) -> np.ndarray:
    return np.stack((np.linspace(start, stop, time), np.full(time, y)), -1)


def shuffled(points: np.ndarray, seed: int) -> np.ndarray:
    order = np.random.default_rng(seed).permuted(
        np.tile(np.arange(points.shape[1]), (len(points), 1)), axis=1
    )
    return np.take_along_axis(points, order[:, :, None, None], 1)


def centres_x(points: np.ndarray, path: Path) -> list[float | None]:
    middle = observed_faces(points).centre_px[..., 0]
    return [float(middle[t, face]) if face >= 0 else None for t, face in enumerate(path.face)]


def moves_one_way(places: list[float | None]) -> bool:
    known = [place for place in places if place is not None]
    steps = np.sign(np.diff(known))
    return bool((steps == steps[0]).all())


@pytest.mark.parametrize("seed", range(4))
def test_two_people_who_cross_are_not_exchanged(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 1.0, (16, 2, 68, 2))
    points = shuffled(faces(line(0, 300), line(300, 0)) + noise, seed)
    people = find_people(observed_faces(points))
    assert len(people) == 2
    for path in people:
        assert path.present.all()
        assert moves_one_way(centres_x(points, path))


def test_one_who_is_hidden_while_crossing_is_found_again_on_the_other_side() -> None:
    behind = line(300, 0, 30)
    behind[11:19] = np.nan
    points = shuffled(faces(line(0, 300, 30), behind), 1)
    people = find_people(observed_faces(points))
    assert [int(path.present.sum()) for path in people] == [30, 22]
    assert all(moves_one_way(centres_x(points, path)) for path in people)


def test_two_people_who_meet_and_turn_back_are_not_exchanged() -> None:
    near = np.sin(np.linspace(0, np.pi, 40)) ** 2
    left = np.stack((100 * near, np.full(40, 100.0)), -1)
    right = np.stack((300 - 100 * near, np.full(40, 110.0)), -1)
    points = shuffled(faces(left, right), 2)
    for path in find_people(observed_faces(points)):
        places = np.array(centres_x(points, path), float)
        assert abs(places[0] - places[-1]) < 1


def test_a_person_alone_is_taken_up_again_elsewhere() -> None:
    path = line(0, 20)
    path[5:8] = np.nan
    path[8:] += 240
    (person,) = find_people(observed_faces(faces(path)))
    assert person.present.tolist() == [True] * 5 + [False] * 3 + [True] * 8


def test_a_jump_without_a_gap_is_another_person() -> None:
    path = line(0, 20)
    path[2:] += 330
    people = find_people(observed_faces(faces(path)))
    assert people[0].present.tolist() == [False] * 2 + [True] * 14


def test_where_two_people_may_come_back_nobody_is_guessed() -> None:
    gone = line(150, 150, 40)
    gone[10:] = np.nan
    left, right = line(0, 0, 40), line(300, 300, 40)
    left[:20], right[:20] = np.nan, np.nan
    people = find_people(observed_faces(faces(gone, left, right)))
    assert sorted(int(path.present.sum()) for path in people) == [10, 20, 20]


def test_the_most_present_person_comes_first_and_of_equals_the_larger() -> None:
    late = line(400, 400)
    late[:4] = np.nan
    large = faces(line(0, 0)) + 0.2 * (faces(line(0, 0)) - line(0, 0)[:, None, None])
    points = np.concatenate((faces(late, line(700, 700)), large), 1)
    people = find_people(observed_faces(points))
    assert [int(np.unique(path.face[path.present])[0]) for path in people] == [2, 1, 0]


def test_where_all_faces_jump_there_is_a_cut() -> None:
    left, right = line(0, 10), line(400, 410)
    left[6:, 1] += 300
    right[6:, 1] += 300
    assert jumps_of_all_faces(observed_faces(faces(left, right))) == (6,)
    # One who stays, a single wrong frame, and one who is away for a moment are none.
    assert jumps_of_all_faces(observed_faces(faces(left, line(400, 410)))) == ()
    left[6:, 1] -= 300
    left[8] += 500
    assert jumps_of_all_faces(observed_faces(faces(left))) == ()
    left[8:] += 300
    left[6:8] = np.nan
    assert jumps_of_all_faces(observed_faces(faces(left))) == ()


def test_nobody_is_followed_over_a_cut() -> None:
    points = faces(line(0, 10))
    people = find_people(observed_faces(points), starts=(0, 6))
    assert [path.present.nonzero()[0].tolist() for path in people] == [list(range(6, 16)), list(range(6))]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 4))
def test_every_face_belongs_to_one_person_at_most(seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    walks = [np.cumsum(generator.normal(0, 30, (25, 2)), 0) + 300 for _ in range(count)]
    points = faces(*walks)
    points[generator.random((25, count)) < 0.3] = np.nan
    observed = observed_faces(points)
    people = find_people(observed)
    taken = [(t, int(path.face[t])) for path in people for t in np.flatnonzero(path.present)]
    assert len(taken) == len(set(taken))
    assert all(observed.present[place] for place in taken)


def test_frames_without_faces_hold_nobody() -> None:
    assert find_people(observed_faces(np.full((5, 2, 68, 2), np.nan))) == []


@needs(DATA / "intel_head_pose")
def test_two_real_people_are_never_exchanged() -> None:
    name = DATA / "intel_head_pose" / "head-pose-face-detection-female-and-male"
    clips = read_people(name.with_suffix(".gif"), name.with_suffix(".landmarks.npz"))
    assert len(clips) == 2
    for clip in clips:
        assert clip.track.usable.all()
        steps = clip.track.points_px[0].mean(1).diff(dim=0).norm(dim=-1)
        assert float(steps.max()) < 10


@needs(DATA / "field_cases")
def test_people_who_return_elsewhere_or_come_closer_stay_themselves() -> None:
    folder = DATA / "field_cases"
    (alone,) = read_people(folder / "reenters_elsewhere.mp4", folder / "reenters_elsewhere_faces_axis.npz")
    assert alone.track.usable[0].tolist() == [True] * 5 + [False] * 3 + [True] * 8
    first, second = read_people(
        folder / "two_people_one_comes_closer.mp4", folder / "two_people_one_comes_closer.landmarks.npz"
    )
    assert torch.all(first.track.points_px[0].mean(1)[:, 0] > 480)
    assert torch.all(second.track.points_px[0].mean(1)[:, 0] < 250)
