"""Smoothing over a clip: slow twins, ends, cuts, and what each kind guarantees about motion and noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from neuface.errors import InputError
from neuface.geometry.rotations import rotvec_to_quaternion
from neuface.geometry.smoothing import (
    KINDS,
    moving_average,
    released_window_mean,
    smooth,
    smooth_quaternions,
)

LINEAR = ("mean", "gaussian", "local_quadratic")


def slow_average(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    smooth = np.zeros_like(values)
    for frame in range(len(values)):
        half = min(window // 2, frame, len(values) - 1 - frame)
        smooth[frame] = values[frame - half : frame + half + 1].mean(0)
    return smooth


def wandering_turns(time: int, seed: int = 0) -> Tensor:
    """Head orientations of a talking person, a random walk of a few degrees per frame."""
    steps = torch.randn(time, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 0.05 * steps.cumsum(0)


def same_rotation(first: Tensor, second: Tensor, tolerance: float) -> bool:
    return float((1 - (first * second).sum(-1).abs()).max()) < tolerance


@pytest.mark.parametrize("window", [1, 3, 5, 9])
@pytest.mark.parametrize("time", [1, 2, 4, 5, 23])
def test_moving_average_equals_its_slow_twin(time: int, window: int) -> None:
    values = torch.randn(2, time, 3, generator=torch.Generator().manual_seed(time), dtype=torch.float64)
    found = moving_average(values, window)
    for view in range(2):
        np.testing.assert_allclose(
            found[view].numpy(), slow_average(values[view].numpy(), window), atol=1e-12
        )


@pytest.mark.parametrize("window", [3, 5, 9])
def test_smooth_quaternions_equal_their_slow_twin(window: int) -> None:
    quaternion = Rotation.from_rotvec(wandering_turns(40).numpy()).as_quat()
    for frame in range(1, 40):
        if quaternion[frame] @ quaternion[frame - 1] < 0:
            quaternion[frame] *= -1
    expected = slow_average(quaternion, window)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = smooth_quaternions(rotvec_to_quaternion(wandering_turns(40)), window).numpy()
    np.testing.assert_allclose(found * np.sign(found[0] @ expected[0]), expected, atol=1e-12)


def test_a_still_head_is_unchanged() -> None:
    still = rotvec_to_quaternion(torch.tensor([0.3, -0.2, 0.9])).expand(12, 4)
    torch.testing.assert_close(smooth_quaternions(still, 5), still)


def test_a_window_of_one_frame_changes_nothing() -> None:
    quaternion = rotvec_to_quaternion(wandering_turns(20))
    assert same_rotation(smooth_quaternions(quaternion, 1), quaternion, 1e-12)


def test_signs_of_the_inputs_do_not_matter() -> None:
    quaternion = rotvec_to_quaternion(wandering_turns(50)).repeat(2, 1, 1)
    flips = torch.where(torch.rand(2, 50, 1, generator=torch.Generator().manual_seed(4)) < 0.5, -1.0, 1.0)
    plain, flipped = smooth_quaternions(quaternion, 7), smooth_quaternions(quaternion * flips, 7)
    assert same_rotation(plain, flipped, 1e-12)


def test_a_smoothed_frame_depends_on_its_window_only() -> None:
    """Away from the ends of a clip the result does not depend on the clip's length."""
    quaternion = rotvec_to_quaternion(wandering_turns(300))
    long, window = smooth_quaternions(quaternion, 7), 7
    for start, stop in ((100, 140), (0, 140), (100, 300)):
        piece = smooth_quaternions(quaternion[start:stop], window)
        first = 0 if start == 0 else window // 2
        last = stop - start if stop == 300 else stop - start - window // 2
        assert same_rotation(piece[first:last], long[start + first : start + last], 1e-12)


def test_long_clips_lose_no_precision() -> None:
    values = 1 + 0.1 * torch.randn(20_000, 1, generator=torch.Generator().manual_seed(5))
    expected = values.double()[-105:].numpy()
    found = moving_average(values, 5)[-100:].double().numpy()
    np.testing.assert_allclose(found, slow_average(expected, 5)[-100:], atol=2e-7)


