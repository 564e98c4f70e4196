"""Which cases are shown."""

from __future__ import annotations

import torch

from neuface.training.showcase import typical_and_worst


def test_typical_cases_span_the_ranks_and_the_worst_are_the_worst() -> None:
    errors = torch.tensor([5.0, 1.0, 9.0, 3.0, 7.0, 2.0, 8.0, 4.0, 6.0])
    typical, worst = typical_and_worst(errors, 3)
    assert errors[worst].tolist() == [9.0, 8.0, 7.0]
    assert errors[typical].tolist() == [3.0, 5.0, 7.0]


def test_fewer_pictures_than_asked_for_are_all_shown() -> None:
    typical, worst = typical_and_worst(torch.tensor([2.0, 1.0]), 8)
    assert len(typical) == 2
    assert worst.tolist() == [0, 1]
