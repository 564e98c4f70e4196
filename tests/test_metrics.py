"""Every metric on examples worked out by hand, in its unit."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from neuface import metrics
from neuface.errors import InputError
from neuface.head.model import HeadModel

CROP_PX = 200


def random_turns(count: int, seed: int) -> Rotation:
    return Rotation.from_rotvec(np.random.default_rng(seed).normal(size=(count, 3)))


# --- NME


def test_nme_of_a_worked_example() -> None:
    points = torch.tensor([[3.0, 4.0], [0.0, 0.0], [100.0, 100.0], [6.0, 8.0]])
    confidence = torch.tensor([1.0, 0.2, 0.0, 0.9])
    # The distances are 5, 0, (missing) and 10 px, their mean 5 px; the eyes are 50 px apart.
    found = metrics.nme_percent(points, torch.zeros(4, 2), confidence, torch.tensor(50.0))
    assert float(found) == pytest.approx(10.0)


def test_nme_is_nan_without_points_or_eyes() -> None:
    points, observed = torch.ones(3, 4, 2), torch.zeros(3, 4, 2)
    confidence = torch.ones(3, 4)
    confidence[1] = 0
    found = metrics.nme_percent(points, observed, confidence, torch.tensor([10.0, 10.0, 0.0]))
    assert found.isnan().tolist() == [False, True, True]
    assert float(found[0]) == pytest.approx(100 * math.sqrt(2) / 10)


def test_nme_of_a_box() -> None:
    points = torch.tensor([[10.0, 20.0], [30.0, 100.0], [15.0, 40.0], [0.0, 0.0]])
    confidence = torch.tensor([1.0, 0.5, 1.0, 0.0])
    # Without the missing point at the origin the box is 20 px by 80 px, its length 40 px.
    length = metrics.box_length_px(points, confidence)
    assert float(length) == pytest.approx(40.0)
    # Every point has an error of (3, 4) px, that is 5 px of 40.
    shifted = points + torch.tensor([3.0, 4.0])
    assert float(metrics.nme_percent(shifted, points, confidence, length)) == pytest.approx(12.5)
    assert float(metrics.box_length_px(shifted, confidence)) == pytest.approx(40.0)
    assert float(metrics.box_length_px(3 * points, confidence)) == pytest.approx(120.0)


def test_a_box_without_points_has_no_nme() -> None:
    points, confidence = torch.rand(2, 5, 2), torch.tensor([1.0, 0.0])[:, None].expand(2, 5)
    length = metrics.box_length_px(points, confidence)
    assert float(length[1]) == 0
    assert metrics.nme_percent(points, points, confidence, length).isnan().tolist() == [False, True]


# --- MSI3D


def oscillating_m(*amplitudes_mm: float, frames: int = 8) -> Tensor:
    """Points that alternate between 0 and their amplitude along x: the acceleration is twice the amplitude."""
    moved = torch.zeros(frames, len(amplitudes_mm), 3, dtype=torch.float64)
    moved[1::2, :, 0] = torch.tensor(amplitudes_mm, dtype=torch.float64) / 1000
    return moved


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # Accelerations of +-2 mm / frame^2: standard deviation 2, variance 4.
        ({}, 1 / 4),
        ({"spread": "std"}, 1 / 2),
        # 0.002 m / frame^2.
        ({"unit": "m"}, 250_000.0),
        ({"unit": "m", "spread": "std"}, 500.0),
        # At 10 frames per second: 200 mm / s^2, 0.2 m / s^2.
        ({"fps": 10.0}, 1 / 40_000),
        ({"fps": 10.0, "spread": "std"}, 1 / 200),
        ({"fps": 10.0, "unit": "m"}, 25.0),
        ({"fps": 10.0, "unit": "m", "spread": "std"}, 5.0),
    ],
)
def test_msi_in_every_unit(options: dict[str, Any], expected: float) -> None:
    points = oscillating_m(1.0)
    assert float(metrics.msi3d(points, **options)) == pytest.approx(expected)
    turned = points @ torch.from_numpy(random_turns(1, seed=5).as_matrix()[0]).mT
    assert float(metrics.msi3d(turned, **options)) == pytest.approx(expected)


def test_msi_is_the_mean_of_reciprocals() -> None:
    two = oscillating_m(1.0, 2.0)
    assert float(metrics.msi3d(two)) == pytest.approx((1 / 4 + 1 / 16) / 2)
    assert float(metrics.msi3d(two, spread="std")) == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_msi_of_a_motionless_point_is_that_of_one_micrometre_of_noise() -> None:
    still = torch.zeros(6, 2, 3, dtype=torch.float64)
    assert float(metrics.msi3d(still, spread="std")) == pytest.approx(1000.0)
    # 1 micrometre per frame^2 at 10 frames per second: 1e-4 m / s^2.
    assert float(metrics.msi3d(still, spread="std", unit="m", fps=10.0)) == pytest.approx(1e4)


def test_unknown_options_are_refused() -> None:
    points, truth = oscillating_m(1.0), torch.rand(4, 3)
    # Unwrapping removes the type checks, which are active only in tests.
    msi3d, mpve_mm = (cast(Any, inspect.unwrap(item)) for item in (metrics.msi3d, metrics.mpve_mm))
    with pytest.raises(InputError, match="spread must be one of 'variance', 'std', got 'range'"):
        msi3d(points, spread="range")
    with pytest.raises(InputError, match="unit must be one of 'mm', 'm', got 'cm'"):
        msi3d(points, unit="cm")
    with pytest.raises(InputError, match="alignment must be one of"):
        mpve_mm(truth, truth, alignment="affine")
    for fps in (0.0, -25.0, math.nan, math.inf):
        with pytest.raises(InputError, match="fps must be a positive number"):
            metrics.msi3d(points, fps=fps)


def sinusoid_m(amplitude_mm: float, period: int, frames: int, points: int = 1) -> Tensor:
    wave = amplitude_mm * torch.sin(2 * math.pi * torch.arange(frames, dtype=torch.float64) / period)
    moved = torch.zeros(frames, points, 3, dtype=torch.float64)
    moved[..., 0] = wave[:, None] / 1000
    return moved


@pytest.mark.parametrize(("amplitude_mm", "period"), [(2.0, 8), (0.5, 8), (1.0, 12)])
def test_msi_of_a_sinusoid(amplitude_mm: float, period: int) -> None:
    # The second difference of A sin(w t) is -4 sin^2(w / 2) A sin(w t); over whole periods its variance is half
    # the squared amplitude.
    factor = 4 * math.sin(math.pi / period) ** 2
    variance = (factor * amplitude_mm) ** 2 / 2
    found = metrics.msi3d(sinusoid_m(amplitude_mm, period, 5 * period + 2))
    assert float(found) == pytest.approx(1 / variance, rel=1e-9)


def test_msi_adds_variance_over_axes_and_averages_over_points_and_views() -> None:
    along_x = sinusoid_m(1.0, 8, 42)
    one = float(metrics.msi3d(along_x))
    in_a_plane = along_x + along_x.roll(1, dims=-1)
    assert float(metrics.msi3d(in_a_plane)) == pytest.approx(one / 2)
    faster = 2 * along_x
    both = torch.cat((along_x, faster), dim=1)
    assert float(metrics.msi3d(both)) == pytest.approx((one + one / 4) / 2)
    assert float(metrics.msi3d(torch.stack((along_x, faster)))) == pytest.approx((one + one / 4) / 2)


def test_msi_of_perfectly_steady_motion_is_bounded() -> None:
    time = torch.arange(30, dtype=torch.float64)[:, None, None]
    direction = torch.tensor([1e-3, 2e-3, -1e-3], dtype=torch.float64)
    for motion in (0 * time * direction, time * direction, 0.5 * time**2 * direction):
        assert float(metrics.msi3d(motion)) == pytest.approx(1 / metrics.MSI_FLOOR_MM**2)


def test_msi_falls_with_jitter_and_is_nan_for_short_clips() -> None:
    jitter = torch.randn(50, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(metrics.msi3d(1e-3 * jitter)) < float(metrics.msi3d(1e-4 * jitter))
    assert math.isnan(float(metrics.msi3d(jitter[:3])))
    assert math.isfinite(float(metrics.msi3d(jitter[:4])))


# --- Jitter


def path_m(*steps_mm: tuple[float, float, float]) -> Tensor:
    """One point at the given positions, in millimetres."""
    return torch.tensor(steps_mm, dtype=torch.float64)[:, None] / 1000


def test_jitter_of_worked_examples() -> None:
    everything = torch.ones(3, dtype=torch.bool)
    bent = path_m((0, 0, 0), (1, 1, 1), (5, 5, 2))
    # The steps (1, 1, 1) and (4, 4, 1) differ by (3, 3, 0).
    assert float(metrics.jitter_mm(bent, everything)) == pytest.approx(math.sqrt(18))
    # A second point is at rest.
    two = torch.cat((bent, torch.zeros_like(bent)), dim=1)
    assert float(metrics.jitter_mm(two, everything)) == pytest.approx(math.sqrt(18) / 2)
    turned = bent @ torch.from_numpy(random_turns(1, seed=2).as_matrix()[0]).mT + 7
    assert float(metrics.jitter_mm(turned, everything)) == pytest.approx(math.sqrt(18))
    pixels = torch.tensor([[[0.0, 0.0]], [[0.0, 0.0]], [[3.0, 4.0]]])
    assert float(metrics.jitter_px(pixels, everything)) == pytest.approx(5.0)


def test_jitter_needs_three_consecutive_valid_frames() -> None:
    points = path_m((0, 0, 0), (0, 0, 0), (5, 0, 0), (0, 0, 0), (900, 0, 0))
    # The second differences are 5 and 10, and one that involves the last frame, which is not valid.
    valid = torch.tensor([True, True, True, True, False])
    assert float(metrics.jitter_mm(points, valid)) == pytest.approx(7.5)
    views = torch.stack((points, 0 * points))
    both = torch.stack((valid, torch.tensor([True, True, True, False, False])))
    assert float(metrics.jitter_mm(views, both)) == pytest.approx((5 + 10 + 0) / 3)
    gap = torch.tensor([True, True, False, True, True])
    assert math.isnan(float(metrics.jitter_mm(points, gap)))
    assert math.isnan(float(metrics.jitter_mm(points[:2], valid[:2])))


# --- The head's rotation over time


def about(axis: str, *angles_deg: float) -> Tensor:
    turns = np.outer(angles_deg, np.eye(3)["xyz".index(axis)])
    return torch.from_numpy(Rotation.from_rotvec(turns, degrees=True).as_rotvec())


def test_angular_velocity_error_of_worked_examples() -> None:
    valid = torch.ones(3, dtype=torch.bool)
    truth, found = about("y", 0, 10, 20), about("y", 5, 15, 31)
    # The steps are 10 and 16 degrees, the true ones 10 and 10, the errors 0 and 6.
    assert float(metrics.angular_velocity_error_deg(found, truth, valid)) == pytest.approx(3.0)
    assert float(metrics.angular_velocity_error_deg(found, truth, valid, fps=25.0)) == pytest.approx(75.0)
    # A quarter turn about x and one about y are a third of a turn apart.
    x, y = about("x", 0, 90), about("y", 0, 90)
    assert float(metrics.angular_velocity_error_deg(x, y, valid[:2])) == pytest.approx(120.0)
    # The rotation vector jumps at half a turn; the velocity must not.
    assert float(metrics.angular_velocity_error_deg(about("z", 175, 185), x[:1].expand(2, 3), valid[:2])) == (
        pytest.approx(10.0)
    )


def test_frames_that_are_not_valid_are_ignored() -> None:
    truth, found = about("y", 0, 10, 20, 30), about("y", 0, 12, 90, 50)
    valid = torch.tensor([True, True, False, True])
    assert float(metrics.angular_velocity_error_deg(found, truth, valid)) == pytest.approx(2.0)
    assert float(metrics.turning_kept_share(found, truth, valid)) == pytest.approx(1.2)
    alternate = torch.tensor([True, False, True, False])
    assert math.isnan(float(metrics.angular_velocity_error_deg(found, truth, alternate)))
    assert math.isnan(float(metrics.turning_kept_share(found, truth, alternate)))


def test_another_neutral_pose_or_camera_changes_no_velocity() -> None:
    truth, found = random_turns(6, seed=3), random_turns(6, seed=4)
    valid = torch.ones(6, dtype=torch.bool)
    fixed, camera = random_turns(2, seed=5)

    def figures(found: Rotation, truth: Rotation) -> list[float]:
        predicted, true = (torch.from_numpy(item.as_rotvec()) for item in (found, truth))
        error_deg = metrics.angular_velocity_error_deg(predicted, true, valid)
        return [float(error_deg), float(metrics.turning_kept_share(predicted, true, valid))]

    assert figures(truth * fixed, truth) == pytest.approx([0.0, 1.0], abs=1e-6)
    assert figures(found * fixed, truth) == pytest.approx(figures(found, truth))
    assert figures(camera * found, camera * truth) == pytest.approx(figures(found, truth))


def test_kept_share_of_the_heads_rotation() -> None:
    valid = torch.ones(4, dtype=torch.bool)
    truth = about("y", 0, 10, 0, 10)
    assert float(metrics.turning_kept_share(truth, truth, valid)) == pytest.approx(1.0)
    assert float(metrics.turning_kept_share(about("y", 3, 8, 3, 8), truth, valid)) == pytest.approx(0.5)
    assert float(metrics.turning_kept_share(about("y", 5, 5, 5, 5), truth, valid)) == pytest.approx(0.0)
    # True steps are 10, 0, -10, predicted ones 10, 5, -10: motion of a head at rest is an error and not a kept share.
    pausing, twitching = about("y", 0, 10, 10, 0), about("y", 0, 10, 15, 5)
    assert float(metrics.turning_kept_share(twitching, pausing, valid)) == pytest.approx(1.0)
    assert float(metrics.angular_velocity_error_deg(twitching, pausing, valid)) == pytest.approx(5 / 3)
    # A truth that moves by less than a thousandth of a degree per frame has no motion.
    assert math.isnan(float(metrics.turning_kept_share(truth, about("y", 7, 7.0001, 7, 7.0001), valid)))


# --- The lips


def lips_m(*openings_mm: float) -> Tensor:
    """Faces with the given mean lip opening; the pairs beside the middle one differ from it by half a millimetre."""
    points = torch.zeros(len(openings_mm), 68, 3, dtype=torch.float64)
    half = torch.tensor(openings_mm, dtype=torch.float64)[:, None] / 2000
    away = half + torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64) / 4000
    points[:, [61, 62, 63], 1], points[:, [67, 66, 65], 1] = away, -away
    return points


def test_lip_opening_of_worked_examples() -> None:
    points = lips_m(3.0, 8.0)
    assert metrics.lip_opening_mm(points).tolist() == pytest.approx([3.0, 8.0])
    turn = torch.from_numpy(random_turns(1, seed=6).as_matrix()[0])
    assert metrics.lip_opening_mm(points @ turn.mT + 1).tolist() == pytest.approx([3.0, 8.0])
    truth, valid = lips_m(2.0, 11.0), torch.tensor([True, True])
    assert float(metrics.lip_opening_error_mm(points, truth, valid)) == pytest.approx(2.0)
    first = torch.tensor([True, False])
    assert float(metrics.lip_opening_error_mm(points, truth, first)) == pytest.approx(1.0)


def test_kept_share_of_lip_motion() -> None:
    truth, valid = lips_m(4, 7, 10, 7, 4), torch.ones(5, dtype=torch.bool)
    assert float(metrics.lip_motion_kept_share(lips_m(6, 9, 12, 9, 6), truth, valid)) == pytest.approx(1.0)
    # The true opening averaged over three frames changes by 1 mm instead of 3.
    assert float(metrics.lip_motion_kept_share(lips_m(6, 7, 8, 7, 6), truth, valid)) == pytest.approx(1 / 3)
    assert float(metrics.lip_motion_kept_share(lips_m(7, 7, 7, 7, 7), truth, valid)) == pytest.approx(0.0)
    # The changes are 1.5 and -3, the true ones 3 and -3.
    gap = torch.tensor([True, True, False, True, True])
    assert float(metrics.lip_motion_kept_share(lips_m(4, 5.5, 90, 10, 7), truth, gap)) == pytest.approx(0.75)
    assert math.isnan(float(metrics.lip_motion_kept_share(truth, lips_m(4, 4, 4, 4, 4), valid)))


def test_an_open_jaw_opens_the_lips(open_head: HeadModel) -> None:
    neutral = open_head.neutral(2)
    expression = neutral.expression.clone()
    expression[1, open_head.expression_names.index("jawOpen")] = 1.0
    points = open_head.landmarks(replace(neutral, expression=expression), "ibug68")
    closed, wide = metrics.lip_opening_mm(points).tolist()
    assert closed < 5
    assert wide > closed + 10
    # In each pair one point is above the other, so that their distance is the opening.
    for upper, lower in zip(metrics.UPPER_LIP_IBUG68, metrics.LOWER_LIP_IBUG68, strict=True):
        sideways, down, _ = (points[1, upper] - points[1, lower]).abs().tolist()
        assert sideways < 0.1 * down


# --- CVD


def test_cvd_of_shifted_meshes_is_the_shift() -> None:
    mesh = torch.randn(1, 3, 10, 3)
    shift = torch.tensor([[0.0, 0.0, 0.0], [3e-3, 0.0, 4e-3], [0.0, 12e-3, 0.0]])[:, None, None]
    views = mesh + shift
    everything = torch.ones(3, 3, dtype=torch.bool)
    # The distances of the three pairs are 5, 12 and 13 mm.
    assert float(metrics.cvd_mm(views, everything)) == pytest.approx(10.0, rel=1e-4)
    assert float(metrics.cvd_mm(views[:2], everything[:2])) == pytest.approx(5.0, rel=1e-4)


def test_cvd_uses_frames_that_are_valid_in_both_views() -> None:
    views = torch.zeros(2, 3, 4, 3)
    views[1, :, :, 0] = torch.tensor([1e-3, 2e-3, 50e-3])[:, None]
    valid = torch.tensor([[True, True, True], [True, True, False]])
    assert float(metrics.cvd_mm(views, valid)) == pytest.approx(1.5)
    assert math.isnan(float(metrics.cvd_mm(views, torch.tensor([[True, False, False], [False, True, True]]))))
    assert math.isnan(float(metrics.cvd_mm(views[:1], valid[:1])))


def test_cvd_of_every_pair_and_every_view() -> None:
    views = torch.zeros(4, 3, 5, 3)
    views[1, ..., 0], views[2, ..., 1] = 1e-3, 4e-3
    valid = torch.tensor([[True, True, True], [True, True, False], [False, False, True], [False] * 3])
    nan = math.nan
    expected = [[0, 1, 4, nan], [1, 0, nan, nan], [4, nan, 0, nan], [nan, nan, nan, 0]]
    matrix = metrics.cvd_matrix_mm(views, valid)
    torch.testing.assert_close(matrix, torch.tensor(expected, dtype=torch.float32), equal_nan=True)
    # View 0 shares two frames with view 1 and one with view 2: (1 + 1 + 4) / 3. Other views share none.
    per_view = metrics.cvd_per_view_mm(views, valid)
    torch.testing.assert_close(per_view, torch.tensor([2.0, 1.0, 4.0, nan]), equal_nan=True)
    assert float(metrics.cvd_mm(views, valid)) == pytest.approx(2.0)


def test_cvd_is_the_mean_over_views_and_invariant_to_rigid_motion() -> None:
    views = 0.1 * torch.randn(4, 3, 20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    everything = torch.ones(4, 3, dtype=torch.bool)
    matrix = metrics.cvd_matrix_mm(views, everything)
    torch.testing.assert_close(metrics.cvd_per_view_mm(views, everything), matrix.sum(1) / 3)
    torch.testing.assert_close(metrics.cvd_mm(views, everything), matrix.sum() / 12)
    turned = views @ torch.from_numpy(random_turns(1, seed=7).as_matrix()[0]).mT + 3
    torch.testing.assert_close(metrics.cvd_matrix_mm(turned, everything), matrix)


# --- Identity drift


def test_identity_drift_of_worked_examples() -> None:
    mesh = torch.randn(1, 7, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    apart = torch.tensor([[-3e-3, 0, -4e-3], [3e-3, 0, 4e-3]], dtype=torch.float64)[:, None]
    assert float(metrics.identity_drift_mm(mesh + apart)) == pytest.approx(5.0)
    # At 0, 0 and 3 mm the mean is at 1 mm.
    one_off = path_m((0, 0, 0), (0, 0, 0), (0, 3, 0))
    assert float(metrics.identity_drift_mm(mesh + one_off)) == pytest.approx(4 / 3)
    turned = (mesh + one_off) @ torch.from_numpy(random_turns(1, seed=8).as_matrix()[0]).mT - 2
    assert float(metrics.identity_drift_mm(turned)) == pytest.approx(4 / 3)
    assert float(metrics.identity_drift_mm(mesh)) == 0


def test_standard_deviation_of_identity_codes() -> None:
    # The standard deviations are 1, 0 and 2.
    codes = torch.tensor([[1.0, 5.0, -2.0], [-1.0, 5.0, 2.0]])
    assert float(metrics.identity_code_std(codes)) == pytest.approx(1.0)
    assert float(metrics.identity_code_std(codes + 3)) == pytest.approx(1.0)
    assert float(metrics.identity_code_std(codes[:1])) == 0


# --- MPVE


def test_mpve_ignores_rigid_motion_but_not_scale() -> None:
    generator = torch.Generator().manual_seed(1)
    truth = torch.randn(2, 400, 3, generator=generator, dtype=torch.float64)
    turn = torch.from_numpy(random_turns(2, seed=1).as_matrix())
    moved = truth @ turn.mT + torch.tensor([1.0, 2.0, 3.0])
    assert float(metrics.mpve_mm(moved, truth)) == pytest.approx(0, abs=1e-9)
    assert float(metrics.mpve_mm(1.1 * truth, truth)) > 50, "an error of scale must count"


def test_mpve_of_a_bump() -> None:
    """A bump at the centre of a symmetric cloud causes no rotation; the best translation is the mean displacement."""
    half = torch.randn(200, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    truth = torch.cat((half, -half, torch.zeros(1, 3)))
    bump = truth.clone()
    bump[-1, 1] = 0.02
    shift = 20 / 401
    assert float(metrics.mpve_mm(bump, truth)) == pytest.approx(((20 - shift) + 400 * shift) / 401)


def test_mpve_of_chosen_vertices() -> None:
    truth = torch.randn(1, 50, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    corrupted = truth.clone()
    corrupted[:, :10] += 5
    where = torch.ones(50, dtype=torch.bool)
    where[:10] = False
    assert float(metrics.mpve_mm(corrupted, truth, where)) == pytest.approx(0, abs=1e-9)


def test_mpve_of_two_opposite_shifts_is_their_size() -> None:
    """No rigid motion compensates a stretch by 1 mm at both ends of each axis: the error of every point is 1 mm."""
    axes = 0.1 * torch.cat((torch.eye(3), -torch.eye(3))).double()
    longer = axes * (1 + 0.001 / 0.1)
    assert float(metrics.mpve_mm(longer, axes)) == pytest.approx(1.0)


# --- Clips that are added piece by piece


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("piece", [1, 2, 5, 40])
def test_pieces_of_a_clip_have_the_figures_of_the_whole(piece: int, even: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(2, 17, 6, 3, generator=generator, dtype=torch.float64)
    valid = torch.rand(2, 17, generator=generator) < 0.8
    frame_times = None if even else torch.rand(17, generator=generator).add(0.5).cumsum(0).tolist()
    motion, distances = metrics.MotionStability(), metrics.ViewDistances()
    for shot in (slice(0, 8), slice(8, 17)):
        motion.begin_shot()
        for start in range(shot.start, shot.stop, piece):
            part = slice(start, min(start + piece, shot.stop))
            motion.add(points[:, part], None if frame_times is None else frame_times[part])
            distances.add(points[:, part], valid[:, part])
    torch.testing.assert_close(motion.msi3d(), metrics.msi3d(points, starts=(0, 8), frame_times=frame_times))
    torch.testing.assert_close(distances.cvd_mm(), metrics.cvd_mm(points, valid))


def test_a_clip_of_two_frames_has_no_motion() -> None:
    motion = metrics.MotionStability()
    motion.add(torch.zeros(1, 2, 4, 3))
    assert math.isnan(float(motion.msi3d()))
