"""Where long clips are cut, and that solving them in pieces is solving them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from joint_problems import moving_heads
from small_problems import problem_of, silenced

from neuface.fitting.joint.pieces import OVERLAP_FRAMES, RUN_FRAMES, pieces_of, sample_runs
from neuface.fitting.problem import Problem


def clip_of(head, time: int, *, starts: tuple[int, ...] = (0,), without: range = range(0)) -> Problem:
    problem = problem_of(head, moving_heads(head, views=1, time=time), "ibug68")
    return replace(silenced(problem, [(0, frame) for frame in without]), starts=starts)


@pytest.mark.parametrize("time", [1, 64, 65, 80, 100, 333, 1000])
@pytest.mark.parametrize("at_once", [64, 100, 480])
def test_every_frame_is_in_one_piece_and_no_piece_is_too_long(tiny_head, time: int, at_once: int) -> None:
    pieces = pieces_of(clip_of(tiny_head(), time), at_once)
    assert [frame for piece in pieces for frame in range(piece.start, piece.end)] == list(range(time))
    for piece in pieces:
        assert piece.start < piece.end
        assert piece.wide_end - piece.wide_start <= at_once
        assert range(piece.wide_start, piece.wide_end)[piece.inner] == range(piece.start, piece.end)
        assert piece.wide_start == (0 if len(pieces) == 1 else max(0, piece.start - OVERLAP_FRAMES))
        assert piece.wide_end == (time if len(pieces) == 1 else min(time, piece.end + OVERLAP_FRAMES))
    assert (len(pieces) == 1) == (time <= at_once)


def test_pieces_end_at_cuts_where_there_are_some(tiny_head) -> None:
    """With 100 frames at once, a piece has at most 52, and ends at the last cut behind its frame 26, or, without one,
    far enough from the end of the clip."""
    pieces = pieces_of(clip_of(tiny_head(), 150, starts=(0, 10, 30, 45, 90)), 100)
    assert [piece.start for piece in pieces] == [0, 45, 90, 150 - OVERLAP_FRAMES]


def test_pieces_do_not_end_in_gaps(tiny_head) -> None:
    """Frames 40 to 55 have no landmarks: the piece that could end at 52 ends before, as far as possible from them."""
    problem = clip_of(tiny_head(), 150, without=range(40, 56))
    first = pieces_of(problem, 100)[0]
    assert first.end == 26
    near = clip_of(tiny_head(), 150, without=range(51, 54))
    assert pieces_of(near, 100)[0].end == 51 - OVERLAP_FRAMES


@pytest.mark.parametrize(("time", "frames"), [(500, 128), (40, 64), (10, 64), (2000, 480)])
def test_the_sample_is_spread_over_the_frames_with_landmarks(tiny_head, time: int, frames: int) -> None:
    runs = sample_runs(clip_of(tiny_head(), time), frames)
    assert runs[0][0] == 0
    assert runs[-1][1] == time or len(runs) == 1
    assert sum(end - start for start, end in runs) <= frames
    assert len(runs) == min(frames // RUN_FRAMES, max(1, time - RUN_FRAMES + 1))
    assert all(end - start == min(RUN_FRAMES, time) for start, end in runs)


def test_the_sample_leaves_out_what_has_no_landmarks(tiny_head) -> None:
    problem = clip_of(tiny_head(), 400, without=range(0, 300))
    for start, end in sample_runs(problem, 96):
        assert bool(problem.valid[0, start:end].any())
    assert sample_runs(problem, 96)[0] == (300, 332)
