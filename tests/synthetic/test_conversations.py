"""Two people before several cameras, and that they are matched from camera to camera by what they do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuface.head.model import HeadModel
from neuface.landmarks.schemes import IBUG68
from neuface.landmarks.tracking.movements import Movements, movement_evidence, movements
from neuface.structs import ndc_to_px
from neuface.synthetic.conversations import FPS, TALKS, Talk, conversation
from neuface.synthetic.people import open_head_identities
from neuface.synthetic.two_people import TwoPeople, paint_two_people

YAWS = (-30.0, 0.0, 30.0)


def views_of(
    head: HeadModel, talk: Talk, *, leaves: bool = False, seed: int = 0, time: int = 100
) -> list[TwoPeople]:
    people = open_head_identities(2, 11 + seed)
    return conversation(head, people, talk, view_yaw_deg=YAWS, leaves=leaves, time=time, seed=seed)


def points_of(view: TwoPeople, person: int) -> torch.Tensor:
    return view.points_px[view.order.index(person)]


@pytest.mark.parametrize("talk", TALKS)
def test_both_stay_in_every_picture_and_one_leaves_it(open_head: HeadModel, talk: Talk) -> None:
    for view in views_of(open_head, talk):
        assert view.visible.all()
        left, right = (points_of(view, person)[..., 0].mean(-1) for person in range(2))
        assert bool((left < right).all())
    for view in views_of(open_head, talk, leaves=True):
        first, second = (view.visible[view.order.index(person)] for person in range(2))
        assert first.all()
        assert bool(second[[0, -1]].all())
        assert 0.2 < float((~second).float().mean()) < 0.6


def test_the_views_show_one_world(open_head: HeadModel) -> None:
    """Another camera's landmarks are an affine map of the same heads: one map for both people, but for nearness."""
    views = views_of(open_head, "both", time=20)
    for view in views:
        assert view.order in {(0, 1), (1, 0)}
        scale = view.camera.scale.mean(1)
        assert float(scale[0]) >= float(scale[1])
        again = ndc_to_px(view.camera.project(open_head.landmarks(view.params, IBUG68.name)), view.size_px)
        torch.testing.assert_close(again, view.points_px)
    expression = [view.params.expression[view.order.index(0)] for view in views]
    assert torch.equal(expression[0], expression[1])
    # Turned by 30 degrees, the way between both is shorter.
    apart = [float((points_of(view, 1) - points_of(view, 0))[..., 0].mean()) for view in views]
    assert apart[1] > apart[0]
    assert apart[1] > apart[2]


def test_still_people_do_not_move_at_all(open_head: HeadModel) -> None:
    for view in views_of(open_head, "still", time=10):
        torch.testing.assert_close(view.points_px, view.points_px[:, :1].expand_as(view.points_px))


def test_a_person_looks_the_same_to_all_cameras(open_head: HeadModel) -> None:
    """The mean colour of a face, which light and backdrop leave as they are."""
    colours = []
    for view in views_of(open_head, "both", time=1):
        frame = paint_two_people(open_head, view)[0].float()
        for person in range(2):
            x, y = points_of(view, person)[0, 27:31].mean(0).round().long().tolist()
            colours.append(frame[y - 2 : y + 3, x - 2 : x + 3].mean((0, 1)))
    first, second = torch.stack(colours[::2]), torch.stack(colours[1::2])
    assert float((first - first.mean(0)).norm(dim=-1).max()) < float((first.mean(0) - second.mean(0)).norm())


@pytest.mark.parametrize("talk", ["both", "turns", "one"])
def test_people_are_told_apart_by_what_they_do(open_head: HeadModel, talk: Talk) -> None:
    seconds = np.arange(100) / FPS
    views = views_of(open_head, talk, seed=4)

    def of(view: TwoPeople, person: int) -> Movements:
        return movements(points_of(view, person).double().numpy(), seconds)

    for person in range(2):
        assert movement_evidence(of(views[0], person), of(views[2], person)) > 4
        assert movement_evidence(of(views[0], person), of(views[2], 1 - person)) < 0.5
