"""Cuts of shot, and pictures that show nothing, from small copies of the frames.

Every frame is reduced to the mean colour of a grid of blocks. Between the frames before and after a cut most of the
picture changes, and it does not change back; a person who moves, or who appears, changes a part of it. Light that
goes on or off changes all of it by one factor, which is divided out. A flash, a lost frame, and what passes by in
front of the camera change back. Slow dissolves have no cut. Cameras that film together are cut together.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
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
# Number of frames on either side of a cut among which no picture may be as one on the other side, because something
# may hide much of the picture as it passes by; and the share of the changed blocks that may stay changed, because
# people move and light varies.
PASSING_FRAMES, RETURNED_SHARE = 20, 0.5
# Share of the blocks that must have changed at a cut within FRAMES_BESIDE frames of the first or the last one, where
# no further frame shows whether something passes by.
SHARE_AT_END = 0.75
# Value, of 255, from which a colour may be cut off.
WHITE = 245.0
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
            starts.append(int(kept[place]))
    return tuple(starts)


def common_cuts(cuts_of_views: Sequence[Collection[int]]) -> tuple[int, ...]:
    """The first frames of a recording's shots: 0, and the cuts that more than half of its views have.

    Cameras that film at the same time are cut at the same time. What passes by one of them is no cut.

    Args:
        cuts_of_views: the frames at which each view has a cut; those of one cut may be FRAMES_BESIDE apart, because a
            view may miss a frame.

    >>> common_cuts([(0, 8, 30), (0, 9), (0, 8)])
    (0, 8)
    """
    starts = [0]
    for frame in sorted({frame for cuts in cuts_of_views for frame in cuts if frame}):
        with_it = sum(any(abs(frame - cut) <= FRAMES_BESIDE for cut in cuts if cut) for cuts in cuts_of_views)
        if 2 * with_it > len(cuts_of_views) and (starts[-1] == 0 or frame - starts[-1] > FRAMES_BESIDE):
            starts.append(frame)
    return tuple(starts)


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
    moving = max((float((steps[step] > limit).mean()) for step in beside), default=0.0)
    before = pictures[max(0, place - FRAMES_BESIDE) : place]
    after = pictures[place : place + FRAMES_BESIDE]
    changed = _least_changed(before, after, limit)
    at_an_end = min(place, len(pictures) - place) <= FRAMES_BESIDE
    enough = SHARE_AT_END if at_an_end else CHANGED_SHARE
    return changed > max(enough, SHARE_OVER_MOTION * moving) and not _returns(pictures, place, changed)


def _returns(pictures: Float[np.ndarray, "time blocks blocks 3"], place: int, changed: float) -> bool:
    """Whether the picture is, within PASSING_FRAMES, as it was before `place`: something passed by."""
    before, after = pictures[max(0, place - PASSING_FRAMES) : place], pictures[place : place + PASSING_FRAMES]
    return _least_changed(before, after, CHANGED) <= RETURNED_SHARE * changed


def _least_changed(before: np.ndarray, after: np.ndarray, limit: float) -> float:
    """The smallest share of blocks that changed by more than `limit` between a picture before and one after."""
    return min(float((_differences(a, b) > limit).mean()) for a in before for b in after)


def _differences(one: np.ndarray, other: np.ndarray) -> Float[np.ndarray, "blocks blocks"]:
    """The largest difference of the three colours in every block, after the factor for the light that explains most.

    A block that is white in the brighter picture may have been brighter still.
    """
    bright, dark = (one, other) if one.mean() > other.mean() else (other, one)
    ratios = (1.0, (bright.mean() + 1) / (dark.mean() + 1), float(np.median((bright + 1) / (dark + 1))))
    tried = []
    for ratio in ratios:
        if 1 <= ratio < LARGEST_BRIGHTENING:
            # Scaling the brighter picture down keeps its noise from being enlarged.
            scaled = bright / ratio
            white = (bright > WHITE) & (dark > scaled)
            tried.append(np.where(white, 0.0, np.abs(scaled - dark)).max(-1))
    return min(tried, key=lambda difference: float((difference > CHANGED).mean()))
