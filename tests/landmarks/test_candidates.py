"""The faces of a clip's frames, kept in few tensors."""

from __future__ import annotations

import pytest
import torch

from neuface.landmarks import candidates
from neuface.landmarks.candidates import FoundFrames, FrameFaces
from neuface.landmarks.schemes import IBUG68


def faces(count: int, seed: int, *, uncertain: bool = True) -> FrameFaces:
    generator = torch.Generator().manual_seed(seed)
    uncertainty = torch.rand(count, 68, generator=generator) if uncertain else None
    return FrameFaces(
        points_px=torch.rand(count, 68, 2, generator=generator),
        confidence=torch.rand(count, 68, generator=generator),
        score=torch.rand(count, generator=generator),
        uncertainty_px=uncertainty,
    )


@pytest.fixture(autouse=True)
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "FEWEST_ROWS", 2)


@pytest.mark.parametrize("counts", [(1, 1, 1, 1, 1), (1, 0, 2, 0, 1), (0, 0)])
def test_every_frame_has_its_faces_and_empty_places(counts: tuple[int, ...]) -> None:
    frames = [faces(count, seed) for seed, count in enumerate(counts)]
    store = FoundFrames(IBUG68)
    store.append(frames[:2])
    store.append(frames[2:])
    joined = store.joined()
    assert joined.confidence.shape == (1, len(counts), max(1, *counts), 68)
    for time, frame in enumerate(frames):
        there = len(frame.score)
        assert torch.equal(joined.points_px[0, time, :there], frame.points_px)
        assert not joined.confidence[0, time, there:].any()
        assert not joined.points_px[0, time, there:].any()
        (kept,) = store.between(time, time + 1)
        assert torch.equal(kept.score, frame.score)
        if there:
            assert joined.uncertainty_px is not None
            assert kept.uncertainty_px is not None
            assert frame.uncertainty_px is not None
            assert torch.equal(joined.uncertainty_px[0, time, :there], frame.uncertainty_px)
            assert torch.equal(kept.uncertainty_px, frame.uncertainty_px)


def test_faces_that_are_replaced_are_gone() -> None:
    store = FoundFrames(IBUG68)
    store.append([faces(1, seed) for seed in range(4)])
    others = [faces(2, 10), faces(0, 11)]
    store.replace(1, others)
    joined = store.joined()
    assert (joined.confidence[0] > 0).any(-1).sum(-1).tolist() == [1, 2, 0, 1]
    assert torch.equal(joined.points_px[0, 1], others[0].points_px)
    assert torch.equal(joined.points_px[0, 3, 0], faces(1, 3).points_px[0])


def test_one_face_without_an_uncertainty_leaves_it_unknown() -> None:
    store = FoundFrames(IBUG68)
    store.append([faces(1, 0), faces(1, 1, uncertain=False), faces(1, 2)])
    assert store.joined().uncertainty_px is None
