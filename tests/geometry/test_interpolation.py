"""Missing frames are interpolated linearly between known ones."""

from __future__ import annotations

import torch

from neuface.geometry.interpolation import interpolate_missing


def test_gaps_are_linear_and_the_ends_repeat_the_nearest_known_value() -> None:
    values = torch.tensor([[[9.0], [1.0], [9.0], [9.0], [4.0], [9.0]]])
    known = torch.tensor([[False, True, False, False, True, False]])
    found = interpolate_missing(values, known)
    assert found.flatten().tolist() == [1, 1, 2, 3, 4, 4]


def test_known_frames_stay_bit_equal_and_views_are_independent() -> None:
    values = torch.randn(3, 20, 4, generator=torch.Generator().manual_seed(0))
    known = torch.rand(3, 20, generator=torch.Generator().manual_seed(1)) < 0.5
    found = interpolate_missing(values, known)
    assert torch.equal(found[known], values[known])
    alone = torch.cat(
        [interpolate_missing(values[view : view + 1], known[view : view + 1]) for view in range(3)]
    )
    assert torch.equal(found, alone)


def test_nothing_is_interpolated_across_segments() -> None:
    values = torch.tensor([[[0.0], [5.0], [5.0], [8.0]]])
    known = torch.tensor([[True, False, False, True]])
    assert interpolate_missing(values, known, (0, 2)).flatten().tolist() == [0, 0, 8, 8]
    assert interpolate_missing(values, torch.zeros_like(known), (0, 2)).equal(values)


def test_gradient_reaches_the_known_neighbours() -> None:
    values = torch.tensor([[[0.0], [7.0], [4.0]]], dtype=torch.float64, requires_grad=True)
    interpolate_missing(values, torch.tensor([[True, False, True]]))[0, 1].sum().backward()
    assert values.grad is not None
    assert values.grad.flatten().tolist() == [0.5, 0.0, 0.5]
