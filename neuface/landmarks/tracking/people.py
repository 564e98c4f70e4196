"""From tracklets to people: joining over gaps and crossings, within one shot.

1. Tracklets whose motion fits together are joined, all at once, at the least cost. What a gap allows grows with its
   length. Short tracklets take no part at first, because they determine no velocity.
2. The faces left over fill the gaps of those chains where they lie near the path, and extend them at their ends.
3. Who is gone may come back elsewhere: two chains are joined if nobody else could be the one who comes, and the one
   who went could be nobody else.

No face is recognised: nothing joins the faces of two shots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from neuface.landmarks.tracking.motion import IMPOSSIBLE, MOST_OF_SHAPE, assign, damped_frames, t_cost
from neuface.landmarks.tracking.observations import Faces
from neuface.landmarks.tracking.tracklets import Tracklet, tracklets

# Frames in which a face must be found to count as a person, as a number, as a share of the frames of the most present
# person of the shot, and the number above which the share does not matter. Fewer are false detections, unless nobody
# has more.
FEWEST_FRAMES, FEWEST_SHARE, CERTAIN_FRAMES = 3, 0.1, 10
# Frames at a tracklet's end from which its velocity is estimated.
VELOCITY_FRAMES = 6
# Fewest faces of a tracklet that takes part in the first joining.
RELIABLE_FACES = 4
# Longest gap over which motion says who it is.
LONGEST_GAP = 100
# Standard deviations over a gap, as a constant and its growth per frame of the gap: of the place (face sizes), the
# velocity (face sizes per frame), the logarithm of the size, and the shape (face sizes).
PLACE_DEVIATION = (0.10, 0.06)
VELOCITY_DEVIATION = (0.05, 0.02)
SIZE_DEVIATION = (0.06, 0.02)
SHAPE_DEVIATION = (0.05, 0.01)
# Cost of an end, and of a beginning, that is joined to nothing: for tracklets of RELIABLE_FACES, and for longer ones.
# For shorter ones it is proportionally lower, because they are more probably false detections.
ALONE = 10.0
# Difference of costs below which two ways of joining are equally probable, so that neither is taken.
DOUBTFUL = 1.0
# Distance from the line between the faces before and after (face sizes), and change of the logarithm of the size,
# above which a single face is not the person's; both per frame of the step.
INTRUDER_DISTANCE, INTRUDER_GROWTH = 0.35, 0.35
# Bounds how much later than one chain another may begin and still be who was gone, in gaps of the first: who is back
# at once is nobody who comes much later.
RIVAL_GAPS = 4
# The distance that a person can go between two frames (about 4 m/s at 25 frames per second), and in addition over any
# gap, face sizes; and the largest ratio of the sizes before and after.
FASTEST, SLACK = 1.0, 0.5
LARGEST_SIZE_RATIO = 2.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Path:
    """Which face of every frame is one person's."""

    face: Int[np.ndarray, " time"]
    """The number of the face among those of the frame; -1 where the person has none."""

    @property
    def present(self) -> Bool[np.ndarray, " time"]:
        """The frames in which the person has a face."""
        return self.face >= 0


def find_people(observed: Faces, starts: Sequence[int] = (0,)) -> list[Path]:
    """Everyone in one camera's frames, the most present first, and among equals the larger.

    Args:
        observed: the faces of every frame.
        starts: the first frames of the shots; nobody is followed from one shot into another.
    """
    time = len(observed.size_px)
    found: list[tuple[int, float, Path]] = []
    for start, stop in zip(starts, (*starts[1:], time), strict=True):
        chains = _chains(observed, start, stop)
        most = max((len(chain.frames) for chain in chains), default=0)
        enough = min(most, max(FEWEST_FRAMES, min(CERTAIN_FRAMES, FEWEST_SHARE * most)))
        for chain in chains:
            if len(chain.frames) >= enough:
                face = np.full(time, -1)
                face[list(chain.frames)] = chain.faces
                size = float(np.median(observed.size_px[list(chain.frames), list(chain.faces)]))
                found.append((len(chain.frames), size, Path(face=face)))
    # Sorting is stable: among equals in both, who came first stays first.
    return [path for _, _, path in sorted(found, key=lambda item: (-item[0], -item[1]))]


