"""Evenly spread indices."""

from __future__ import annotations

import pytest

from neuface.geometry.sampling import evenly_spread_indices


@pytest.mark.parametrize("total", [0, 1, 2, 7, 100, 9_999])
@pytest.mark.parametrize("at_most", [0, 1, 2, 3, 64])
def test_indices_rise_in_even_steps_between_both_ends(total: int, at_most: int) -> None:
    chosen = evenly_spread_indices(total, at_most)
    assert len(chosen) == min(total, at_most)
    if len(chosen) == total:
        assert chosen.tolist() == list(range(total))
    elif len(chosen) > 1:
        assert (int(chosen[0]), int(chosen[-1])) == (0, total - 1)
        steps = chosen.diff()
        assert int(steps.max() - steps.min()) <= 1
        assert int(steps.min()) >= 1
