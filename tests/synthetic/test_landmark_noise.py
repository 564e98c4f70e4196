"""Corrupted landmarks: amounts and correlations of the noise, occlusion, and jitter like a real detector's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from data_folders import DATA, needs
from torch import Tensor

from neuface.errors import InputError
from neuface.head.model import HeadModel
from neuface.io.landmarks import read_landmarks
from neuface.landmarks.schemes import IBUG68, MEDIAPIPE478, outer_eye_distance_px, to_ibug68
from neuface.structs import Track
from neuface.synthetic.landmark_noise import (
    DETECTOR,
    PARTS_IBUG68,
    Corruption,
    Noise,
    added_noise,
    corrupted,
    error_share,
    part_jumps,
)
from neuface.synthetic.occluders import APPROACH_FRAMES, SIDES_IBUG68, Occluder, pass_by

EYE_PX = 50.0
QUIET = Noise(percent=0.0)
SEEN = torch.ones(2, 12, dtype=torch.bool)
INNER_STILL = slice(17, 36)
"""Brows and nose, which neither blink nor talk."""


@pytest.fixture(scope="module")
def face(open_head: HeadModel) -> Tensor:
    """The template's 68 points in frontal view, with eye corners EYE_PX apart, in the middle of 200 px."""
    flat = open_head.landmarks(open_head.neutral(), IBUG68.name)[:, :2] * torch.tensor([1.0, -1.0])
    scale = EYE_PX / torch.linalg.vector_norm(flat[36] - flat[45])
    return (flat - flat.mean(0)) * scale + 100


def exact(face: Tensor, views: int, time: int) -> Track:
    points = face.expand(views, time, 68, 2).clone()
    return Track(points_px=points, confidence=torch.ones(views, time, 68), scheme=IBUG68)


def grey(views: int, time: int) -> Tensor:
    return torch.full((views, time, 200, 200, 3), 128, dtype=torch.uint8)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def correlation(first: Tensor, second: Tensor) -> float:
    return float(torch.corrcoef(torch.stack((first.flatten(), second.flatten())))[0, 1])


# --- Noise


def test_white_noise_has_the_given_deviation_and_no_memory(face: Tensor) -> None:
    points = face.expand(2, 2000, 68, 2)
    noise = added_noise(points, EYE_PX, Noise(percent=2.0), generator())
    # The deviation is 2 % of 50 px.
    assert float(noise[:, :, 17:].std()) == pytest.approx(1.0, rel=0.02)
    assert float(noise[:, :, :17].std()) == pytest.approx(IBUG68.contour_noise, rel=0.02)
    assert abs(correlation(noise[:, 1:], noise[:, :-1])) < 0.02
    assert abs(correlation(noise[..., 60, :], noise[..., 61, :])) < 0.05
    assert abs(correlation(noise[..., 0], noise[..., 1])) < 0.02
    assert abs(correlation(noise[0], noise[1])) < 0.02


def test_noise_is_correlated_in_time_and_between_neighbours(face: Tensor) -> None:
    kind = Noise(percent=1.0, memory=0.8, reach_percent=30.0)
    noise = added_noise(face.expand(8, 1500, 68, 2), EYE_PX, kind, generator())[:, :, 17:]
    assert float(noise.std()) == pytest.approx(0.5, rel=0.05)
    # The process is stationary: the first frame is as noisy as the others.
    assert float(noise[:, :50].std()) == pytest.approx(0.5, rel=0.15)
    for lag in (1, 3):
        assert correlation(noise[:, lag:], noise[:, :-lag]) == pytest.approx(0.8**lag, abs=0.03)
    for first, second in ((36, 37), (36, 39), (36, 48), (36, 45)):
        apart = float(torch.linalg.vector_norm(face[first] - face[second])) / (0.3 * EYE_PX)
        found = correlation(noise[:, :, first - 17], noise[:, :, second - 17])
        assert found == pytest.approx(float(torch.tensor(-apart).exp()), abs=0.05)


@pytest.mark.parametrize("changes", [{"percent": -1.0}, {"memory": 1.0}, {"reach_percent": float("nan")}])
def test_noise_out_of_range_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(InputError, match="a percent and a reach of at least 0"):
        Noise(**{"percent": 1.0, **changes})


def trembling_percent(points_px: Tensor, eye_px: float) -> Tensor:
    """Deviation of white noise with the same second differences, which suppress slow motion."""
    second = points_px[2:] - 2 * points_px[1:-1] + points_px[:-2]
    return 100 / eye_px * (second[:, INNER_STILL].square().mean((1, 2)) / 6).sqrt()


