"""The moving average over a clip: its slow twin, its ends, its lack of seams."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from neuface.errors import InputError
from neuface.geometry.rotations import rotvec_to_quaternion
from neuface.geometry.smoothing import moving_average, smooth_quaternions


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


def test_a_still_head_is_left_alone() -> None:
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


def test_no_seams() -> None:
    """Away from its ends a frame's answer depends on its window only, however long the clip."""
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
def test_a_steady_turn_is_left_alone_to_its_ends(speed: float) -> None:
    axis = torch.nn.functional.normalize(torch.tensor([1.0, 2.0, -0.5]), dim=0)
    start = Rotation.from_rotvec([0.4, 0.1, 0.2])
    turn = Rotation.from_rotvec((torch.arange(40)[:, None] * speed * axis).numpy()) * start
    steady = torch.from_numpy(turn.as_quat()).float()
    smooth = smooth_quaternions(steady, 9)
    nearest = torch.where((smooth * steady).sum(-1, keepdim=True) < 0, -smooth, smooth)
    torch.testing.assert_close(nearest, steady, atol=1e-4, rtol=0)


def test_results_are_unit_and_smoother() -> None:
    jitter = 0.3 * torch.randn(3, 60, 3, generator=torch.Generator().manual_seed(6))
    quaternion = rotvec_to_quaternion(jitter)
    smooth = smooth_quaternions(quaternion, 5)
    torch.testing.assert_close(smooth.norm(dim=-1), torch.ones(3, 60))
    assert float(smooth.diff(dim=1).norm()) < 0.5 * float(quaternion.diff(dim=1).norm())


@pytest.mark.parametrize("window", [0, 2, -3, 10])
def test_windows_that_have_no_middle_are_refused(window: int) -> None:
    with pytest.raises(InputError, match=f"odd number of frames, at least 1, got {window}"):
        moving_average(torch.zeros(5, 4), window)
