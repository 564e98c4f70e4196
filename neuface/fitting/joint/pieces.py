"""Where a long clip is cut into pieces that are solved alone, and the sample of it that determines the identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool
from torch import Tensor

from neuface.fitting.problem import Problem

__all__ = ["Piece", "gaps_between", "pieces_of", "sample_runs"]

OVERLAP_FRAMES = 24
"""Frames beyond both ends of a piece that are solved with it and dropped: smoothness reaches over a window of 7, and
its influence dies out over three of them."""
RUN_FRAMES = 32
"""Consecutive frames of the sample for the identity, several of the filter's windows."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Some frames of a clip, and the wider span with which they are solved."""

    start: int
    end: int
    """Behind the last frame."""
    wide_start: int
    wide_end: int

    @property
    def inner(self) -> slice:
        """The frames of the piece within the wider span."""
        return slice(self.start - self.wide_start, self.end - self.wide_start)


def pieces_of(problem: Problem, frames_at_once: int) -> tuple[Piece, ...]:
    """The pieces of a clip, whose wider spans have at most `frames_at_once` frames; one if it is short enough.

    A piece ends at the start of a shot if there is one in its second half, else where the frames around have
    landmarks, so that no gap through which motion is interpolated is cut.
    """
    time = problem.time
    if time <= frames_at_once:
        return (Piece(start=0, end=time, wide_start=0, wide_end=time),)
    longest = frames_at_once - 2 * OVERLAP_FRAMES
    room = _frames_to_gap(problem.valid.all(0))
    cuts = [0]
    while time - cuts[-1] > longest:
        latest = cuts[-1] + longest
        earliest = cuts[-1] + longest // 2
        shots = [start for start in problem.starts if earliest <= start <= latest]
        # The last frame that is far enough from a gap, or the one that is farthest.
        roomy = room[earliest : latest + 1].clamp(max=OVERLAP_FRAMES).flip(0)
        cuts.append(shots[-1] if shots else latest - int(roomy.argmax()))
    return tuple(
        Piece(
            start=start,
            end=end,
            wide_start=max(0, start - OVERLAP_FRAMES),
            wide_end=min(time, end + OVERLAP_FRAMES),
        )
        for start, end in pairwise((*cuts, time))
    )


def gaps_between(problem: Problem, pieces: Sequence[Piece]) -> Bool[Tensor, " time"]:
    """The frames of gaps without landmarks in any view that reach from one piece into the next.

    No piece is solved with all of such a gap and with what is seen on both of its sides.
    """
    seen = problem.valid.any(0)
    # Frames of one gap have seen equally many frames before them.
    gap = seen.cumsum(0)
    found = torch.zeros_like(seen)
    for piece in pieces:
        if piece.start > 0 and not bool(seen[piece.start - 1 : piece.start + 1].any()):
            found |= ~seen & (gap == gap[piece.start])
    return found


def sample_runs(problem: Problem, frames: int) -> tuple[tuple[int, int], ...]:
    """Runs of consecutive frames, spread evenly over those with landmarks, of about as many frames in all."""
    with_landmarks = problem.valid.any(0).nonzero()[:, 0]
    count = max(1, frames // RUN_FRAMES)
    position = torch.linspace(0, max(0, len(with_landmarks) - RUN_FRAMES), count).round().long()
    first = with_landmarks[position.to(with_landmarks.device).clamp(max=len(with_landmarks) - 1)]
    starts = first.unique().clamp(max=max(0, problem.time - RUN_FRAMES)).tolist()
    return tuple((start, min(problem.time, start + RUN_FRAMES)) for start in starts)


def _frames_to_gap(known: Bool[Tensor, " time"]) -> Tensor:
    """How far every frame is from the nearest one without landmarks, or from an end of the clip."""
    frame = torch.arange(len(known), device=known.device)
    after_gap = frame - torch.where(known, -1, frame).cummax(0).values
    behind = torch.where(known, len(known), frame).flip(0).cummin(0).values.flip(0)
    return torch.minimum(after_gap, behind - frame)