@needs(DATA / "grid_corpus")
def test_jitter_is_that_of_a_detector_on_still_faces(face: Tensor) -> None:
    """Compared with landmarks of real talkers, in the half of the frames in which the nose moves least."""
    real = []
    for file in sorted((DATA / "grid_corpus").glob("*.landmarks.npz")):
        marks = to_ibug68(read_landmarks(file))
        points = marks.points_px[0]
        trembling = trembling_percent(points, float(outer_eye_distance_px(marks).median()))
        speed = torch.linalg.vector_norm(points[:, 27:36].mean(1).diff(dim=0), dim=-1)
        fastest = torch.maximum(speed[1:], speed[:-1])
        real.append(trembling[fastest <= fastest.median()].square().mean().sqrt())
    still = face.expand(1, 1500, 68, 2)
    drawn = generator()
    noise = torch.stack([added_noise(still, EYE_PX, kind, drawn) for kind in DETECTOR.noise]).sum(0)
    ours = trembling_percent(noise[0], EYE_PX).square().mean().sqrt()
    assert 0.8 < float(ours / torch.stack(real).median()) < 1.3


# --- Jumps


def test_one_part_jumps_in_the_given_number_of_frames(face: Tensor) -> None:
    jumps = part_jumps(SEEN, 3, 6.0, generator())
    moved = (jumps != 0).any(-1)
    assert moved.any(-1).sum(1).tolist() == [3, 3]
    parts = {tuple(frame.nonzero()[:, 0].tolist()) for frame in moved.flatten(0, 1) if frame.any()}
    assert parts <= set(PARTS_IBUG68)
    lengths = torch.linalg.vector_norm(jumps, dim=-1)[moved]
    assert float(lengths.min()) > 2.0
    assert float(lengths.max()) < 12.0
    assert float(lengths.mean()) == pytest.approx(6.0, rel=0.3)
    # The points of a part move together.
    view, frame = moved.any(-1).nonzero()[0].tolist()
    together = jumps[view, frame][moved[view, frame]]
    assert float((together - together.mean(0)).norm(dim=-1).mean()) < 0.4 * float(together.mean(0).norm())


def test_only_given_frames_jump() -> None:
    seen = torch.zeros(1, 12, dtype=torch.bool)
    seen[0, 4] = True
    moved = (part_jumps(seen, 3, 6.0, generator()) != 0).any(-1).any(-1)
    assert moved[0].nonzero().tolist() == [[4]]


# --- Hands and boards


def test_points_are_hidden_where_the_object_is_painted() -> None:
    white = torch.full((1, 90, 90, 3), 255, dtype=torch.uint8)
    y, x = torch.meshgrid(torch.arange(90.0), torch.arange(90.0), indexing="ij")
    everywhere = torch.stack((x, y), -1).reshape(1, -1, 2)
    for shape in ("hand", "board"):
        thing = Occluder(
            shape=shape,
            centre_px=torch.tensor([[40.0, 30.0]]),
            present=torch.tensor([True]),
            half_size_px=20.0,
            rotation_rad=0.5,
            texture=torch.zeros(3, 4, 4),
        )
        painted = thing.paint(white)[0, ..., 0].flatten() < 128
        assert painted.equal(thing.covers(everywhere)[0])
        assert 400 < int(painted.sum()) < 2000
        gone = replace(thing, present=torch.tensor([False]))
        assert gone.paint(white).equal(white)
        assert not bool(gone.covers(everywhere).any())


def test_fingers_point_up_and_turn_clockwise() -> None:
    """At rotation 0 the tips are above the palm; after a quarter turn they are right of it."""
    for turn, tip, other in ((0.0, (50.0, 33.0), (67.0, 40.0)), (torch.pi / 2, (67.0, 50.0), (50.0, 33.0))):
        hand = Occluder(
            shape="hand",
            centre_px=torch.tensor([[50.0, 50.0]]),
            present=torch.tensor([True]),
            half_size_px=20.0,
            rotation_rad=turn,
            texture=torch.zeros(3, 4, 4),
        )
        beside = torch.tensor(tip) + 20 * 0.155 * torch.tensor([abs(tip[0] - 50) < 1, abs(tip[1] - 50) < 1])
        assert hand.covers(torch.stack((beside, torch.tensor(other)))[None])[0].tolist() == [True, False]


def test_a_hand_hides_a_part_and_a_board_nearly_all(face: Tensor) -> None:
    sides = set()
    for seed in range(8):
        drawn = torch.Generator().manual_seed(seed)
        hand, board = pass_by(
            face.expand(20, 68, 2), grey(1, 20)[0], EYE_PX, hand_frames=4, board_frames=2, generator=drawn
        )
        for thing, frames in ((hand, 4), (board, 2)):
            hidden = thing.covers(face.expand(20, 68, 2)).float().mean(-1)
            most = (hidden > 0.9 * hidden.max()).nonzero()[:, 0]
            # The occlusion is one interval that does not begin at the first frame.
            assert len(most) == frames
            assert int(most[-1] - most[0]) == frames - 1
            assert int(most[0]) >= 1
            approach = int(thing.present.sum()) - frames
            assert 0 <= approach <= 2 * (APPROACH_FRAMES - 1)
            far = hidden[~thing.present]
            assert float(far.sum()) == 0
        assert float(board.covers(face.expand(20, 68, 2)).float().mean(-1).max()) > 0.9
        stay = hand.covers(face.expand(20, 68, 2)).float()
        fullest = stay[int(stay.mean(-1).argmax())]
        assert 0.1 < float(fullest.mean()) < 0.7
        sides.add(max(SIDES_IBUG68, key=lambda side: float(fullest[list(SIDES_IBUG68[side])].mean())))
    assert len(sides) > 1


