"""Cuts of shot in small copies of frames: what is one and what is none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from neuface.head.model import HeadModel
from neuface.landmarks.schemes import IBUG68
from neuface.landmarks.tracking.cuts import common_cuts, find_cuts, shows_nothing, small_copies
from neuface.structs import Track, ndc_to_px
from neuface.synthetic.clips import make_talking_clip
from neuface.synthetic.landmark_noise import corrupted
from neuface.synthetic.people import open_head_identities

TIME = 20


def scene(seed: int, time: int = TIME) -> Tensor:
    """Frames of a still scene, `(time, 90, 120, 3)`, with the noise of a sensor."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 8, generator=generator) * 200 + 20
    still = interpolate(coarse, size=(90, 120), mode="bilinear")[0].permute(1, 2, 0)
    return still + 3 * torch.randn(time, 90, 120, 3, generator=generator)


def cuts(frames: Tensor) -> tuple[int, ...]:
    return find_cuts(small_copies(frames.round().clamp(0, 255).to(torch.uint8)))


@pytest.mark.parametrize("at", [1, 2, 10, 19])
def test_a_cut_is_found_wherever_it_is(at: int) -> None:
    assert cuts(torch.cat((scene(0, at), scene(1, TIME - at)))) == (0, at)


def test_short_shots_are_all_found() -> None:
    assert cuts(torch.cat([scene(seed, 4) for seed in range(5)])) == (0, 4, 8, 12, 16)


def test_two_shots_with_the_same_background_are_separated() -> None:
    first, second = scene(0), scene(0)
    first[:, 20:90, 20:70] = 200.0
    second[:, 10:80, 60:110] = 40.0
    assert cuts(torch.cat((first, second))) == (0, TIME)


def test_a_person_who_walks_through_the_picture_makes_no_cut() -> None:
    frames = scene(0, 30)
    for frame in range(30):
        frames[frame, 10:, max(0, 6 * frame - 50) : max(1, 6 * frame)] = 220.0
    assert cuts(frames) == (0,)


def test_a_turning_camera_makes_no_cut() -> None:
    wide = interpolate(scene(0, 1).permute(0, 3, 1, 2), size=(90, 600), mode="bilinear")[0].permute(1, 2, 0)
    assert cuts(torch.stack([wide[:, 20 * frame : 20 * frame + 120] for frame in range(24)])) == (0,)


def test_light_that_goes_on_makes_no_cut() -> None:
    assert cuts(torch.cat((0.55 * scene(0), scene(0)))) == (0,)


@pytest.mark.parametrize("value", [0.0, 255.0, 128.0])
def test_a_flash_or_lost_frames_make_no_cut(value: float) -> None:
    frames = scene(0)
    frames[7:9] = value
    assert cuts(frames) == (0,)
    copies = small_copies(frames.clamp(0, 255).to(torch.uint8))
    assert shows_nothing(copies).nonzero()[:, 0].tolist() == [7, 8]


def test_what_hides_the_picture_for_a_moment_makes_no_cut() -> None:
    frames = scene(0, 30)
    frames[12:20, :, 20:110] = scene(1, 8)[:, :, 20:110]
    assert cuts(frames) == (0,)


@pytest.mark.parametrize("comes", ["quickly", "slowly"])
def test_what_comes_and_goes_at_different_speeds_makes_no_cut(comes: str) -> None:
    """It takes one step in one direction and three in the other."""
    frames = scene(0, 24)
    for frame, edge in ((10, 110), (11, 110), (12, 80), (13, 50), (14, 20)):
        frames[frame, :, 10:edge] = scene(1, 1)[0, :, 10:edge]
    assert cuts(frames if comes == "quickly" else frames.flip(0)) == (0,)


def test_what_hides_most_of_the_last_frames_makes_no_cut() -> None:
    frames = scene(0)
    frames[18:, :, 35:] = scene(1, 2)[:, :, 35:]
    assert cuts(frames) == (0,)
    assert cuts(frames.flip(0)) == (0,)


def test_an_exposure_that_cuts_off_half_of_the_picture_makes_no_cut() -> None:
    assert cuts(torch.cat((scene(0), 1.9 * scene(0)))) == (0,)


def test_the_cuts_of_a_recording_are_those_of_most_views() -> None:
    assert common_cuts([(0, 5)]) == (0, 5)
    assert common_cuts([(0, 5), (0,)]) == (0,)
    assert common_cuts([(0, 5), (0, 6)]) == (0, 5)
    assert common_cuts([(0, 5), (0,), (0, 12)]) == (0,)
    assert common_cuts([(0, 5, 12), (0, 20), (0, 12), (0, 12)]) == (0, 12)


@pytest.mark.parametrize("views", [1, 2, 3, 4])
def test_hands_and_boards_before_rendered_faces_make_no_cut(open_head: HeadModel, views: int) -> None:
    """And between two people there is a cut."""
    shots: list[Tensor] = []
    for number, identity in enumerate(open_head_identities(2, seed=4_321)):
        yaws = [25.0 * view - 30.0 for view in range(views)]
        seed = 55_000 + 10 * views + number
        clip = make_talking_clip(open_head, identity, view_yaw_deg=yaws, time=10, size_px=96, seed=seed)
        exact_px = ndc_to_px(clip.camera.project(open_head.landmarks(clip.truth, IBUG68.name)), 96)
        track = Track(points_px=exact_px, confidence=torch.ones(exact_px.shape[:-1]), scheme=IBUG68)
        assert common_cuts([cuts(view) for view in corrupted(track, clip.frames, seed).frames.float()]) == (
            0,
        )
        shots.append(clip.frames.float())
    assert common_cuts([cuts(view) for view in torch.cat(shots, 1)]) == (0, 10)


def test_a_long_black_between_two_shots_is_a_cut_and_within_one_shot_none() -> None:
    black = torch.zeros(8, 90, 120, 3)
    assert cuts(torch.cat((scene(0, 6), black, scene(1, 6)))) == (0, 14)
    assert cuts(torch.cat((scene(0, 6), black, scene(0, 6)))) == (0,)


def test_one_and_two_frames() -> None:
    assert cuts(scene(0, 1)) == (0,)
    assert cuts(torch.cat((scene(0, 1), scene(1, 1)))) == (0, 1)