@pytest.mark.parametrize("speed", [0.05, -0.2, 0.5])
def test_a_steady_turn_is_unchanged_up_to_its_ends(speed: float) -> None:
    axis = torch.nn.functional.normalize(torch.tensor([1.0, 2.0, -0.5]), dim=0)
    start = Rotation.from_rotvec([0.4, 0.1, 0.2])
    turn = Rotation.from_rotvec((torch.arange(40)[:, None] * speed * axis).numpy()) * start
    steady = torch.from_numpy(turn.as_quat()).float()
    smooth = smooth_quaternions(steady, 9)
    nearest = torch.where((smooth * steady).sum(-1, keepdim=True) < 0, -smooth, smooth)
    torch.testing.assert_close(nearest, steady, atol=1e-4, rtol=0)


def test_results_are_unit_quaternions_and_smoother() -> None:
    jitter = 0.3 * torch.randn(3, 60, 3, generator=torch.Generator().manual_seed(6))
    quaternion = rotvec_to_quaternion(jitter)
    smooth = smooth_quaternions(quaternion, 5)
    torch.testing.assert_close(smooth.norm(dim=-1), torch.ones(3, 60))
    assert float(smooth.diff(dim=1).norm()) < 0.5 * float(quaternion.diff(dim=1).norm())


@pytest.mark.parametrize("window", [0, 2, -3, 10])
def test_windows_without_a_middle_frame_are_refused(window: int) -> None:
    with pytest.raises(InputError, match=f"odd number of frames, at least 1, got {window}"):
        moving_average(torch.zeros(5, 4), window)


# --- Other kinds than the mean