def _chains(observed: Faces, start: int, stop: int) -> list[Tracklet]:
    pieces = tracklets(observed, start, stop)
    reliable = [piece for piece in pieces if len(piece.frames) >= RELIABLE_FACES]
    rest = [piece for piece in pieces if len(piece.frames) < RELIABLE_FACES]
    chains = _joined(observed, reliable)
    chains, rest = _with_gaps_filled(observed, chains, rest)
    joined = _joined_elsewhere(observed, _joined(observed, [*chains, *rest]))
    return [_without_intruders(observed, chain) for chain in joined]


def _merged(first: Tracklet, second: Tracklet) -> Tracklet:
    return Tracklet(frames=first.frames + second.frames, faces=first.faces + second.faces)


def _without_intruders(observed: Faces, chain: Tracklet) -> Tracklet:
    """The chain without single faces that lie off the line between those before and after them."""
    if len(chain.frames) < 3:
        return chain
    frames, faces = np.array(chain.frames), np.array(chain.faces)
    centres, sizes = observed.centre_px[frames, faces], observed.size_px[frames, faces]
    share = ((frames[1:-1] - frames[:-2]) / (frames[2:] - frames[:-2]))[:, None]
    away = np.linalg.norm(centres[1:-1] - (1 - share) * centres[:-2] - share * centres[2:], axis=-1)
    usual = np.sqrt(sizes[:-2] * sizes[2:])
    gap = (frames[2:] - frames[:-2]) / 2
    grown = np.abs(np.log(sizes[1:-1] / usual))
    off = (away > INTRUDER_DISTANCE * gap * usual) | (grown > INTRUDER_GROWTH * gap)
    # A face beside an intruder lies off the line to the intruder, too: only the worst of neighbours is one.
    error = np.pad(np.maximum(away / usual / INTRUDER_DISTANCE, grown / INTRUDER_GROWTH) / gap, 1)
    worst = (error[1:-1] >= error[:-2]) & (error[1:-1] >= error[2:])
    kept = np.concatenate(([True], ~(off & worst), [True]))
    return Tracklet(frames=tuple(frames[kept].tolist()), faces=tuple(faces[kept].tolist()))


# --- Joining by motion


@dataclass(frozen=True, kw_only=True)
class _Ends:
    """Tracklets at their beginnings (`side` 0) and at their ends (`side` 1), one row each."""

    frame: Int[np.ndarray, " n"]
    centre_px: Float[np.ndarray, "n 2"]
    velocity_px: Float[np.ndarray, "n 2"]
    size_px: Float[np.ndarray, " n"]
    shape: Float[np.ndarray, "n points 2"]

    @classmethod
    def of(cls, observed: Faces, pieces: Sequence[Tracklet], side: int) -> _Ends:
        at = -1 if side else 0
        span = slice(-VELOCITY_FRAMES, None) if side else slice(0, VELOCITY_FRAMES)
        frame = np.array([piece.frames[at] for piece in pieces])
        face = np.array([piece.faces[at] for piece in pieces])
        velocities = [
            _velocity_px(
                np.array(piece.frames[span]), observed.centre_px[piece.frames[span], piece.faces[span]]
            )
            for piece in pieces
        ]
        return cls(
            frame=frame,
            centre_px=observed.centre_px[frame, face],
            velocity_px=np.stack(velocities),
            size_px=np.array([_size_px(observed, piece, span) for piece in pieces]),
            shape=observed.shape[frame, face],
        )


def _size_px(observed: Faces, piece: Tracklet, span: slice) -> float:
    """The median size of the faces of a part of a tracklet: single ones are squashed, as beside a hand."""
    return float(np.median(observed.size_px[piece.frames[span], piece.faces[span]]))


