"""Which people of several synchronised cameras are the same, by when they are seen and by what their faces do.

Nobody is recognised. The tracks of all cameras are divided into groups, one per person, with at most one track of
each camera. The score of a division is the logarithm of its probability up to a constant::

    score = sum over groups of ( 2 / views * sum over pairs of views (evidence of the pair) - PERSON )

The evidence of two tracks is that of `presence` and of `movements`; that of a track and a camera without one is that
the camera does not see the person. Of pairs among more than two views only one less than there are views is
independent of the others, therefore the factor. The best division is found by assigning the tracks of one view after
the other, at the least cost, until nothing changes.

A person is doubtful if another division, in which one of their tracks is joined with, or parted from, another one,
has a score that is less than MARGIN lower.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float

from neuface.landmarks.tracking.motion import IMPOSSIBLE, assign
from neuface.landmarks.tracking.movements import Movements, movement_evidence
from neuface.landmarks.tracking.presence import Presence, presence_evidence, unseen_evidence

# Logarithm of how improbable one more person is.
PERSON = 3.0
# Difference of the scores below which another division may be the true one; docs/results.md has the measurement.
MARGIN = 4.0
# Added to the evidence of a pair that must be joined, and subtracted from that of one that must not.
FORCED = IMPOSSIBLE / 10
# Bounds the number of times that the tracks of all views are assigned again.
MOST_ROUNDS = 10
# Stands for the track of a view that has none of a person: the last row or column of the pairs' evidence.
NONE = -1

Group = tuple[int, ...]
"""One person's track in every view, by number; NONE where a view has none."""
Pair = tuple[int, int, int, int]
"""A view, a track of it, a later view, a track of that one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewTracks:
    """The tracks of one view."""

    presence: tuple[Presence, ...]
    movements: tuple[Movements, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Division:
    """The tracks of all views, divided into people; made by `people_across`."""

    groups: tuple[Group, ...]
    evidence: _Evidence

    def margin(self, group: Group) -> float:
        """How much lower the score of the best division is in which one of this person's tracks changes company."""
        best = self.evidence.score(self.groups)
        others = [
            self.evidence.score(self.evidence.changed(pair, joined=not _joined(group, pair)).best_groups())
            for pair in self.evidence.possible_pairs()
            if group[pair[0]] == pair[1] or group[pair[2]] == pair[3]
        ]
        return best - max(others, default=-np.inf)

    def is_doubtful(self, group: Group) -> bool:
        """Whether somebody else may be meant in some view."""
        return self.margin(group) < MARGIN


def people_across(views: Sequence[ViewTracks]) -> Division:
    """The people of several cameras.

    Args:
        views: those of one recording: frame t is the same moment in all of them.
    """
    evidence = _Evidence(
        of_views={
            (one, other): _evidence_between(views[one], views[other])
            for one, other in combinations(range(len(views)), 2)
        },
        tracks=tuple(len(view.presence) for view in views),
    )
    return Division(groups=evidence.best_groups(), evidence=evidence)


def _evidence_between(one: ViewTracks, other: ViewTracks) -> Float[np.ndarray, "n m"]:
    """The evidence of all pairs; in the last row and column, that of each track whom the other view does not see."""
    found = np.zeros((len(one.presence) + 1, len(other.presence) + 1))
    found[:-1, NONE] = [unseen_evidence(presence) for presence in one.presence]
    found[NONE, :-1] = [unseen_evidence(presence) for presence in other.presence]
    for row, column in np.ndindex(len(one.presence), len(other.presence)):
        presences = one.presence[row], other.presence[column]
        if (presences[0].frames & presences[1].frames).any():
            moves = movement_evidence(one.movements[row], other.movements[column])
            found[row, column] = presence_evidence(*presences) + moves
        else:
            found[row, column] = -IMPOSSIBLE
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class _Evidence:
    """What speaks for any two tracks being one person's, and the best division by it."""

    of_views: dict[tuple[int, int], Float[np.ndarray, "n m"]]
    """For each pair of views, rows are of the earlier one; the last row and column are NONE."""
    tracks: tuple[int, ...]
    """The number of tracks of every view."""

    def score(self, groups: Sequence[Group]) -> float:
        """The score of a division; the module has the formula."""
        pairs = sum(
            float(found[group[one], group[other]])
            for group in groups
            for (one, other), found in self.of_views.items()
        )
        return 2 / len(self.tracks) * pairs - PERSON * len(groups)

    def possible_pairs(self) -> Iterator[Pair]:
        """All pairs of tracks that have a moment in common."""
        for (one, other), found in self.of_views.items():
            for row, column in np.argwhere(found[:-1, :-1] > -IMPOSSIBLE).tolist():
                yield one, row, other, column

    def changed(self, pair: Pair, *, joined: bool) -> _Evidence:
        """The evidence with which two tracks are certainly joined, or certainly not."""
        one, row, other, column = pair
        found = self.of_views[one, other].copy()
        found[row, column] += FORCED if joined else -FORCED
        return _Evidence(of_views={**self.of_views, (one, other): found}, tracks=self.tracks)

    def best_groups(self) -> tuple[Group, ...]:
        """The division with the highest score that is found from any of the views."""
        found = [self._groups_from(first) for first in range(len(self.tracks))]
        return max(found, key=self.score)

    def _groups_from(self, first: int) -> tuple[Group, ...]:
        """The division that begins with one person for every track of a view."""
        views = range(len(self.tracks))
        groups: tuple[Group, ...] = ()
        for view in (first, *(view for view in views if view != first)):
            groups = self._with_view(groups, view)
        for _ in range(MOST_ROUNDS):
            before = groups
            for view in views:
                parted = {(*group[:view], NONE, *group[view + 1 :]) for group in groups}
                groups = self._with_view(sorted(parted - {(NONE,) * len(views)}), view)
            if set(groups) == set(before):
                break
        return groups

    def _with_view(self, groups: Sequence[Group], view: int) -> tuple[Group, ...]:
        """The groups with the tracks of a view, of which they have none yet, each in the group that fits best."""
        chosen = np.array(groups, dtype=int).reshape(len(groups), len(self.tracks))
        gain = np.full((len(groups), self.tracks[view]), PERSON)
        for other in range(len(self.tracks)):
            if other != view:
                found = self.of_views[other, view] if other < view else self.of_views[view, other].T
                together = found[chosen[:, other]]
                # The score of the joined group less those of both parts; other pairs of views are in both.
                gain += 2 / len(self.tracks) * (together[:, :-1] - together[:, NONE:] - found[NONE, :-1])
        pairs = dict(assign(-gain, 0.0)[0])
        joined = [_with(group, view, pairs.get(row, NONE)) for row, group in enumerate(groups)]
        nobody = (NONE,) * len(self.tracks)
        rest = sorted(set(range(self.tracks[view])) - set(pairs.values()))
        return (*joined, *(_with(nobody, view, track) for track in rest))


def _with(group: Group, view: int, track: int) -> Group:
    return (*group[:view], track, *group[view + 1 :])


def _joined(group: Group, pair: Pair) -> bool:
    one, row, other, column = pair
    return group[one] == row and group[other] == column