def test_the_shortest_clip_has_one_free_frame_before_each_occlusion(face: Tensor) -> None:
    still = face.expand(8, 68, 2)
    for seed in range(4):
        drawn = torch.Generator().manual_seed(seed)
        things = pass_by(still, grey(1, 8)[0], EYE_PX, hand_frames=4, board_frames=2, generator=drawn)
        hidden = torch.stack([thing.covers(still).float().mean(-1) for thing in things])
        stays = hidden > 0.9 * hidden.amax(1, keepdim=True)
        assert stays.sum(1).tolist() == [4, 2]
        assert stays.any(0).int().tolist() in ([0, 1, 1, 1, 1, 0, 1, 1], [0, 1, 1, 0, 1, 1, 1, 1])


def test_the_error_grows_while_a_point_is_hidden() -> None:
    hidden = torch.tensor([0, 1, 1, 1, 1, 0, 1], dtype=torch.bool)[None, :, None]
    expected = torch.tensor([0, 1 / 3, 2 / 3, 1, 1, 0, 1 / 3])[None, :, None]
    torch.testing.assert_close(error_share(hidden), expected)


# --- The whole corruption


def test_the_damage_is_reported_exactly(face: Tensor) -> None:
    marks, frames = exact(face, 3, 24), grey(3, 24)
    silent = replace(DETECTOR, noise=(QUIET,), hidden_confidence=0.4)
    found = corrupted(marks, frames, 1, silent)
    damage, error = found.damage, (found.landmarks.points_px - marks.points_px).norm(dim=-1)
    reported = found.landmarks.confidence > 0
    assert reported.equal(~damage.lost[..., None].expand_as(reported))
    # Points change if and only if damage is reported.
    touched = damage.hidden | damage.jumped
    assert float(error[reported & ~touched].max()) == 0
    assert float(error[reported & touched].min()) > 0
    assert found.landmarks.confidence[reported & damage.hidden].eq(0.4).all()
    assert found.landmarks.confidence[reported & ~damage.hidden].eq(1).all()
    assert found.landmarks.points_px[~reported].eq(0).all()
    assert not bool((damage.jumped.any(-1) & damage.lost).any())
    # round(0.06 * 24) jumps, round(0.1 * 24) frames of the board and none of the hand without landmarks.
    assert damage.jumped.any(-1).sum(1).tolist() == [1, 1, 1]
    assert damage.lost.sum(1).tolist() == [2, 2, 2]
    # The errors of hidden points are several percent of the eye distance, and less than a face's width.
    astray = error[reported & damage.hidden & ~damage.jumped] / EYE_PX
    assert 0.02 < float(astray.mean()) < 0.2
    # Frames change if and only if an object is in them, and then at every hidden point.
    changed = (found.frames != frames).any(-1)
    columns, rows = marks.points_px.round().long().unbind(-1)
    views, times = torch.meshgrid(torch.arange(3), torch.arange(24), indexing="ij")
    inside = changed[views[..., None], times[..., None], rows, columns]
    assert float(inside[damage.hidden].float().mean()) > 0.97
    assert float(inside[~damage.hidden].float().mean()) < 0.03


def test_the_same_seed_gives_the_same_result_and_inputs_are_unchanged(face: Tensor) -> None:
    marks, frames = exact(face, 1, 8), grey(1, 8)
    first, again, other = (corrupted(marks, frames, seed) for seed in (5, 5, 6))
    assert first.landmarks.points_px.equal(again.landmarks.points_px)
    assert first.frames.equal(again.frames)
    assert not first.landmarks.points_px.equal(other.landmarks.points_px)
    assert marks.points_px.equal(exact(face, 1, 8).points_px)
    assert frames.equal(grey(1, 8))


def test_unusable_landmarks_are_refused(face: Tensor) -> None:
    marks = exact(face, 1, 8)
    missing = replace(marks, confidence=torch.zeros(1, 8, 68))
    with pytest.raises(InputError, match="some are missing"):
        corrupted(missing, grey(1, 8), 0)
    dense = Track(points_px=torch.zeros(1, 8, 478, 2), confidence=torch.ones(1, 8, 478), scheme=MEDIAPIPE478)
    with pytest.raises(InputError, match="use to_ibug68 first"):
        corrupted(dense, grey(1, 8), 0)
    long: Corruption = replace(DETECTOR, hand_share=0.9)
    with pytest.raises(InputError, match="do not fit 8 frames"):
        corrupted(marks, grey(1, 8), 0, long)
