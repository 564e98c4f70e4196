"""What a configuration refuses, in words."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from neuface.errors import InputError
from neuface.fitting.config import FitConfig


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("landmark_weight", -1.0, "must not be negative, got -1.0"),
        ("temporal_weight", "2", "must be a number, got '2'"),
        ("multiview_weight", None, "must be a number, got None"),
        ("identity_prior_weight", True, "must be a number, got True"),
        ("tolerance", math.nan, "must be finite, got nan"),
        ("max_nme_percent", math.inf, "must be finite, got inf"),
        ("temporal_window", 4, "must be odd, got 4"),
        ("temporal_window", 0, "must be a whole number of at least 1, got 0"),
        ("batch_size", 0, "must be a whole number of at least 1, got 0"),
        ("batch_size", 2.5, "must be a whole number, got 2.5"),
        ("max_passes", 0, "must be a whole number of at least 1, got 0"),
        ("patience", -3, "must not be negative, got -3"),
        ("step_size_drops", 0.5, "must be a whole number, got 0.5"),
        ("seed", 1.5, "must be a whole number, got 1.5"),
        ("visible_angle_deg", 0.0, r"must be in \(0, 90\], got 0.0"),
        ("visible_angle_deg", 120.0, r"must be in \(0, 90\], got 120.0"),
        ("learning_rate", 0.0, "must be positive, got 0"),
    ],
)
def test_bad_values_are_named(name: str, value: Any, message: str) -> None:
    # Not through the constructor: in these tests its types are checked, which users do not have.
    config = FitConfig()
    object.__setattr__(config, name, value)
    with pytest.raises(InputError, match=rf"FitConfig\.{name} {message}"):
        config.__post_init__()


def test_the_constructor_checks() -> None:
    with pytest.raises(InputError, match=r"FitConfig\.batch_size"):
        FitConfig(batch_size=0)


def test_good_values_are_kept() -> None:
    config = FitConfig(visible_depth_m=-1.0, seed=-5, step_size_drops=0, temporal_window=1, tolerance=0.0)
    assert (config.visible_depth_m, config.seed, config.temporal_window) == (-1.0, -5, 1)
    with pytest.raises(FrozenInstanceError):
        config.seed = 3  # type: ignore[misc]


def test_every_term_has_its_weight() -> None:
    config = FitConfig(
        landmark_weight=1.5, temporal_weight=2.5, multiview_weight=3.5,
        identity_prior_weight=4.5, expression_prior_weight=5.5,
    )  # fmt: skip
    assert config.term_weights() == {
        "landmark": 1.5,
        "temporal": 2.5,
        "multiview": 3.5,
        "identity_prior": 4.5,
        "expression_prior": 5.5,
    }