def _velocity_px(
    frames: Int[np.ndarray, " k"], centre_px: Float[np.ndarray, "k 2"]
) -> Float[np.ndarray, " 2"]:
    """The slope of the least-squares line, pixels per frame; 0 for a single frame."""
    relative = frames - frames.mean()
    spread = float((relative**2).sum())
    return relative @ centre_px / spread if spread else np.zeros(2)


def _joined(observed: Faces, pieces: Sequence[Tracklet]) -> list[Tracklet]:
    """The pieces joined by the motion at their ends, at the least total cost."""
    if len(pieces) < 2:
        return list(pieces)
    before, after = _Ends.of(observed, pieces, 1), _Ends.of(observed, pieces, 0)
    cost = np.stack([_joining_cost(before, row, after) for row in range(len(pieces))])
    alone = np.array([_alone(len(piece.frames)) for piece in pieces])
    # `assign` has one cost for all that stay alone: what a pair saves less than that is added to the pair.
    cost = cost + (2 * ALONE - alone[:, None] - alone)
    cost[cost >= 2 * ALONE] = IMPOSSIBLE
    successor = {}
    for rows, columns in _independent_parts(cost < IMPOSSIBLE):
        pairs = _certain_pairs(cost[np.ix_(rows, columns)])
        successor |= {int(rows[row]): int(columns[column]) for row, column in pairs}
    return _followed(pieces, successor)


def _certain_pairs(cost: Float[np.ndarray, "rows columns"]) -> list[tuple[int, int]]:
    """The pairs of the best assignment, without those that another one of nearly equal cost gives to others."""
    pairs, best = assign(cost, ALONE)
    certain = []
    for row, column in pairs:
        without = cost.copy()
        without[row, column] = IMPOSSIBLE
        others, second = assign(without, ALONE)
        elsewhere = any(row == other or column == rival for other, rival in others)
        if not elsewhere or second - best >= DOUBTFUL:
            certain.append((row, column))
    return certain


def _alone(faces: int) -> float:
    return ALONE * min(1.0, faces / RELIABLE_FACES)


def _followed(pieces: Sequence[Tracklet], successor: dict[int, int]) -> list[Tracklet]:
    """Each piece that follows none, with all that follow it."""
    chains = []
    for first in sorted(set(range(len(pieces))) - set(successor.values())):
        chain, place = pieces[first], first
        while place in successor:
            place = successor[place]
            chain = _merged(chain, pieces[place])
        chains.append(chain)
    return chains


def _independent_parts(
    possible: Bool[np.ndarray, "n n"],
) -> list[tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " columns"]]]:
    """Rows and columns that are connected by possible pairs: each part has an assignment of its own."""
    # On use: it loads slowly.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows, columns = possible.nonzero()
    count = len(possible)
    graph = coo_array((np.ones(len(rows)), (rows, columns + count)), shape=(2 * count, 2 * count))
    _, label = connected_components(graph, directed=False)
    parts = []
    for part in np.unique(label[:count][possible.any(1)]):
        parts.append((np.flatnonzero(label[:count] == part), np.flatnonzero(label[count:] == part)))
    return parts


