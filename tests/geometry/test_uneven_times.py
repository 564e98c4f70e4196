"""Filters that count frames, applied to frames that are not evenly spaced."""

from __future__ import annotations

import pytest
import torch

from neuface import metrics
from neuface.geometry.smoothing import moving_average, smooth
from neuface.geometry.uneven_times import frame_times_of, on_even_grid

KEPT = [0, 1, 2, 3, 7, 8, 9, 10, 12, 13, 14, 15, 16]


def test_evenly_spaced_frames_have_no_moments() -> None:
    for rate in (6.0, 25.0, 30000 / 1001, 60.0, 240.0):
        assert frame_times_of([frame / rate for frame in range(50)]) is None
        # As Matroska writes them, in milliseconds.
        assert frame_times_of([round(1000 * frame / rate) / 1000 for frame in range(50)]) is None
    assert frame_times_of([frame / 25 for frame in KEPT]) == pytest.approx(KEPT)


def test_a_filter_sees_the_frames_where_they_were() -> None:
    """A steady motion stays as it is, though frames are missing; by the number of frames it would be bent."""
    motion = torch.tensor([3.0, -1.0]) * torch.arange(17.0, dtype=torch.float64)[:, None]
    lost = motion[KEPT]
    for window in (3, 5, 9):
        smoothed = on_even_grid(
            lambda piece, w=window: moving_average(piece, w), lost, list(map(float, KEPT))
        )
        assert torch.allclose(smoothed, lost)
    assert not torch.allclose(moving_average(lost, 5), lost)


@pytest.mark.parametrize("kind", ["mean", "local_quadratic", "adaptive"])
def test_frames_far_from_a_gap_are_smoothed_as_without_it(kind: str) -> None:
    values = torch.rand(60, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kept = [*range(30), *range(33, 60)]
    smoothed = on_even_grid(lambda piece: smooth(piece, 5, kind), values[kept], list(map(float, kept)))
    whole = smooth(values, 5, kind)
    if kind != "adaptive":  # its level of noise is that of the whole clip
        assert torch.allclose(smoothed[:20], whole[:20])
        assert torch.allclose(smoothed[-20:], whole[-20:])
    even = on_even_grid(lambda piece: smooth(piece, 5, kind), values, [float(frame) for frame in range(60)])
    assert torch.equal(even, whole)


def test_a_gap_of_hours_costs_no_memory() -> None:
    smoothed = on_even_grid(lambda piece: moving_average(piece, 5), torch.ones(3, 1), [0.0, 1.0, 1e9])
    assert torch.equal(smoothed, torch.ones(3, 1))


def test_a_constant_acceleration_is_seen_at_any_steps() -> None:
    times = torch.tensor(KEPT, dtype=torch.float64)
    points = (0.001 * times.square())[:, None, None] * torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)
    steady = metrics.msi3d(points, frame_times=list(map(float, KEPT)))
    assert steady == pytest.approx(1 / metrics.MSI_FLOOR_MM**2)
    assert metrics.msi3d(points) < 1e-3 * steady
    even = points[[0, 1, 2, 3]]
    assert torch.equal(metrics.msi3d(even), metrics.msi3d(even, frame_times=[0.0, 1.0, 2.0, 3.0]))
