"""Who is chosen of several people, and why a frame has no landmarks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuface.errors import InputError
from neuface.landmarks.arrays import as_faces
from neuface.landmarks.tracking.choice import At, Choice, Everyone, Largest, MostPresent, Numbered, as_choice
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
    return people_in(as_faces([given] * views, views, TIME))


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
    ],
)
def test_short_forms_of_choices_are_read(value: object, expected: Choice) -> None:
    assert as_choice(value) == expected


@pytest.mark.parametrize(
    "value", ["somebody", -1, True, (1, 2), (1, 2, "x"), (1, 2, float("nan")), None, 1.5]
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
            "nobody is at x 200, y 100 in frame 0: faces there are at x",
        ),
        (At(x_px=200.0, y_px=100.0, seconds=0.0, view=1), 1, "view 1 does not exist"),
        (Everyone(), 2, "which of them are the same person in several views is not known"),
        (Numbered(number=1), 2, "which of them are the same person"),
        (At(x_px=80.0, y_px=100.0, seconds=0.0), 2, "does not tell who it is in another view"),
    ],
)
def test_choices_that_cannot_be_met_are_refused(choice: Choice, views: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        people(views=views).choose(choice, TIMES)


def test_the_views_of_one_person_stay_together() -> None:
    points = np.stack([person(80, 40), person(120, 60)])
    (found,) = people_in(as_faces(points, 2, TIME)).choose(Everyone(), TIMES)
    assert torch.equal(found.track.points_px[1, 0], torch.from_numpy(points[1, 0]).float())
