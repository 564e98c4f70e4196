"""The search for faces in a block of frames, from the cheapest look to the most thorough.

1. The detector looks at whole frames, and the landmark network at what it finds.
2. Where the landmark network rejects it, the detector looks again at a window around its box: small faces give boxes
   that are too large and off centre, and in the window the same face is large.
3. In some of the frames in which nobody was found, it looks at square tiles of several sizes.
4. Faces of neighbouring frames are looked for where they were, forwards and backwards in time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from neuface.landmarks.face_mesh.boxes import Boxes, overlap
from neuface.landmarks.face_mesh.faces import (
    Faces,
    accepted,
    boxes_of,
    no_faces_yet,
    regions_around,
    unmatched,
    without_doubles,
)
from neuface.landmarks.face_mesh.looks import (
    detector_outputs,
    landmarks_in,
    placed_faces,
    region_of,
    whole_frames,
)
from neuface.landmarks.face_mesh.networks import FaceNetworks
from neuface.landmarks.face_mesh.regions import Regions, no_regions, upright

SURE_SCORE = 0.5
"""Detector's score, 0..1, from which a box is a face; the official program's value."""
POSSIBLE_SCORE = 0.3
"""Detector's score, 0..1, from which a box is worth a second look."""
# Side of the window of a second look, in longer sides of the box: the detector is made for faces of about this share.
WINDOW_PER_BOX = 4.0
# Number of boxes of a picture at which the landmark network looks, best first: bounds the time of a crowd.
MOST_FACES = 12
# Side of the smallest tiles, pixels. A face of 40 px has a sixth of it. Of 100 real and rendered faces of that size,
# anywhere in a tile, 98 are found where they have a sixth of its side, 85 where an eighth, 32 where a tenth.
SMALLEST_TILE_PX = 240
# Share of a tile that the next one covers again; a face as large as this is whole in one of them.
TILE_OVERLAP = 1 / 3
# Number of frames for which a face is looked for where it was last.
LONGEST_UNSEEN = 8
# Sides of the regions in which a face is looked for, relative to its last one.
FOLLOWING_SIZES = (1.0, 0.85, 1.2)
# Intersection over union above which boxes of different tiles are of one face.
TILES_OVERLAP = 0.3
# Number of tiles per frame that may be looked at on average; frames with more are searched that much less often, and
# the others by following.
TILES_PER_FRAME = 8


