"""What a configuration refuses, in words."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from neuface import losses
from neuface.errors import InputError
from neuface.fitting.config import PRESETS, FitConfig, Preset
from neuface.geometry.rotations import rotvec_to_quaternion, toward_hemisphere


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("landmark_weight", -1.0, "must not be negative, got -1.0"),
        ("temporal_weight", "2", "must be a number, got '2'"),
        ("multiview_weight", None, "must be a number, got None"),
        ("identity_prior_weight", True, "must be a number, got True"),
        ("tolerance", math.nan, "must be finite, got nan"),
        ("learning_rate", math.inf, "must be finite, got inf"),
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
        ("tolerance", 2.0, "is a share and must be below 1, got 2.0"),
        ("seed", 2**64, r"must be at most 2\*\*63 - 1 in size, got 18446744073709551616"),
        ("landmark_weight", 10**400, r"must be at most 2\*\*63 - 1 in size, got 1000"),
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
    """Every field that ends in `_weight` is that of the term of its name."""
    names = [item.name for item in fields(FitConfig) if item.name.endswith("_weight")]
    values: dict[str, Any] = {name: 0.5 + number for number, name in enumerate(names)}
    assert len(names) == 11
    expected = {name.removesuffix("_weight"): value for name, value in values.items()}
    assert FitConfig(**values).term_weights() == expected


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("parameters", "weights", "must be one of 'network', 'free', got 'weights'"),
        ("smoother", "average", "must be one of 'mean', 'median', .*, got 'average'"),
        ("hold_size", 1, "must be True or False, got 1"),
        ("keep", None, "must be one of 'best', 'last', got None"),
        ("chunk_frames", -1, "must not be negative, got -1"),
    ],
)
def test_choices_are_named(name: str, value: Any, message: str) -> None:
    test_bad_values_are_named(name, value, message)


def test_options_that_need_each_other_say_so() -> None:
    with pytest.raises(InputError, match=r"detach_targets=False needs chunk_frames"):
        FitConfig(detach_targets=False)
    with pytest.raises(InputError, match=r"coarse_passes is for parameters='free' only"):
        FitConfig(coarse_passes=5)
    with pytest.raises(InputError, match=r"photometric_weight needs chunk_frames=0"):
        FitConfig(photometric_weight=0.1, chunk_frames=20)


# --- Presets


def test_the_default_is_best() -> None:
    assert FitConfig.best() == FitConfig()


def test_the_paper_has_its_equations_and_nothing_else() -> None:
    config = FitConfig.paper()
    used = {name for name, weight in config.term_weights().items() if weight > 0}
    assert used == {"landmark", "temporal", "multiview"}
    assert (config.temporal_penalty, config.landmark_penalty) == ("norm", "l1")
    assert (config.visible_angle_deg, config.visible_depth_m) == (72.0, -0.08)
    assert (config.identity_per, config.smoother, config.merge) == ("image", "mean", "mean")
    assert config.detach_targets
    assert config.chunk_frames == 0


def test_the_released_settings_are_theirs() -> None:
    """The figures of the authors' configuration file and code."""
    config = FitConfig.official()
    assert (config.learning_rate, config.max_passes, config.chunk_frames) == (2e-5, 100, 20)
    assert math.cos(math.radians(config.visible_angle_deg)) == pytest.approx(0.28)
    assert (config.visible_depth_m, config.visibility) == (-0.08, "angle_or_depth")
    assert (config.smoother, config.merge, config.identity_per) == ("released", "softmax", "first")
    assert (config.detach_targets, config.multiview_sample, config.keep) == (False, 5, "last")
    # Nothing may end it early.
    assert config.patience >= config.max_passes


def test_released_weights_are_those_of_the_released_losses() -> None:
    """The released losses, written as they are, against ours times the weights of the preset."""
    config = FitConfig.official()
    generator = torch.Generator().manual_seed(0)
    views, time = 3, 4

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    # Landmarks: 10 times the mean over points of (|dx| + |dy|) / 2, mean over images.
    points, observed = normal(views * time, 68, 2), normal(views * time, 68, 2)
    released = 10 * (points - observed).abs().sum(-1).mean() / 2
    ours = config.landmark_weight * losses.landmark_loss(points, observed, torch.ones(12, 68).double()).mean()
    torch.testing.assert_close(ours, released)
    # Rotation: 100 times the square, mean over time and the four numbers, sum over views.
    rotvec = normal(views, time, 3)
    target = torch.nn.functional.normalize(normal(views, time, 4), dim=-1)
    quaternion = toward_hemisphere(rotvec_to_quaternion(rotvec), target)
    released = 100 * (quaternion - target).square().mean((1, 2)).sum()
    mean = losses.temporal_loss(rotvec.flatten(0, 1), target.flatten(0, 1), squared=True).mean()
    torch.testing.assert_close(config.temporal_weight * views * mean, released)
    # Meshes: 200 times the mean absolute difference of all coordinates.
    mesh, merged = normal(views * time, 9, 3), normal(views * time, 9, 3)
    released = 200 * torch.nn.functional.l1_loss(mesh, merged)
    torch.testing.assert_close(config.multiview_weight * losses.multiview_loss(mesh, merged).mean(), released)


def test_direct_fitting_differs_from_the_paper_in_what_moves_and_its_regularisers() -> None:
    paper, direct = FitConfig.paper(), FitConfig.direct()
    differing = {
        item.name for item in fields(paper) if getattr(paper, item.name) != getattr(direct, item.name)
    }
    assert differing == {
        "parameters", "coarse_passes", "learning_rate",
        "identity_prior_weight", "expression_prior_weight", "pose_prior_weight", "expected_identity",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["best", "paper", "official", "direct"])
def test_presets_take_changes(name: Preset) -> None:
    changed = getattr(FitConfig, name)(max_passes=7, temporal_window=9)
    assert (changed.max_passes, changed.temporal_window) == (7, 9)
    assert PRESETS[name](max_passes=7, temporal_window=9) == changed
    assert set(PRESETS) == set(get_args(Preset))


def test_the_table_in_the_docs_is_what_the_presets_are() -> None:
    """docs/presets.md sets every field of every preset side by side."""
    text = (Path(__file__).parents[2] / "docs" / "presets.md").read_text(encoding="utf-8")
    rows = [line.strip("| \n").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    told = {row[0].strip("`"): row[1:] for row in rows}
    presets = (FitConfig.paper(), FitConfig.official(), FitConfig.best(), FitConfig.direct())
    assert set(told) == {item.name for item in fields(FitConfig)}
    for name, cells in told.items():
        for cell, config in zip(cells, presets, strict=True):
            value = getattr(config, name)
            if isinstance(value, float):
                assert float(cell) == pytest.approx(value, abs=5e-3 if value > 0.5 else 0), name
            else:
                assert cell == str(value), name
