from __future__ import annotations

import numpy as np
import pytest

from neuface.errors import InputError
from neuface.viz import loss_curves


def test_the_picture_is_not_blank_and_has_the_size_asked_for() -> None:
    history = {"landmark": [1.0, 0.5, 0.2], "temporal": [0.0, float("nan"), 0.01], "total": [1.0, 0.5, 0.21]}
    picture = loss_curves(history, "clip $1", size_px=(300, 400))
    assert picture.shape == (300, 400, 3)
    assert picture.dtype == np.uint8
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_more_curves_make_more_ink() -> None:
    total = list(np.exp(-np.arange(50) / 10))
    one = loss_curves({"total": total}, "clip")
    two = loss_curves({"total": total, "landmark": total[::-1]}, "clip")
    assert (two < 128).sum() > (one < 128).sum()


def test_single_steps_and_values_without_a_logarithm_are_drawn_without_complaint() -> None:
    assert loss_curves({"total": [0.5], "temporal": [0.0]}, "").std() > 0
    assert loss_curves({"temporal": [0.0, -1.0]}, "").std() > 0


def test_an_empty_history_is_an_error() -> None:
    with pytest.raises(InputError, match="history is empty"):
        loss_curves({"total": []}, "clip")
