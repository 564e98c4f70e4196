"""Cuts of shot, and pictures that show nothing, from small copies of the frames.

Every frame is reduced to the mean colour of a grid of blocks. Between the frames before and after a cut most of the
picture changes, and it does not change back; a person who moves, or who appears, changes a part of it. Light that
goes on or off changes all of it by one factor, which is divided out. A flash or a lost frame changes back. Slow
dissolves have no cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

BLOCKS = 16
"""Number of blocks along each side of the grid."""
# A block has changed if its colour differs by more than this, of 255, or by this multiple of the median difference of
# the neighbouring frames (where everything moves, as when the camera turns).
CHANGED, CHANGED_OVER_MOTION = 14.0, 4.0
# Share of the blocks that must have changed at a cut, and its ratio to the largest share between the neighbouring
# frames: two shots of one set may have most of their background in common, and a movement takes several frames.
CHANGED_SHARE, SHARE_OVER_MOTION = 0.28, 2.0
# Number of frames on each side of a cut that must differ from those on the other side.
FRAMES_BESIDE = 2
# Number of frames on each side from which the usual motion is estimated.
FRAMES_AROUND = 6
# Number of frames without a picture that may be lost data. After more of them, both sides are compared.
MOST_LOST_FRAMES = 5
# Number of frames in which something may hide much of the picture as it passes by.
PASSING_FRAMES = 15
# Number of frames before and after it that are compared, and the share of the blocks that may have changed meanwhile,
# because people move and light varies.
BESIDE_PASSING, RETURNED_SHARE = 4, 0.4
# Bounds the brightness that is divided out: a factor of more than this is another picture.
LARGEST_BRIGHTENING = 2.5
# Standard deviation of a picture's values, of 255, below which it shows nothing.
EMPTY_DEVIATION = 3.0


def small_copies(frames: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n blocks blocks 3"]:
    """The mean colour of the blocks of each frame, 0 to 255.

    Every frame pixel counts as long as the frame is larger than the grid, for a copy that skips pixels would flicker.
    """
    size = (BLOCKS, BLOCKS)
    pieces = [
        torch.nn.functional.interpolate(frame[None].permute(0, 3, 1, 2).float(), size=size, mode="area")
        for frame in frames
    ]
    copies = torch.cat(pieces) if pieces else torch.zeros(0, 3, *size)
    return copies.permute(0, 2, 3, 1)


def shows_nothing(copies: Float[Tensor, "n blocks blocks 3"]) -> Bool[Tensor, " n"]:
    """Which frames have nearly one colour: black or grey frames, as decoders give for lost data."""
    return copies.flatten(1, 2).std(1, correction=0).amax(-1) < EMPTY_DEVIATION


def find_cuts(copies: Float[Tensor, "time blocks blocks 3"]) -> tuple[int, ...]:
    """The first frames of the shots: 0, and each frame after a cut.

    Frames that show nothing belong to the shot before them. A few of them may be lost data, after which the shot goes
    on; after more of them, the frames on both sides are compared.

    >>> shots = torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(0)) * 255
    >>> find_cuts(shots.repeat_interleave(10, dim=0))
    (0, 10)
    """
    kept = (~shows_nothing(copies)).nonzero()[:, 0].numpy()
    pictures = copies[kept].numpy()
    if len(pictures) < 2:
        return (0,)
    steps = np.stack([_differences(a, b) for a, b in pairwise(pictures)])
    lost = np.diff(kept) - 1
    starts = [0]
    for place in range(1, len(pictures)):
        if not 1 <= lost[place - 1] <= MOST_LOST_FRAMES and _is_cut(pictures, steps, place):
            starts.append(place)
    return tuple(int(kept[place]) if place else 0 for place in _without_passers_by(pictures, starts))


def _without_passers_by(
    pictures: Float[np.ndarray, "time blocks blocks 3"], starts: Sequence[int]
) -> list[int]:
    """The starts without those of short shots after which the picture is as it was before: something passed by."""
    kept = list(starts)
    place = 1
    while place < len(kept) - 1:
        first, after = kept[place], kept[place + 1]
        # What passes by is partly in the picture just before and just after.
        before, later = pictures[max(0, first - BESIDE_PASSING) : first], pictures[after:][:BESIDE_PASSING]
        changed = min((_differences(a, b) > CHANGED).mean() for a in before for b in later)
        if after - first <= PASSING_FRAMES and changed <= RETURNED_SHARE:
            del kept[place : place + 2]
        else:
            place += 1
    return kept


def _is_cut(
    pictures: Float[np.ndarray, "time blocks blocks 3"],
    steps: Float[np.ndarray, "between blocks blocks"],
    place: int,
) -> bool:
    """Whether the shot changes before the picture `place`; `steps[k]` is from picture k to the next."""
    around = np.arange(max(0, place - 1 - FRAMES_AROUND), min(len(steps), place + FRAMES_AROUND))
    around = around[around != place - 1]
    usual = float(np.median(steps[around])) if len(around) else 0.0
    limit = max(CHANGED, CHANGED_OVER_MOTION * usual)
    if (steps[place - 1] > limit).mean() <= CHANGED_SHARE:
        return False
    beside = around[np.abs(around - (place - 1)) <= FRAMES_BESIDE]
    moving = max(((steps[step] > limit).mean() for step in beside), default=0.0)
    before = pictures[max(0, place - FRAMES_BESIDE) : place]
    after = pictures[place : place + FRAMES_BESIDE]
    shares = [(_differences(a, b) > limit).mean() for a in before for b in after]
    return bool(min(shares) > max(CHANGED_SHARE, SHARE_OVER_MOTION * moving))


def _differences(one: np.ndarray, other: np.ndarray) -> Float[np.ndarray, "blocks blocks"]:
    """The largest difference of the three colours in every block, after one factor for the light."""
    ratio = (other.mean() + 1) / (one.mean() + 1)
    factor = ratio if 1 / LARGEST_BRIGHTENING < ratio < LARGEST_BRIGHTENING else 1.0
    # Scaling the brighter picture down keeps its noise from being enlarged.
    return np.abs(one * min(1.0, factor) - other / max(1.0, factor)).max(-1)
