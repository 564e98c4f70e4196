"""Rendered clips of two people, and that the tracker never exchanges them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuface.head.model import HeadModel
from neuface.landmarks.tracking.observations import observed_faces
from neuface.landmarks.tracking.people import find_people
from neuface.synthetic.people import open_head_identities
from neuface.synthetic.two_people import (
    STORIES,
    DetectorErrors,
    Story,
    TwoPeople,
    found_by_detector,
    paint_two_people,
    two_people,
)

CLIPS = 50


def clip_of(head: HeadModel, story: Story, seed: int = 0, time: int = 60) -> TwoPeople:
    return two_people(head, open_head_identities(2, 31 * seed + 7), story, time=time, seed=seed)


@pytest.mark.parametrize("story", STORIES)
def test_stories_happen(open_head: HeadModel, story: Story) -> None:
    clip = clip_of(open_head, story)
    x = clip.points_px[..., 0].mean(-1)
    size = (clip.points_px.amax(-2) - clip.points_px.amin(-2)).amax(-1)
    apart = x[1] - x[0]
    if story == "crossing":
        assert float(apart[0] * apart[-1]) < 0
        assert not clip.visible[1].all()
    elif story == "leaving":
        gone = ~clip.visible[1]
        assert clip.visible[1, 0]
        assert gone.any()
        assert clip.visible[1, -1]
    elif story == "closer":
        assert float(size[1, 0]) < float(size[0, 0])
        assert float(size[1, -1]) > float(size[0, -1])
    else:
        assert float(apart.abs().min()) < 0.6 * float(apart.abs().max())
        assert float(apart[0] * apart[-1]) > 0
    assert clip.visible[0].all()


def test_a_detector_without_errors_reports_the_truth(open_head: HeadModel) -> None:
    clip = clip_of(open_head, "crossing")
    none = DetectorErrors(noise=0.0, missed_share=0.0, false_share=0.0)
    found = found_by_detector(clip, none, seed=0)
    for person in range(2):
        frame, face = (found.person == person).nonzero(as_tuple=True)
        assert torch.equal(frame, clip.visible[person].nonzero()[:, 0])
        assert torch.equal(found.points_px[frame, face], clip.points_px[person, frame])
    assert torch.equal((found.person >= 0).sum(1), clip.visible.sum(0))


def test_faces_are_painted_where_the_landmarks_are(open_head: HeadModel) -> None:
    clip = two_people(open_head, open_head_identities(2, 5), "meeting", time=2, size_px=128)
    alone = paint_two_people(open_head, clip)
    assert alone.shape == (2, 128, 128, 3)
    assert torch.equal(alone, paint_two_people(open_head, clip))
    # A lip and the brow above it differ more in colour than two places of the backdrop beside each other.
    for person in range(2):
        x, y = clip.points_px[person, 0, [51, 27]].round().long().unbind(-1)
        assert float((alone[0, y[0], x[0]].float() - alone[0, y[1], x[1]].float()).abs().max()) > 5


@pytest.mark.slow
def test_nobody_is_exchanged_in_fifty_clips(open_head: HeadModel) -> None:
    """Measured: 0 exchanges; the nearest centre without memory, for one of the two people, had 9."""
    exchanges, people = 0, []
    for seed in range(CLIPS):
        clip = clip_of(open_head, STORIES[seed % len(STORIES)], seed)
        found = found_by_detector(clip, DetectorErrors(), seed=seed)
        paths = find_people(observed_faces(found.points_px.double().numpy()))
        people.append(len(paths))
        for path in paths:
            frames = np.flatnonzero(path.present)
            who = found.person.numpy()[frames, path.face[frames]]
            exchanges += int((np.diff(who[who >= 0]) != 0).sum())
    assert exchanges == 0
    assert people.count(2) >= CLIPS - 2
