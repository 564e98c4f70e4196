"""Frame by frame: faces that certainly belong together form tracklets.

Every tracklet predicts its face by a Kalman filter with damped constant velocity. Faces are assigned to the
predictions at the least cost. Where another assignment is nearly as probable (two faces cross, one hides the
other), the tracklets end: `neuface.landmarks.tracking.people` joins them when it knows what follows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from neuface.landmarks.tracking.motion import DAMPING, IMPOSSIBLE, MOST_OF_SHAPE, assign, t_cost
from neuface.landmarks.tracking.observations import Faces

# Standard deviations of an observed centre (face sizes), and of the acceleration (face sizes per frame^2).
CENTRE_NOISE, ACCELERATION = 0.03, 0.05
# Standard deviation of the velocity of a face that was just found, face sizes per frame.
FIRST_VELOCITY = 0.1
# Standard deviations of the change between two frames: of the logarithm of the size, and of the shape (face sizes).
SIZE_CHANGE, SHAPE_CHANGE = 0.08, 0.04
# Largest distance between a face and its prediction in face sizes, for the next frame and for each missed one more.
REACH, REACH_PER_MISS = 1.25, 0.25
# Largest ratio of the sizes of a face in neighbouring frames.
LARGEST_SIZE_RATIO = 1.7
# Frames in a row without the face after which a tracklet ends.
MOST_MISSES = 3
# Cost of a tracklet that finds no face, and of a face that starts a tracklet.
ALONE = 12.0
# Difference of costs below which two assignments are nearly equally probable.
AMBIGUOUS = 14.0


@dataclass(frozen=True, kw_only=True)
class Tracklet:
    """Faces of one person in rising frames; `faces[k]` is the number of the face in frame `frames[k]`."""

    frames: tuple[int, ...]
    faces: tuple[int, ...]


def tracklets(observed: Faces, start: int, stop: int) -> list[Tracklet]:
    """The tracklets of the frames `start <= t < stop`: every face of these frames is in exactly one of them."""
    moving: list[_Filter] = []
    ended: list[_Filter] = []
    for frame in range(start, stop):
        present = np.flatnonzero(observed.present[frame]).tolist()
        for item in moving:
            item.predict()
        matched, doubtful = _matches(moving, observed, frame, present)
        for row, face in matched.items():
            if row not in doubtful:
                moving[row].update(observed, frame, face)
        ends = {row for row, item in enumerate(moving) if row in doubtful or item.misses > MOST_MISSES}
        ended += [moving[row] for row in sorted(ends)]
        taken = {face for row, face in matched.items() if row not in doubtful}
        moving = [item for row, item in enumerate(moving) if row not in ends]
        moving += [_Filter.first(observed, frame, face) for face in present if face not in taken]
    found = [Tracklet(frames=tuple(item.frames), faces=tuple(item.faces)) for item in ended + moving]
    return sorted(found, key=lambda item: (item.frames[0], item.faces[0]))


def _matches(
    moving: list[_Filter], observed: Faces, frame: int, present: list[int]
) -> tuple[dict[int, int], set[int]]:
    """The face of every tracklet (by its place in the list) that finds one, and the tracklets that are in doubt."""
    if not moving or not present:
        return {}, set()
    cost = np.array([item.costs(observed, frame, present) for item in moving])
    pairs, best = assign(cost, ALONE)
    doubtful: set[int] = set()
    for row, column in pairs:
        without = cost.copy()
        without[row, column] = IMPOSSIBLE
        others, second = assign(without, ALONE)
        if second - best < AMBIGUOUS:
            doubtful |= {changed for changed, _ in set(pairs) ^ set(others)}
    return {row: present[column] for row, column in pairs}, doubtful


@dataclass(kw_only=True)
class _Filter:
    """A tracklet as it grows. Covariances are in face sizes and the same for x and y."""

    centre_px: Float[np.ndarray, " 2"]
    velocity_px: Float[np.ndarray, " 2"] = field(default_factory=lambda: np.zeros(2))
    covariance: Float[np.ndarray, "2 2"] = field(
        default_factory=lambda: np.diag([CENTRE_NOISE**2, FIRST_VELOCITY**2])
    )
    size_px: float
    shape: Float[np.ndarray, "points 2"]
    frames: list[int]
    faces: list[int]
    misses: int = 0

    @classmethod
    def first(cls, observed: Faces, frame: int, face: int) -> _Filter:
        """The tracklet that begins with this face."""
        return cls(
            centre_px=observed.centre_px[frame, face].astype(float),
            size_px=float(observed.size_px[frame, face]),
            shape=observed.shape[frame, face],
            frames=[frame],
            faces=[face],
        )

    def predict(self) -> None:
        """Move on by one frame, in which the face counts as missed until `update`."""
        self.centre_px = self.centre_px + DAMPING * self.velocity_px
        self.velocity_px = DAMPING * self.velocity_px
        step = np.array([[1.0, DAMPING], [0.0, DAMPING]])
        push = np.array([0.5, 1.0]) * ACCELERATION
        self.covariance = step @ self.covariance @ step.T + np.outer(push, push)
        self.misses += 1

    def costs(self, observed: Faces, frame: int, present: list[int]) -> Float[np.ndarray, " present"]:
        """The cost of each face of the frame as the next one; IMPOSSIBLE if it is out of reach."""
        distance = np.linalg.norm(observed.centre_px[frame, present] - self.centre_px, axis=-1) / self.size_px
        grown = np.abs(np.log(observed.size_px[frame, present] / self.size_px))
        shape = np.array([observed.shape_distance(frame, face, self.shape) for face in present])
        deviations = (
            distance**2 / (self.covariance[0, 0] + CENTRE_NOISE**2)
            + (grown**2 / SIZE_CHANGE**2 + np.minimum(shape**2 / SHAPE_CHANGE**2, MOST_OF_SHAPE))
            / self.misses
        )
        near = (distance <= REACH + REACH_PER_MISS * (self.misses - 1)) & (
            grown <= np.log(LARGEST_SIZE_RATIO)
        )
        return np.where(near, t_cost(deviations), IMPOSSIBLE)

    def update(self, observed: Faces, frame: int, face: int) -> None:
        """Take this face as the tracklet's face of the frame."""
        gain = self.covariance[:, 0] / (self.covariance[0, 0] + CENTRE_NOISE**2)
        innovation = observed.centre_px[frame, face] - self.centre_px
        self.centre_px = self.centre_px + gain[0] * innovation
        self.velocity_px = self.velocity_px + gain[1] * innovation
        self.covariance = self.covariance - np.outer(gain, self.covariance[0])
        self.size_px = float(observed.size_px[frame, face])
        self.shape = observed.shape[frame, face]
        self.frames.append(frame)
        self.faces.append(face)
        self.misses = 0
