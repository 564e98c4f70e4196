"""Who is chosen of several people, and why a frame has no landmarks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from neuface.errors import InputError
from neuface.landmarks.arrays import as_faces
from neuface.landmarks.mean_face import MEAN_FACE_MM
from neuface.landmarks.tracking.choice import (
    At,
    AtInViews,
    Choice,
    Everyone,
    Largest,
    MostPresent,
    Numbered,
    as_choice,
)
from neuface.landmarks.tracking.selection import People, people_in
from neuface.structs import Selection, Status

TIME = 10
SHAPE = np.random.default_rng(0).uniform(-1, 1, (68, 2))


def person(x: float, size: float) -> np.ndarray:
    return np.tile((x, 100.0) + size / 2 * SHAPE, (TIME, 1, 1))


def two_people() -> np.ndarray:
    """A small person who is always there, and a large one who is missing in frames 3 to 5."""
    small, large = person(80, 40), person(300, 90)
    large[3:6] = np.nan
    return np.stack((small, large), 1)


def people(points: np.ndarray | None = None, views: int = 1) -> People:
    given = two_people() if points is None else points
    return people_in(as_faces([given] * views, views, TIME), TIMES)


LEFT = At(x_px=80.0, y_px=100.0, seconds=0.0)
RIGHT_IN_VIEW_1 = At(x_px=300.0, y_px=100.0, seconds=0.0, view=1)
TIMES = [frame / 25 for frame in range(TIME)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("most present", MostPresent()),
        ("largest", Largest()),
        ("all", Everyone()),
        (1, Numbered(number=1)),
        ("1", Numbered(number=1)),
        ((10, 20.5, 0.2), At(x_px=10.0, y_px=20.5, seconds=0.2)),
        ("10,20.5,0.2", At(x_px=10.0, y_px=20.5, seconds=0.2)),
        (At(x_px=1.0, y_px=2.0, seconds=0.0, view=1), At(x_px=1.0, y_px=2.0, seconds=0.0, view=1)),
        ([(80, 100, 0), (300, 100, 0)], AtInViews(points=(LEFT, RIGHT_IN_VIEW_1))),
        ("80,100,0;300,100,0", AtInViews(points=(LEFT, RIGHT_IN_VIEW_1))),
        (";300,100,0", AtInViews(points=(None, RIGHT_IN_VIEW_1))),
    ],
)
def test_short_forms_of_choices_are_read(value: object, expected: Choice) -> None:
    assert as_choice(value) == expected


@pytest.mark.parametrize(
    "value",
    ["somebody", -1, True, (1, 2), (1, 2, "x"), (1, 2, float("nan")), None, 1.5, [(1, 2, 3), (1, 2)], ";"],
)
def test_values_that_are_no_choice_are_refused(value: object) -> None:
    with pytest.raises(InputError, match="faces: expected 'most present'"):
        as_choice(value)


@pytest.mark.parametrize(
    ("choice", "x", "number"),
    [
        (MostPresent(), 80, 0),
        (Largest(), 300, 1),
        (Numbered(number=1), 300, 1),
        (At(x_px=290.0, y_px=110.0, seconds=0.0), 300, 1),
        (At(x_px=80.0, y_px=100.0, seconds=0.16), 80, 0),
    ],
)
def test_the_chosen_person_is_taken(choice: Choice, x: float, number: int) -> None:
    (found,) = people().choose(choice, TIMES)
    assert found.selection == Selection(people=2, number=number, rule=choice.sentence)
    centre = found.track.points_px[0, 0].mean(0)
    assert abs(float(centre[0]) - x) < 10


def test_everyone_is_taken_most_present_first() -> None:
    found = people().choose(Everyone(), TIMES)
    assert [item.selection.number for item in found] == [0, 1]
    assert [int(item.track.usable.sum()) for item in found] == [10, 7]


def test_frames_without_landmarks_have_the_reason_as_their_status() -> None:
    points = two_people()
    points[4] = np.nan
    _, large = people(points).choose(Everyone(), TIMES)
    assert large.track.status is not None
    expected = [Status.FITTED] * 10
    expected[3], expected[4], expected[5] = Status.ANOTHER_PERSON, Status.NO_FACE, Status.ANOTHER_PERSON
    assert large.track.status[0].tolist() == expected
    assert not large.track.points_px[0, 3:6].any()


def test_nobody_at_all_is_one_track_without_landmarks() -> None:
    empty = people(np.full((TIME, 2, 68, 2), np.nan))
    for choice in (MostPresent(), Largest(), Everyone(), Numbered(number=0)):
        (found,) = empty.choose(choice, TIMES)
        assert not found.track.found.any()
        assert found.selection.people == 0


@pytest.mark.parametrize(
    ("choice", "views", "message"),
    [
        (Numbered(number=2), 1, "no person number 2: there are 2 people in view 0"),
        (
            At(x_px=200.0, y_px=100.0, seconds=0.0),
            1,
            "nobody is at x 200, y 100 in frame 0 of view 0: faces there are at x",
        ),
        (At(x_px=200.0, y_px=100.0, seconds=0.0, view=1), 1, "view 1 does not exist"),
        (Everyone(), 2, "which of them are the same person in several views is not known"),
        (Numbered(number=1), 2, "which of them are the same person"),
        (MostPresent(), 2, "do not move enough"),
        (Largest(), 2, "Give a point in the person's face for every view"),
        (AtInViews(points=(LEFT,)), 2, "expected 2 points, one per view"),
        (AtInViews(points=(None, None)), 2, "but not in all"),
        (At(x_px=80.0, y_px=100.0, seconds=0.0), 2, "which of them are the same person"),
    ],
)
def test_choices_that_cannot_be_met_are_refused(choice: Choice, views: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        people(views=views).choose(choice, TIMES)


def test_the_views_of_one_person_stay_together() -> None:
    points = np.stack([person(80, 40), person(120, 60)])
    (found,) = people_in(as_faces(points, 2, TIME), TIMES).choose(Everyone(), TIMES)
    assert torch.equal(found.track.points_px[1, 0], torch.from_numpy(points[1, 0]).float())


def test_a_point_per_view_takes_the_same_person_in_all_views() -> None:
    """The numbers of the two differ between the views: who is there most is another one in each."""
    one = two_people()
    other = np.stack((person(80, 40), person(300, 90)), 1)
    other[2:5, 0] = np.nan
    both = people_in(as_faces([one, other], 2, TIME), TIMES)
    with pytest.raises(InputError, match="which of them are the same person in several views"):
        both.choose(MostPresent(), TIMES)
    (found,) = both.choose(as_choice([(300, 100, 0), (300, 100, 0)]), TIMES)
    assert found.selection.people == 2
    assert found.track.usable.sum(1).tolist() == [7, 10]
    assert abs(float(found.track.points_px[1, 0, :, 0].mean()) - 300) < 10
    (alone,) = both.choose(as_choice([None, (80, 100, 0)]), TIMES)
    assert alone.track.usable.sum(1).tolist() == [0, 7]


def with_scores(*scores: float, views: int = 1) -> People:
    """The small and the large person, with the same score in every frame; neither needs to be found."""
    found = as_faces([two_people()] * views, views, TIME)
    score = torch.tensor(scores).expand(views, TIME, 2) * (found.confidence.amax(-1) > 0)
    return people_in(replace(found, score=score), TIMES)


def test_tracks_that_are_hardly_faces_count_as_nobody_beside_a_sure_face() -> None:
    """Not even in views where nobody is surer; what is seen there then is no other person."""
    assert with_scores(0.9, 0.5).count == 1
    (found,) = with_scores(0.5, 0.9).choose(Everyone(), TIMES)
    assert abs(float(found.track.points_px[0, 0].mean(0)[0]) - 300) < 10
    assert found.track.status is not None
    assert found.track.status[0, 3:6].tolist() == [Status.NO_FACE] * 3
    assert with_scores(0.8, 0.7).count == 2


def test_faces_that_are_all_unsure_are_kept() -> None:
    assert with_scores(0.5, 0.4).count == 2


LONG = 40
LONG_TIMES = [frame / 5 for frame in range(LONG)]


def come_and_go(*spans: tuple[int, int]) -> np.ndarray:
    """People far apart who are there in some of LONG frames each, the larger the later they are named."""
    everyone = np.full((LONG, len(spans), 68, 2), np.nan)
    for number, (start, stop) in enumerate(spans):
        everyone[start:stop, number] = (80 + 900 * number, 100) + (20 + 5 * number) * SHAPE
    return everyone


def seen_by(*views: np.ndarray) -> People:
    return people_in(as_faces(list(views), len(views), LONG), LONG_TIMES)


def test_who_comes_and_goes_is_matched_by_the_time() -> None:
    """In one view the first place is of who stays, in the other one of who passes by."""
    first, second = come_and_go((0, 40), (10, 14)), come_and_go((10, 14), (0, 40))
    both = seen_by(first, second, first)
    stays, passes = both.choose(Everyone(), TIMES)
    assert stays.track.usable.sum(1).tolist() == [40, 40, 40]
    assert stays.track.points_px[:, 0, :, 0].mean(1).tolist() == pytest.approx([80, 980, 80], abs=9)
    assert passes.track.usable.sum(1).tolist() == [4, 4, 4]
    for choice, expected in ((MostPresent(), stays), (Numbered(number=1), passes), (Largest(), passes)):
        (found,) = both.choose(choice, TIMES)
        assert torch.equal(found.track.points_px, expected.track.points_px)
        assert found.selection.number == expected.selection.number


def moving_faces(*seeds: int) -> np.ndarray:
    """Mean faces side by side, whose mouths, lids and heads move as each seed says."""
    everyone = []
    for number, seed in enumerate(seeds):
        random = np.random.default_rng(seed).normal(size=(2, 4 * LONG + 4))
        mouth, lids = (np.convolve(values, np.ones(5) / 5**0.5, "valid") for values in random)
        points = np.tile(np.array(MEAN_FACE_MM)[:, :2] * (1, -1), (4 * LONG, 1, 1))
        points[:, [8, *range(55, 60), *range(65, 68)], 1] += 6 * (1 + mouth[:, None])
        points[:, [40, 41, 46, 47], 1] -= 3 * (1 + lids[:, None])
        everyone.append(points + np.array([200 + 300 * number, 200]))
    return np.stack(everyone, 1)


@pytest.mark.parametrize("seeds", [[(1, 2), (2, 1)], [(1, 2), (2, 1), (1, 2)], [(1, 2, 3), (3, 1, 2)]])
def test_people_who_stay_are_matched_by_what_their_faces_do(seeds: list[tuple[int, ...]]) -> None:
    """The same people stand in another order before every camera, and one picture is smaller."""
    views = [moving_faces(*order) for order in seeds]
    views[1] = 0.6 * views[1]
    times = [frame / 25 for frame in range(4 * LONG)]
    followed = people_in(as_faces(views, len(views), len(times)), times)
    found = followed.choose(Everyone(), times)
    assert len(found) == len(seeds[0])
    for person in found:
        x = person.track.points_px[..., 0].mean((1, 2)) / torch.tensor([1.0, 0.6, *[1.0] * (len(seeds) - 2)])
        who = {seeds[view][round((float(value) - 200) / 300)] for view, value in enumerate(x)}
        assert len(who) == 1
    still = [np.repeat(view[:1], len(times), axis=0) for view in views]
    followed = people_in(as_faces(still, len(views), len(times)), times)
    with pytest.raises(InputError, match="do not move enough"):
        followed.choose(MostPresent(), times)


def test_whom_only_one_camera_sees_is_a_person_too() -> None:
    both = seen_by(come_and_go((0, 40)), come_and_go((0, 40), (10, 16)))
    found = both.choose(Everyone(), LONG_TIMES)
    assert [item.track.usable.sum(1).tolist() for item in found] == [[40, 40], [0, 6]]
    assert [item.selection.people for item in found] == [2, 2]


def test_one_after_the_other_is_matched_by_the_time() -> None:
    """Who is seen most is another one in each view."""
    both = seen_by(come_and_go((0, 15), (20, 40)), come_and_go((22, 34), (0, 15)))
    (found,) = both.choose(MostPresent(), TIMES)
    assert found.track.usable[0].nonzero()[:, 0].tolist() == list(range(20, 40))
    assert found.track.usable[1].nonzero()[:, 0].tolist() == list(range(22, 34))


def test_a_view_that_never_sees_the_person_stays_empty() -> None:
    (found,) = seen_by(come_and_go((0, 10), (15, 40)), come_and_go((0, 10))).choose(MostPresent(), TIMES)
    assert found.track.usable.sum(1).tolist() == [25, 0]
