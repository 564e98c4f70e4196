"""Whether two cameras see one person, by when they see a face."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from jaxtyping import Bool

from neuface.landmarks.tracking import presence
from neuface.landmarks.tracking.presence import Presence, presence_evidence, presence_of, unseen_evidence

STEP_S = 0.04
TIME = 100


def frames(*missing: tuple[int, int], time: int = TIME) -> Bool[np.ndarray, " time"]:
    """Present in all frames but those of some spans."""
    there = np.ones(time, bool)
    for start, stop in missing:
        there[start:stop] = False
    return there


def track(*missing: tuple[int, int], time: int = TIME) -> Presence:
    return presence_of(frames(*missing, time=time), STEP_S)


def test_the_probability_is_the_sum_over_all_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sequence of states of the person and of both cameras, one by one."""
    monkeypatch.setattr(presence, "LASTS_S", (0.3, 0.1, 0.1, 0.1))
    seen, shares = (np.array([True, False, True]), np.array([True, True, False])), (0.9, 0.4)
    person, stage = presence._cycle(presence.LASTS_S, STEP_S)
    camera, visible = presence._cycle((presence.SEES_S, presence.MISSES_S), STEP_S)
    edge, away = presence.FOUND_AT_EDGE, presence.FOUND_THOUGH_AWAY
    total = 0.0
    for where in product(range(4), repeat=3):
        for misses in product(product(range(2), repeat=3), repeat=2):
            way = stage[where[0]] * visible[misses[0][0]] * visible[misses[1][0]]
            for before, after in ((0, 1), (1, 2)):
                way *= person[where[before], where[after]]
                for of_camera in misses:
                    way *= camera[of_camera[before], of_camera[after]]
            for observed, share, of_camera in zip(seen, shares, misses, strict=True):
                for frame in range(3):
                    found = (share, edge, away, edge)[where[frame]] if of_camera[frame] == 0 else away
                    way *= found if observed[frame] else 1 - found
            total += way
    assert presence._log_probability(seen, shares, STEP_S) == pytest.approx(np.log(total))


def test_who_leaves_and_returns_at_the_same_time_is_one_person() -> None:
    stays, leaves, leaves_late = track(), track((30, 70)), track((60, 95))
    assert presence_evidence(leaves, leaves) > 4
    assert presence_evidence(leaves, track((31, 72))) > 2
    assert presence_evidence(leaves, leaves_late) < 1
    assert abs(presence_evidence(stays, stays)) < 1
    assert presence_evidence(leaves, stays) == pytest.approx(presence_evidence(stays, leaves))


def test_a_moment_in_which_both_cameras_miss_the_face_tells_little() -> None:
    """What passes before both cameras hides one person from one of them, and somebody else from the other."""
    assert presence_evidence(track((50, 53)), track((50, 53))) < 1.5


def test_missing_frames_here_and_there_are_no_absence() -> None:
    random = np.random.default_rng(0)
    rarely = [presence_of(random.random(TIME) < 0.4, STEP_S) for _ in range(2)]
    assert all(item.share < 0.6 for item in rarely)
    assert abs(presence_evidence(*rarely)) < 2


def test_a_camera_may_miss_whom_another_sees_for_long() -> None:
    brief, long = track((0, 45), (50, 100)), track()
    assert unseen_evidence(long) < unseen_evidence(brief) < 0
    assert unseen_evidence(long) > np.log(presence.NEVER) - 0.1


def test_long_recordings_have_finite_evidence() -> None:
    often = track(*((start, start + 25) for start in range(0, 20_000, 100)), time=20_000)
    assert np.isfinite(presence_evidence(often, often))
    assert presence_evidence(often, often) > 100