def _joining_cost(before: _Ends, row: int, after: _Ends) -> Float[np.ndarray, " n"]:
    """The cost of every piece as the continuation of the piece `row`; IMPOSSIBLE where it cannot be."""
    gap = after.frame - before.frame[row]
    possible = (gap >= 1) & (gap <= LONGEST_GAP)
    frames = np.where(possible, gap, 1).astype(float)
    size = np.sqrt(before.size_px[row] * after.size_px)
    moved = damped_frames(frames)[:, None]
    way = after.centre_px - before.centre_px[row]
    forward = np.linalg.norm(way - moved * before.velocity_px[row], axis=-1) / size
    backward = np.linalg.norm(way - moved * after.velocity_px, axis=-1) / size
    speed = np.linalg.norm(after.velocity_px - before.velocity_px[row], axis=-1) / size
    grown = np.abs(np.log(after.size_px / before.size_px[row]))
    differs = np.linalg.norm(after.shape - before.shape[row], axis=-1)
    shape = np.sqrt(np.nan_to_num(np.where(np.isfinite(differs), differs**2, 0.0).mean(-1)))
    place = _deviation(PLACE_DEVIATION, frames)
    squares = (
        (forward**2 + backward**2) / (2 * place**2)
        + (speed / _deviation(VELOCITY_DEVIATION, frames)) ** 2
        + (grown / _deviation(SIZE_DEVIATION, frames)) ** 2
        + np.minimum((shape / _deviation(SHAPE_DEVIATION, frames)) ** 2, MOST_OF_SHAPE)
    )
    # The density of a wide distribution is low everywhere: of two that fit, the one after the shorter gap is meant.
    cost = t_cost(squares) + 2 * np.log(place / _deviation(PLACE_DEVIATION, np.ones(1)))
    reachable = np.linalg.norm(way, axis=-1) <= (SLACK + FASTEST * frames) * size
    return np.where(possible & reachable & (grown <= np.log(LARGEST_SIZE_RATIO)), cost, IMPOSSIBLE)