def slow_smooth(values: NDArray[np.float64], window: int, kind: str) -> NDArray[np.float64]:
    """One channel, frame by frame, as the module's docstring defines it."""
    time = len(values)
    result = np.zeros(time)
    for frame in range(time):
        half = min(window // 2, frame, time - 1 - frame)
        near = values[frame - half : frame + half + 1]
        if kind == "median":
            result[frame] = np.median(near)
        elif kind == "gaussian":
            weights = np.exp(-0.5 * (np.arange(-half, half + 1) / (window / 4)) ** 2)
            result[frame] = (weights * near).sum() / weights.sum()
        else:
            full = min(window, time - (1 - time % 2))
            start = min(max(frame - full // 2, 0), time - full)
            frames = np.arange(start, start + full)
            parabola = np.polyfit(frames - frame, values[frames], min(2, full - 1))
            result[frame] = np.polyval(parabola, 0)
    return result


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_turn(seed: int) -> Rotation:
    return Rotation.from_rotvec(2 * noise(3, seed=seed).numpy())


def quaternions(rotation: Rotation) -> Tensor:
    return torch.from_numpy(rotation.as_quat())


@pytest.mark.parametrize("kind", ["median", "gaussian", "local_quadratic"])
@pytest.mark.parametrize("window", [1, 3, 5, 9])
@pytest.mark.parametrize("time", [1, 2, 3, 4, 7, 8, 21])
def test_kinds_equal_their_slow_twins(time: int, window: int, kind: str) -> None:
    values = noise(2, time, 3, seed=time)
    found = smooth(values, window, kind)
    for view in range(2):
        for channel in range(3):
            expected = slow_smooth(values[view, :, channel].numpy(), window, kind)
            np.testing.assert_allclose(found[view, :, channel].numpy(), expected, atol=1e-10)


def test_the_mean_is_the_moving_average() -> None:
    values = noise(2, 23, 4)
    torch.testing.assert_close(smooth(values, 7, "mean"), moving_average(values, 7), atol=0, rtol=0)
    turns = rotvec_to_quaternion(wandering_turns(30))
    torch.testing.assert_close(
        smooth_quaternions(turns, 5, "mean"), smooth_quaternions(turns, 5), atol=0, rtol=0
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("time", [0, 1, 2, 3, 4, 5, 30])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_every_shape_and_precision(kind: str, time: int, batch: tuple[int, ...]) -> None:
    values = noise(*batch, time, 2)
    found = smooth(values, 9, kind)
    assert found.shape == values.shape
    single = smooth(values.float(), 9, kind)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), found, atol=1e-5, rtol=1e-5)
    if len(batch) == 2 and time:
        torch.testing.assert_close(smooth(values[1, 2], 9, kind), found[1, 2], atol=1e-12, rtol=0)
        torch.testing.assert_close(smooth(values[..., 1:], 9, kind), found[..., 1:], atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("time", [1, 2, 3, 4, 6, 40])
def test_steady_motion_is_unchanged(kind: str, time: int) -> None:
    steady = torch.arange(time, dtype=torch.float64)[:, None] * torch.tensor([0.3, -2.0, 0.0]) + 5
    torch.testing.assert_close(smooth(steady, 7, kind), steady, atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_smoothing_runs_the_same_forwards_and_backwards(kind: str) -> None:
    values = noise(30, 2)
    values[12] += 20
    torch.testing.assert_close(
        smooth(values.flip(0), 7, kind), smooth(values, 7, kind).flip(0), atol=1e-10, rtol=0
    )


@pytest.mark.parametrize("kind", KINDS)
def test_offset_and_unit_do_not_matter(kind: str) -> None:
    values = noise(30, 2)
    torch.testing.assert_close(
        smooth(100 * values + 7, 5, kind), 100 * smooth(values, 5, kind) + 7, atol=1e-8, rtol=0
    )


@pytest.mark.parametrize("time", [3, 4, 5, 8, 40])
def test_a_parabola_stays_a_parabola(time: int) -> None:
    frame = torch.arange(time, dtype=torch.float64)[:, None]
    values = 0.3 * frame.square() - 4 * frame + 2
    torch.testing.assert_close(smooth(values, 9, "local_quadratic"), values, atol=1e-9, rtol=0)
    if time >= 8:
        assert float((smooth(values, 9, "mean") - values).abs().max()) > 0.5


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "median"])
def test_rotating_the_clip_rotates_the_result(kind: str) -> None:
    turns = Rotation.from_rotvec(wandering_turns(60).numpy())
    plain = Rotation.from_quat(smooth_quaternions(quaternions(turns), 7, kind).numpy())
    for seed in range(3):
        world = random_turn(seed)
        turned = smooth_quaternions(quaternions(world * turns), 7, kind)
        assert same_rotation(turned, quaternions(world * plain), 1e-12)
        turned = smooth_quaternions(quaternions(turns * world), 7, kind)
        assert same_rotation(turned, quaternions(plain * world), 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_signs_do_not_matter_to_any_kind(kind: str) -> None:
    turns = rotvec_to_quaternion(wandering_turns(50))
    flips = torch.where(noise(50, 1) < 0, -1.0, 1.0)
    assert same_rotation(
        smooth_quaternions(turns * flips, 7, kind), smooth_quaternions(turns, 7, kind), 1e-12
    )


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_smoothed_across_a_cut(kind: str) -> None:
    values = noise(2, 40, 3)
    values[:, 17:] += 50
    alone = torch.cat(
        [smooth(values[:, part], 7, kind) for part in (slice(17), slice(17, 39), slice(39, 40))], 1
    )
    torch.testing.assert_close(smooth(values, 7, kind, (17, 39)), alone, atol=0, rtol=0)
    torch.testing.assert_close(smooth(values, 7, kind, (0, 17, 39)), alone, atol=0, rtol=0)
    assert float((smooth(values, 7, kind) - alone).abs().max()) > 1
    turns = rotvec_to_quaternion(wandering_turns(40))
    parts = torch.cat([smooth_quaternions(turns[:25], 7, kind), smooth_quaternions(turns[25:], 7, kind)])
    assert same_rotation(smooth_quaternions(turns, 7, kind, (25,)), parts, 1e-12)


@pytest.mark.parametrize("kind", LINEAR)
def test_gradients_of_the_linear_kinds(kind: str) -> None:
    values = noise(8, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: smooth(x, 5, kind, (3,)), (values,))
    turns = rotvec_to_quaternion(wandering_turns(6)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: smooth_quaternions(x, 5, kind), (turns,))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_even_without_noise(kind: str) -> None:
    values = torch.zeros(12, 3, dtype=torch.float64, requires_grad=True)
    smooth(values, 5, kind).square().sum().backward()
    assert values.grad is not None
    assert bool(values.grad.isfinite().all())


# --- The adaptive kind: it smooths noise and preserves motion


@pytest.mark.parametrize("window", [3, 5, 9, 15])
@pytest.mark.parametrize("time", [12, 30, 200])
def test_adaptive_smooths_a_still_head_like_the_mean(time: int, window: int) -> None:
    still = noise(200, time, 1)
    smoothed, mean = smooth(still, window, "adaptive"), smooth(still, window, "mean")
    assert float(still.std() / smoothed.std()) >= 0.9 * float(still.std() / mean.std())


@pytest.mark.parametrize("window", [3, 5, 9, 15])
@pytest.mark.parametrize("time", [30, 200])
def test_adaptive_smooths_head_orientations_like_the_mean(time: int, window: int) -> None:
    turns = rotvec_to_quaternion(0.01 * noise(50, time, 3))
    angles = [2 * smooth_quaternions(turns, window, kind)[..., :3].std() for kind in ("adaptive", "mean")]
    assert float(angles[0]) <= float(angles[1]) / 0.9


@pytest.mark.parametrize("window", [5, 7, 9])
@pytest.mark.parametrize("noise_deg", [0.02, 0.1, 0.3])
def test_adaptive_preserves_a_fast_nod(noise_deg: float, window: int) -> None:
    """The head nods by 20 degrees once a second, at 25 frames per second; as an angle and as quaternions."""
    seconds = torch.arange(100, dtype=torch.float64)[:, None] / 25
    nod_deg = 20 * torch.sin(2 * math.pi * seconds)
    seen_deg = nod_deg + noise_deg * noise(20, 100, 1)
    found = smooth(seen_deg, window, "adaptive")
    mean = smooth(seen_deg, window, "mean")
    assert float((found - nod_deg).square().mean()) < 0.25**2 * float((mean - nod_deg).square().mean())
    assert abs(float(found.amax(1).mean()) - 20) < 0.03 * 20
    turns = rotvec_to_quaternion(torch.deg2rad(seen_deg) * torch.tensor([1.0, 0.0, 0.0]))
    turned = torch.rad2deg(2 * torch.asin(smooth_quaternions(turns, window, "adaptive")[..., :1]))
    assert float((turned - nod_deg).square().mean()) < 0.25**2 * float((mean - nod_deg).square().mean())
    assert abs(float(turned.amax(1).mean()) - 20) < 0.03 * 20


def test_adaptive_separates_stillness_and_motion_in_one_clip() -> None:
    """Around one quick turn it smooths like the mean, during the turn it is as accurate as the parabola."""
    frame = torch.arange(150, dtype=torch.float64)[:, None]
    share = ((frame - 70) / 10).clamp(0, 1)
    turn = 20 * share.square() * (3 - 2 * share)
    seen = turn + 0.3 * noise(100, 150, 1)
    moving = (frame[:, 0] > 65) & (frame[:, 0] < 85)
    error = {
        kind: [
            float((smooth(seen, 9, kind) - turn)[:, part].square().mean().sqrt())
            for part in (moving, ~moving)
        ]
        for kind in KINDS
    }
    assert error["adaptive"][0] < 1.05 * error["local_quadratic"][0]
    assert error["adaptive"][0] < 0.3 * error["mean"][0]
    assert error["adaptive"][1] < 1.05 * error["mean"][1]


@pytest.mark.parametrize("window", [5, 9])
@pytest.mark.parametrize("frame", [0, 1, 2, 3, 20, 38, 39])
def test_a_single_outlier_moves_its_neighbours_no_more_than_the_mean_would(frame: int, window: int) -> None:
    clean = noise(200, 40, 1)
    spiked = clean.clone()
    spiked[:, frame] += 12
    moved = {
        kind: (smooth(spiked, window, kind) - smooth(clean, window, kind)).abs().mean(0)[:, 0]
        for kind in ("adaptive", "mean")
    }
    others = torch.arange(40) != frame
    assert float(moved["adaptive"][others].max()) < 0.9 * float(moved["mean"][others].max())
    assert float(moved["adaptive"][others].sum()) < 0.7 * float(moved["mean"][others].sum())


def test_an_outlier_among_head_orientations_is_ignored() -> None:
    rotvec = 0.01 * noise(40, 3)
    spiked = rotvec.clone()
    spiked[20, 1] += 0.5
    clean = smooth_quaternions(rotvec_to_quaternion(rotvec), 7, "adaptive")
    found = smooth_quaternions(rotvec_to_quaternion(spiked), 7, "adaptive")
    assert same_rotation(found, clean, 1e-4)
    assert not same_rotation(smooth_quaternions(rotvec_to_quaternion(spiked), 7), clean, 5e-4)


def test_a_short_true_motion_is_not_an_outlier() -> None:
    """The test for spikes must preserve a blink of three frames and a jump."""
    blink = torch.zeros(60, 1, dtype=torch.float64)
    blink[29:32, 0] = torch.tensor([0.5, 1.0, 0.5], dtype=torch.float64)
    seen = blink + 0.01 * noise(60, 1)
    parabola = float(smooth(seen, 5, "local_quadratic")[30])
    assert float(smooth(seen, 5, "adaptive")[30]) > 0.95 * parabola > 0.6
    jump = (torch.arange(60) >= 30).double()[:, None] + 0.01 * noise(60, 1)
    found = smooth(jump, 5, "adaptive")
    assert float(found[29]) < 0.3
    assert float(found[30]) > 0.7


# --- The released code's window


def test_released_window_by_hand() -> None:
    turns = rotvec_to_quaternion(wandering_turns(9))
    found = released_window_mean(turns)
    for frame in range(9):
        expected = turns[frame]
        if 2 <= frame < 7:
            total = turns[frame - 2] + turns[frame - 1] + turns[frame] + turns[frame + 1]
            expected = total / total.norm()
        torch.testing.assert_close(found[frame], expected)


@pytest.mark.parametrize("time", [0, 1, 3, 4])
def test_the_released_window_leaves_short_clips_unchanged(time: int) -> None:
    turns = rotvec_to_quaternion(wandering_turns(time))
    torch.testing.assert_close(released_window_mean(turns), turns, atol=0, rtol=0)


def test_the_released_window_lags_by_half_a_frame_and_respects_chunks() -> None:
    steady = rotvec_to_quaternion(0.02 * torch.arange(40.0)[:, None] * torch.tensor([0.0, 1.0, 0.0]))
    found = released_window_mean(steady.expand(2, -1, -1))
    angle = 2 * torch.asin(found[1, :, 1])
    torch.testing.assert_close(angle[2:38], 0.02 * (torch.arange(2.0, 38.0) - 0.5), atol=1e-4, rtol=0)
    chunks = released_window_mean(steady, (0, 20))
    torch.testing.assert_close(
        chunks, torch.cat((released_window_mean(steady[:20]), released_window_mean(steady[20:])))
    )
    torch.testing.assert_close(chunks[18:22], steady[18:22])


def test_the_released_window_does_not_make_signs_consistent() -> None:
    turns = rotvec_to_quaternion(0.1 * noise(10, 3))
    flipped = turns * torch.where(torch.arange(10) % 2 == 0, 1.0, -1.0)[:, None]
    assert not same_rotation(released_window_mean(flipped), released_window_mean(turns), 1e-3)


# --- Wrong arguments


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window", [0, 4])
def test_every_kind_refuses_an_even_window(kind: str, window: int) -> None:
    with pytest.raises(InputError, match="odd number of frames"):
        smooth(torch.zeros(5, 4), window, kind)


def test_unknown_kinds_are_named() -> None:
    with pytest.raises(InputError, match=r"one of mean, median, .* got 'kalman'"):
        smooth(torch.zeros(5, 4), 3, "kalman")


@pytest.mark.parametrize("segments", [(5, 3), (3, 3), (10,), (-1, 4)])
def test_segments_must_rise_within_the_clip(segments: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="rising frame numbers from 0 to 9"):
        smooth(torch.zeros(10, 2), 3, "mean", segments)
    with pytest.raises(InputError, match="rising frame numbers"):
        released_window_mean(torch.zeros(10, 4), segments)
