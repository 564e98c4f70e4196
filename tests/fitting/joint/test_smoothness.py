"""I - S as rows: what they make of a trajectory is its distance to the trajectory that the E-step smooths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from neuface.fitting.joint.smoothness import Pull, SmoothingRows, pose_band, smoothing_rows
from neuface.fitting.smoothing import (
    Adaptive,
    Gaussian,
    LocalQuadratic,
    MovingMean,
    MovingMedian,
    ReleasedMean,
)
from neuface.fitting.targets import smooth_values

LINEAR = [MovingMean(window=5), Gaussian(window=7), LocalQuadratic(window=7), LocalQuadratic(window=1)]
SEGMENTS = [(1, (0,)), (2, (0,)), (5, (0,)), (16, (0,)), (16, (0, 3, 12)), (16, (0, 1, 2, 15))]


def dense(rows: SmoothingRows) -> Tensor:
    """The whole matrices, views time time."""
    views, time, window = rows.entries.shape
    at = rows.first[..., None] + torch.arange(window)
    assert int(at.min()) >= 0
    assert int(at.max()) < time
    return torch.zeros(views, time, time, dtype=torch.float64).scatter_add_(2, at, rows.entries)


def trajectory(time: int) -> Tensor:
    return torch.randn(2, time, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("smoother", LINEAR)
@pytest.mark.parametrize(("time", "segments"), SEGMENTS)
def test_rows_give_the_distance_to_the_smoothed_trajectory(
    smoother: Any, time: int, segments: tuple[int, ...]
) -> None:
    """Cuts, ends of the clip, and segments that are shorter than the window."""
    values = trajectory(time)
    rows = smoothing_rows(smoother, segments, torch.ones(2, time, dtype=torch.bool))
    torch.testing.assert_close(dense(rows) @ values, values - smoother.values(values, segments))


def test_rows_of_uneven_frames_give_the_distance_to_what_is_smoothed_in_time() -> None:
    frame_times = (0.0, 1.0, 2.0, 2.5, 3.0, 5.0, 6.0, 7.0, 8.2, 9.0, 10.0, 11.0)
    values, smoother = trajectory(12), LocalQuadratic(window=5)
    rows = smoothing_rows(smoother, (0,), torch.ones(2, 12, dtype=torch.bool), frame_times)
    expected = values - smooth_values(smoother, values, (0,), frame_times)
    torch.testing.assert_close(dense(rows) @ values, expected)


@pytest.mark.parametrize("smoother", [MovingMedian(), Adaptive(), ReleasedMean()])
def test_trajectories_of_filters_that_are_not_linear_are_held_fixed(smoother: Any) -> None:
    rows = smoothing_rows(smoother, (0, 4), torch.ones(2, 9, dtype=torch.bool))
    assert torch.equal(dense(rows), torch.eye(9, dtype=torch.float64).expand(2, -1, -1))


@pytest.mark.parametrize("smoother", LINEAR[:3])
def test_trajectories_are_held_fixed_near_frames_without_landmarks(smoother: Any) -> None:
    """There the E-step interpolates; elsewhere, and in the other view, the rows are as without them."""
    known = torch.ones(2, 16, dtype=torch.bool)
    known[0, 6] = known[0, 15] = False
    found = dense(smoothing_rows(smoother, (0, 10), known))
    everywhere = dense(smoothing_rows(smoother, (0, 10), torch.ones_like(known)))
    smoothed = torch.eye(16, dtype=torch.float64) - everywhere[0]
    looks_at_missing = (smoothed[:, ~known[0]].abs() > 1e-9).any(1) | ~known[0]
    assert 0 < int(looks_at_missing.sum()) < 16
    assert torch.equal(found[0, looks_at_missing], torch.eye(16, dtype=torch.float64)[looks_at_missing])
    torch.testing.assert_close(found[0, ~looks_at_missing], everywhere[0, ~looks_at_missing])
    torch.testing.assert_close(found[1], everywhere[1])


def test_pulls_of_rows_that_hold_fixed_are_those_of_single_frames() -> None:
    rows = smoothing_rows(ReleasedMean(), (0,), torch.ones(1, 4, dtype=torch.bool))
    distance = torch.tensor([[[1.0], [2.0], [3.0], [4.0]]])
    weight = torch.tensor([[0.5, 1.0, 2.0, 4.0]])
    unit = torch.full((1, 4), 2.0)
    band = pose_band(rows, [Pull(channels=slice(3, 4), distance=distance, weight=weight, unit=unit)], 6)
    torch.testing.assert_close(band.lags[0, :, 3], (4 * weight[0]).double())
    torch.testing.assert_close(band.right[:, 3], (2 * weight[0] * distance[0, :, 0]).double())
    assert not band.right[:, [0, 1, 2, 4, 5]].any()
    assert not band.lags[1:].any()