def _deviation(growing: tuple[float, float], frames: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return growing[0] + growing[1] * (frames - 1)


# --- Filling gaps


def _with_gaps_filled(
    observed: Faces, chains: Sequence[Tracklet], rest: Sequence[Tracklet]
) -> tuple[list[Tracklet], list[Tracklet]]:
    """The chains with faces of `rest` in their gaps, and the pieces of `rest` without those."""
    loose: dict[int, list[int]] = {}
    for piece in rest:
        for frame, face in zip(piece.frames, piece.faces, strict=True):
            loose.setdefault(frame, []).append(face)
    # The paths stay those of the reliable faces: one false face would draw further ones to it.
    paths = [_ReliablePath(frames=np.array(chain.frames), faces=np.array(chain.faces)) for chain in chains]
    filled = [dict(zip(chain.frames, chain.faces, strict=True)) for chain in chains]
    taken: set[tuple[int, int]] = set()
    for frame, faces in loose.items():
        gaps = [place for place, path in enumerate(paths) if path.has_gap_at(frame)]
        if not gaps:
            continue
        cost = np.array([paths[place].costs(observed, frame, faces) for place in gaps]) + ALONE - _alone(1)
        for row, column in assign(cost, ALONE)[0]:
            filled[gaps[row]][frame] = faces[column]
            taken.add((frame, faces[column]))
    left = [
        {
            frame: face
            for frame, face in zip(piece.frames, piece.faces, strict=True)
            if (frame, face) not in taken
        }
        for piece in rest
    ]
    return [_tracklet(item) for item in filled], [_tracklet(item) for item in left if item]


def _tracklet(faces: dict[int, int]) -> Tracklet:
    frames = tuple(sorted(faces))
    return Tracklet(frames=frames, faces=tuple(faces[frame] for frame in frames))


@dataclass(frozen=True, kw_only=True)
class _ReliablePath:
    """Where a person's face certainly is."""

    frames: Int[np.ndarray, " n"]
    faces: Int[np.ndarray, " n"]

    def has_gap_at(self, frame: int) -> bool:
        """Whether the frame lies between two of the path's, and is none of them."""
        after = int(np.searchsorted(self.frames, frame))
        return 0 < after < len(self.frames) and int(self.frames[after]) != frame

    def costs(self, observed: Faces, frame: int, faces: Sequence[int]) -> Float[np.ndarray, " faces"]:
        """The cost of each face of a frame in a gap, by its distance from the path through the gap.

        That path blends the motion from the gap's beginning into the motion towards its end.
        """
        after = int(np.searchsorted(self.frames, frame))
        first, last = int(self.frames[after - 1]), int(self.frames[after])
        share = (frame - first) / (last - first)
        before_px = self._extrapolated_px(observed, slice(max(0, after - VELOCITY_FRAMES), after), -1, frame)
        after_px = self._extrapolated_px(observed, slice(after, after + VELOCITY_FRAMES), 0, frame)
        sizes = observed.size_px[self.frames[after - 1 : after + 1], self.faces[after - 1 : after + 1]]
        size_px = sizes[0] ** (1 - share) * sizes[1] ** share
        steps = np.array([float(min(frame - first, last - frame))])
        away_px = observed.centre_px[frame, faces] - (1 - share) * before_px - share * after_px
        distance = np.linalg.norm(away_px, axis=-1) / size_px
        grown = np.log(observed.size_px[frame, faces] / size_px)
        squares = (distance / _deviation(PLACE_DEVIATION, steps)) ** 2 + (
            grown / _deviation(SIZE_DEVIATION, steps)
        ) ** 2
        reachable = (distance <= SLACK + FASTEST * steps) & (np.abs(grown) <= np.log(LARGEST_SIZE_RATIO))
        return np.where(reachable, t_cost(squares), IMPOSSIBLE)

    def _extrapolated_px(self, observed: Faces, span: slice, end: int, frame: int) -> Float[np.ndarray, " 2"]:
        """Where the motion of some frames of the path leads from the last (`end` -1) or first (0) of them."""
        frames = self.frames[span]
        centres = observed.centre_px[frames, self.faces[span]]
        away = float(frame - frames[end])
        return centres[end] + np.sign(away) * damped_frames(np.array([abs(away)])) * _velocity_px(
            frames, centres
        )


# --- Coming back elsewhere


def _joined_elsewhere(observed: Faces, chains: Sequence[Tracklet]) -> list[Tracklet]:
    """Chains joined where one person is gone, one comes, and nobody else could be either of them."""
    lasting = sorted(
        (item for item in chains if len(item.frames) >= FEWEST_FRAMES), key=lambda item: item.frames
    )
    brief = [item for item in chains if len(item.frames) < FEWEST_FRAMES]
    place = 0
    while place < len(lasting):
        gone = [item for item in lasting if item.frames[-1] < lasting[place].frames[0]]
        before = [item for item in gone if _could_return(observed, item, lasting[place])]
        joined = False
        if len(before) == 1:
            until = lasting[place].frames[-1]
            others = [
                item
                for item in lasting
                if item is not lasting[place]
                and before[0].frames[-1] < item.frames[0] <= until
                and _gap(before[0], item) <= RIVAL_GAPS * _gap(before[0], lasting[place])
                and _could_return(observed, before[0], item)
            ]
            if not others:
                lasting[place] = _merged(before[0], lasting[place])
                lasting.remove(before[0])
                lasting.sort(key=lambda item: item.frames)
                joined = True
        place = 0 if joined else place + 1
    return [*lasting, *brief]


def _gap(gone: Tracklet, comes: Tracklet) -> int:
    return comes.frames[0] - gone.frames[-1]


def _could_return(observed: Faces, gone: Tracklet, comes: Tracklet) -> bool:
    """Whether a person could have gone from the end of one chain to the beginning of the other."""
    gap = _gap(gone, comes)
    ends = (gone.frames[-1], gone.faces[-1]), (comes.frames[0], comes.faces[0])
    sizes = [
        _size_px(observed, gone, slice(-VELOCITY_FRAMES, None)),
        _size_px(observed, comes, slice(0, VELOCITY_FRAMES)),
    ]
    way = float(np.linalg.norm(observed.centre_px[ends[1]] - observed.centre_px[ends[0]]))
    reach = (SLACK + FASTEST * gap) * (sizes[0] * sizes[1]) ** 0.5
    return way <= reach and max(sizes) <= LARGEST_SIZE_RATIO * min(sizes)
