"""When faces are seen, and whether two cameras that see them see one person.

A hidden Markov model. A person is there, leaves, is away and comes back, each for a random time; being away has
several stages, because nobody goes for an instant. Each camera finds the face in a share of the frames in which the
person is there (small and turned faces are missed often), but for times in which it misses the face altogether
(turned away, hidden), which begin and end at random, too. Who comes or leaves is at the edge of one picture sooner
than of another, and is found at random. The evidence is the logarithm of how much more probable the frames of both
cameras are if one person explains them than if two do. Two people who are there all the time give none: this model
knows nothing of what they do.

Forward algorithm: Rabiner, A tutorial on hidden Markov models, 1989.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import product

import numpy as np
from jaxtyping import Bool, Float

# Usual times for which a person stays, leaves, is away and comes, seconds. They need not be exact: a factor of two
# changes the evidence of a coming or going by 0.7.
LASTS_S = (10.0, 0.15, 5 / 3, 5 / 3, 5 / 3, 0.15)
# Probability that a face is found in a frame, of who is leaving or coming, and of who is away or hidden.
FOUND_AT_EDGE, FOUND_THOUGH_AWAY = 0.5, 0.01
# Shares of frames in which a camera may find who is there; that of a track is the most probable one of them.
SHARES = (0.97, 0.85, 0.65, 0.45, 0.25)
# Usual times for which a camera sees who is there, and misses the face, seconds.
SEES_S, MISSES_S = 4.0, 0.7
# Probability that a camera never sees the place where a person is.
NEVER = 0.05
# Frames that are computed at once: bounds how small the probabilities become.
MOST_FRAMES = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Presence:
    """When a track has a face; made by `presence_of`."""

    frames: Bool[np.ndarray, " time"]
    share: float
    """Of the frames in which the person is there that the camera finds the face."""
    log_probability: float
    """Of the frames, if they show one person whom no other camera sees."""
    step_s: float
    """Between two frames."""


def presence_of(frames: Bool[np.ndarray, " time"], step_s: float) -> Presence:
    """The presence of one track, with the most probable share of SHARES."""
    found = {share: _log_probability((frames,), (share,), step_s) for share in SHARES}
    share = max(SHARES, key=lambda share: found[share])
    return Presence(frames=frames, share=share, log_probability=found[share], step_s=step_s)


def presence_evidence(one: Presence, other: Presence) -> float:
    """The logarithm of how much more probable both cameras' frames are if they show one person.

    >>> tracks = [presence_of(frames, 0.04) for frames in (np.ones(100, bool), np.arange(100) < 50)]
    >>> [round(presence_evidence(one, other)) for one in tracks for other in tracks]
    [1, -1, -1, 5]
    """
    together = _log_probability((one.frames, other.frames), (one.share, other.share), one.step_s)
    return float(np.log1p(-NEVER) + together - one.log_probability - other.log_probability)


def unseen_evidence(one: Presence) -> float:
    """The logarithm of the probability that another camera sees nobody while this one sees a person; at most 0."""
    nobody = np.zeros_like(one.frames)
    missed = _log_probability((one.frames, nobody), (one.share, SHARES[0]), one.step_s) - one.log_probability
    return float(np.logaddexp(np.log(NEVER), np.log1p(-NEVER) + missed))


def _log_probability(
    seen: tuple[Bool[np.ndarray, " time"], ...], shares: tuple[float, ...], step_s: float
) -> float:
    """Of the frames of some cameras, if they show one person."""
    comes_and_goes, stage = _cycle(LASTS_S, step_s)
    sees, visible = _cycle((SEES_S, MISSES_S), step_s)
    cameras = len(seen)
    step = reduce(np.kron, [comes_and_goes] + [sees] * cameras)
    probability = reduce(np.kron, [stage] + [visible] * cameras)
    states = np.array(list(product(range(len(LASTS_S)), *[range(2)] * cameras)))
    # Where each person is found with which probability: there, leaving, away in three stages, coming.
    away = [FOUND_THOUGH_AWAY] * (len(LASTS_S) - 3)
    of_stage = np.array([[share, FOUND_AT_EDGE, *away, FOUND_AT_EDGE] for share in shares]).T
    likely = np.where(states[:, 1:] == 0, of_stage[states[:, 0]], FOUND_THOUGH_AWAY)
    observed = np.stack(seen)
    changes = np.flatnonzero((observed[:, 1:] != observed[:, :-1]).any(0)) + 1
    logarithm = 0.0
    for start, stop in zip((0, *changes), (*changes, observed.shape[1]), strict=True):
        emission = np.where(observed[:, start], likely, 1 - likely).prod(1)
        if start == 0:
            probability, start = probability * emission, 1
        moved = step * emission
        for some in range(start, stop, MOST_FRAMES):
            probability = probability @ np.linalg.matrix_power(moved, min(MOST_FRAMES, stop - some))
            total = float(probability.sum())
            logarithm, probability = logarithm + np.log(total), probability / total
    return float(logarithm + np.log(probability.sum()))


def _cycle(
    seconds: tuple[float, ...], step_s: float
) -> tuple[Float[np.ndarray, "states states"], Float[np.ndarray, " states"]]:
    """Transition probabilities, in a time step, of states that follow each other in a circle, and the usual shares.

    Args:
        seconds: how long each state lasts on average.
    """
    ends = -np.expm1(-step_s / np.array(seconds))
    step = np.diag(1 - ends) + np.diag(ends) @ np.roll(np.eye(len(seconds)), 1, axis=1)
    return step, np.array(seconds) / sum(seconds)
