"""The division of several cameras' tracks into people is the best one, and the margin is to the second best."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest

from neuface.landmarks.tracking.views import NONE, Division, Group, _Evidence


def random_evidence(seed: int, tracks: tuple[int, ...], spread: float) -> _Evidence:
    """Tracks of the same number are one person's."""
    random = np.random.default_rng(seed)
    of_views = {}
    for one in range(len(tracks)):
        for other in range(one + 1, len(tracks)):
            found = np.full((tracks[one] + 1, tracks[other] + 1), -3.0)
            found[NONE, NONE] = 0.0
            same = np.eye(tracks[one], tracks[other])
            found[:-1, :-1] = 8 * same - 2 + spread * random.normal(size=same.shape)
            of_views[one, other] = found
    return _Evidence(of_views=of_views, tracks=tracks)


def all_divisions(tracks: tuple[int, ...]) -> Iterator[tuple[Group, ...]]:
    """Every way of dividing tracks into groups with at most one of each view."""
    places = [(view, track) for view, count in enumerate(tracks) for track in range(count)]

    def extended(groups: list[dict[int, int]], index: int) -> Iterator[tuple[Group, ...]]:
        if index == len(places):
            yield tuple(tuple(group.get(view, NONE) for view in range(len(tracks))) for group in groups)
            return
        view, track = places[index]
        for place, group in enumerate(groups):
            if view not in group:
                yield from extended(
                    [*groups[:place], {**group, view: track}, *groups[place + 1 :]], index + 1
                )
        yield from extended([*groups, {view: track}], index + 1)

    yield from extended([], 0)


@pytest.mark.parametrize("tracks", [(2, 2), (3, 2), (1, 3), (2, 2, 2), (3, 2, 2), (2, 0, 1), (2, 1, 2, 1)])
def test_the_best_division_and_its_margin_are_found(tracks: tuple[int, ...]) -> None:
    every = list(all_divisions(tracks))
    for seed, spread in product(range(4), (1.0, 4.0)):
        evidence = random_evidence(seed, tracks, spread)
        scores = [evidence.score(groups) for groups in every]
        found = evidence.best_groups()
        assert evidence.score(found) == pytest.approx(max(scores))
        division = Division(groups=found, evidence=evidence)
        for group in found:
            others = [score for groups, score in zip(every, scores, strict=True) if group not in groups]
            assert division.margin(group) == pytest.approx(max(scores) - max(others, default=-np.inf))


def test_tracks_without_a_common_moment_are_never_joined() -> None:
    evidence = random_evidence(0, (2, 2), 0.0)
    evidence.of_views[0, 1][0, 0] = -1e6
    found = evidence.best_groups()
    assert (0, 0) not in found
    assert np.isfinite(Division(groups=found, evidence=evidence).margin((1, 1)))
