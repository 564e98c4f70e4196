"""Dataclasses as JSON values: a choice between classes survives, and a file cannot choose what is constructed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from neuface.errors import InputError
from neuface.fitting.config import PRESETS, FitConfig, Preset
from neuface.io.results.plain_values import as_plain, from_plain


@dataclass(frozen=True, kw_only=True)
class Mean:
    frames: int = 7


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    sigma: float = 1.5


@dataclass(frozen=True, kw_only=True)
class Settings:
    smoother: Mean | Gaussian | None = None
    stages: tuple[Mean | Gaussian, ...] = ()
    names: tuple[str, ...] = ()
    rate: float = 0.1


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(as_plain(value)))


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(smoother=Gaussian(sigma=2)),
        Settings(smoother=Mean(frames=3), stages=(Mean(), Gaussian(), Mean(frames=1)), names=("a", "b")),
    ],
)
def test_nested_choices_survive(settings: Settings) -> None:
    assert from_plain(Settings, through_json(settings)) == settings


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_survives(preset: Preset) -> None:
    config = PRESETS[preset]
    assert from_plain(FitConfig, through_json(config)) == config


def test_only_classes_that_the_field_allows_are_constructed() -> None:
    plain = through_json(Settings(smoother=Mean()))
    for kind in ("Settings", "dict", "os.system", None):
        plain["smoother"]["kind"] = kind
        with pytest.raises(InputError, match=r"Settings\.smoother is of the kind"):
            from_plain(Settings, plain)


def test_other_fields_are_refused() -> None:
    with pytest.raises(InputError, match="other fields than in this version of neuface: speed"):
        from_plain(Settings, {**through_json(Settings()), "speed": 1})