def search(networks: FaceNetworks, frames: UInt8[Tensor, "n h w 3"]) -> Faces:
    """All faces of a block of frames, each frame on its own."""
    windows = whole_frames(frames)
    every = list(range(len(frames)))
    outputs = detector_outputs(networks, frames, windows)
    found = _landmarks_of(
        networks, frames, placed_faces(outputs, windows, SURE_SCORE), every, in_whole_frames=True
    )
    possible = placed_faces(outputs, windows, POSSIBLE_SCORE)
    found = joined(found, _second_looks(networks, frames, possible, every, found))
    tiles = tiles_of(size_of(frames))
    step = max(1, math.ceil(len(tiles) / TILES_PER_FRAME))
    empty = sorted(set(every) - set(found.frame.tolist()))
    searched = empty[step // 2 :: step] or empty[:1]
    return joined(found, _faces_in_tiles(networks, frames, searched, tiles))


def follow(
    networks: FaceNetworks,
    frames: UInt8[Tensor, "n h w 3"],
    found: Faces,
    before: Sequence[Faces] = (),
    after: Sequence[Faces] = (),
) -> Faces:
    """The faces of a block, with those that other frames show and that were not found.

    Args:
        before: the faces of each frame before the block, in time order, as far back as LONGEST_UNSEEN frames.
        after: those of each frame after it.
    """
    for order, elsewhere in ((range(len(frames)), before), (range(len(frames) - 1, -1, -1), after[::-1])):
        known = no_faces_yet()
        unseen = torch.zeros(0, dtype=torch.int64)
        for faces in elsewhere:
            known, unseen = _remembered(known, unseen, faces)
        for frame in order:
            here = found.of_frame(frame)
            lost = known[unmatched(known, here)]
            if len(lost):
                where = torch.full((len(lost),), frame)
                _, regained = look_around(networks, frames, lost.points_px, where)
                here = joined(here, regained)
                found = Faces.cat([found[found.frame != frame], here])
            known, unseen = _remembered(known, unseen, here)
    return found


def _remembered(known: Faces, unseen: Tensor, here: Faces) -> tuple[Faces, Tensor]:
    """The faces to look for in the next frame, and for how many frames each was not seen.

    Who is hidden for a few frames is looked for where they were; not for long, because people leave.
    """
    missing = unmatched(known, here) & (unseen < LONGEST_UNSEEN)
    ages = torch.cat([torch.zeros(len(here), dtype=torch.int64), unseen[missing] + 1])
    return Faces.cat([here, known[missing]]), ages


def look_around(
    networks: FaceNetworks,
    frames: UInt8[Tensor, "n h w 3"],
    expected_px: Float[Tensor, "k 478 2"],
    frame: Int[Tensor, " k"],
    shifts: Sequence[tuple[float, float]] = ((0.0, 0.0),),
) -> tuple[Faces, Faces]:
    """What shows a face where faces are expected, up to once for every region that is tried.

    Args:
        shifts: displacements of the regions that are tried, in their sides.

    Returns:
        The faces at first sight, and those of a second look from where they are.
    """
    around = regions_around(expected_px, frame)
    # People come closer and go away, and a hand in front may hide less of a wider region.
    tried = Regions.cat(
        [
            replace(
                around,
                side=around.side * factor,
                centre=around.centre + around.side[:, None] * torch.tensor(shift, dtype=torch.float64),
            )
            for factor in FOLLOWING_SIZES
            for shift in shifts
        ]
    )
    first = accepted(landmarks_in(networks, frames, tried), tried, size_of(frames))
    # The face has moved; a look from where it is now places it as well as any other.
    regions = regions_around(first.points_px, first.frame)
    return first, accepted(landmarks_in(networks, frames, regions), regions, size_of(frames))


def size_of(frames: UInt8[Tensor, "n h w 3"]) -> tuple[int, int]:
    """Height and width."""
    return frames.shape[1], frames.shape[2]


def joined(found: Faces, more: Faces) -> Faces:
    """The faces that were found, and those of `more` that are none of them."""
    return Faces.cat([found, without_doubles(more, found)])


def _landmarks_of(
    networks: FaceNetworks,
    frames: Tensor,
    pictures: list[Boxes],
    numbers: list[int],
    *,
    in_whole_frames: bool = False,
) -> Faces:
    """The faces whose boxes the landmark network accepts.

    Args:
        pictures, numbers: the boxes, and the frames that they are of.
        in_whole_frames: whether the detector saw these boxes in the whole frame.
    """
    pieces = [region_of(boxes, frame)[:MOST_FACES] for boxes, frame in zip(pictures, numbers, strict=True)]
    regions = Regions.cat([no_regions(), *pieces])
    detected = None
    if in_whole_frames:
        detected = torch.from_numpy(
            np.concatenate([np.zeros(0), *(boxes.score[:MOST_FACES] for boxes in pictures)])
        )
    looks = landmarks_in(networks, frames, regions)
    return without_doubles(accepted(looks, regions, size_of(frames), detected))


def _second_looks(
    networks: FaceNetworks, frames: Tensor, pictures: list[Boxes], numbers: list[int], found: Faces
) -> Faces:
    """What the detector sees in windows around boxes in which no face was accepted."""
    frame, centre, side = [], [], []
    for boxes, number in zip(pictures, numbers, strict=True):
        known = boxes_of(found.of_frame(number).points_px)
        for box in boxes.corners[:MOST_FACES]:
            middle = (box[:2] + box[2:]) / 2
            inside = (known[:, :2] < middle) & (middle < known[:, 2:])
            if not inside.all(-1).any():
                frame.append(number)
                centre.append(middle)
                side.append(max(box[2:] - box[:2]) * WINDOW_PER_BOX)
    windows = upright(
        torch.tensor(frame, dtype=torch.int64),
        torch.from_numpy(np.array(centre, dtype=np.float64).reshape(-1, 2)),
        torch.tensor(side, dtype=torch.float64),
    )
    boxes = placed_faces(detector_outputs(networks, frames, windows), windows, POSSIBLE_SCORE)
    return _landmarks_of(networks, frames, boxes, frame)


def tiles_of(size_hw: tuple[int, int]) -> Float[np.ndarray, "tiles 3"]:
    """Centre x, centre y and side of squares of several sizes, each of which covers a frame.

    >>> tiles_of((720, 1280)).round().tolist()[:3]
    [[360.0, 360.0, 720.0], [640.0, 360.0, 720.0], [920.0, 360.0, 720.0]]
    """
    largest = min(size_hw)
    smallest = min(largest, SMALLEST_TILE_PX)
    # From one size to the next at most a factor of two.
    sizes = np.geomspace(largest, smallest, 1 + math.ceil(math.log2(largest / smallest)))
    tiles = []
    for side in sizes:
        height, width = size_hw
        columns, rows = (_places(length, side) for length in (width, height))
        tiles += [(x, y, side) for y in rows for x in columns]
    return np.array(tiles)


def _places(length: int, side: float) -> Float[np.ndarray, " n"]:
    """The centres of overlapping intervals of one length that cover a longer one."""
    count = math.ceil((length / side - TILE_OVERLAP) / (1 - TILE_OVERLAP))
    return np.linspace(side / 2, length - side / 2, max(1, count))


def _faces_in_tiles(
    networks: FaceNetworks, frames: Tensor, searched: list[int], tiles: Float[np.ndarray, "tiles 3"]
) -> Faces:
    """The faces that are found in tiles of some frames."""
    pieces = [no_faces_yet()]
    for frame in searched:
        windows = upright([frame] * len(tiles), tiles[:, :2].tolist(), tiles[:, 2].tolist())
        boxes = _each_once(placed_faces(detector_outputs(networks, frames, windows), windows, POSSIBLE_SCORE))
        found = _landmarks_of(networks, frames, [boxes], [frame])
        pieces.append(joined(found, _second_looks(networks, frames, [boxes], [frame], found)))
    return Faces.cat(pieces)


def _each_once(pictures: list[Boxes]) -> Boxes:
    """The faces of several windows of one frame, each once, best first."""
    corners, keypoints, score = (
        np.concatenate([getattr(boxes, name) for boxes in pictures])
        for name in ("corners", "keypoints", "score")
    )
    chosen: list[int] = []
    for index in np.argsort(-score, kind="stable"):
        if not chosen or overlap(corners[index], corners[chosen]).max() <= TILES_OVERLAP:
            chosen.append(int(index))
    return Boxes(corners=corners[chosen], keypoints=keypoints[chosen], score=score[chosen])
