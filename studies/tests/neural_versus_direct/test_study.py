"""The study as a whole: its plan, what is kept, its tables and its command."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from neuface.errors import InputError
from neuface.models import FaceModel
from studies.common.scores import Scores
from studies.neural_versus_direct.arms import ARMS, ArmRow, Trial
from studies.neural_versus_direct.report import markdown, summarise, tables
from studies.neural_versus_direct.study import (
    FAST,
    CaseResult,
    Study,
    StudySettings,
    case_from_json,
    run_study,
)

SCRIPT = Path(__file__).parents[2] / "examples" / "neural_versus_direct.py"
TINY = replace(
    FAST,
    clips=1,
    tuning_clips=1,
    frames=4,
    size_px=96,
    direct_rates=(1e-2,),
    neural_rates=(1e-4,),
    max_passes=1,
)


def scores(**known: float) -> Scores:
    empty: dict[str, Any] = dict.fromkeys(Scores.__dataclass_fields__)
    return Scores(**{**empty, "expression_outside_percent": 0.0, **known})


def result(name: str, group: str, by_arm: dict[str, dict[str, float]]) -> CaseResult:
    rows = tuple(
        ArmRow(
            arm=arm,
            scores=scores(**by_arm[arm]),
            learning_rate=None if arm == "encoder" else 0.01,
            passes=None if arm == "encoder" else 100,
            seconds=None if arm == "encoder" else 2.0,
            stop_reason=None if arm == "encoder" else "converged",
            final_loss=0.01,
        )
        for arm in ARMS
    )
    return CaseResult(name=name, group=group, rows=rows, true_msi3d_vertices=9.0)


def three_cases() -> tuple[CaseResult, ...]:
    def arms(direct: float, neural: float, stability: float) -> dict[str, dict[str, float]]:
        return {
            "encoder": {"mpve_mm": 5.0, "msi3d_vertices": 0.1},
            "direct": {"mpve_mm": direct, "msi3d_vertices": 1.0},
            "bounded": {"mpve_mm": direct, "msi3d_vertices": 1.0},
            "neural": {"mpve_mm": neural, "msi3d_vertices": stability},
        }

    return (
        result("a", "synthetic_1view", arms(2.0, 1.0, 3.0)),
        result("b", "synthetic_1view", arms(2.0, 2.5, 3.0)),
        result("c", "synthetic_3views", arms(3.0, 3.0, 0.5)),
    )


def study() -> Study:
    trials = tuple(
        Trial(arm=arm, learning_rate=rate, start_loss=1.0, final_loss=rate, passes=7, stop_reason="converged")
        for arm, rates in StudySettings().grids().items()
        for rate in rates
    )
    return Study(
        settings=StudySettings(),
        encoder_hash="e" * 64,
        head_hash="h" * 64,
        scan_hash=None,
        threads=2,
        trials=trials,
        learning_rates={"direct": 0.01, "bounded": 0.01, "neural": 3e-4},
        cases=three_cases(),
    )


# --- The plan


def test_the_default_plan() -> None:
    settings = StudySettings()
    specs = settings.test_specs(with_scan=True)
    assert [sum(spec.group == group for spec in specs) for group in (
        "synthetic_1view", "synthetic_3views", "scan_1view", "scan_3views",
    )] == [10, 10, 2, 2]  # fmt: skip
    assert len({spec.person_seed for spec in specs if spec.kind == "synthetic"}) == 20
    assert {spec.views for spec in settings.tuning_specs()} == {1, 3}
    assert not {spec.person_seed for spec in specs} & {spec.person_seed for spec in settings.tuning_specs()}
    assert all(spec.kind == "synthetic" for spec in settings.test_specs(with_scan=False))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clips": -1}, "clips must be at least 0"),
        ({"tuning_clips": 0}, "tuning_clips must be at least 1"),
        ({"neural_rates": ()}, "neural_rates must name at least one"),
        ({"frames": 65}, "65 images does not fit the batch of 64"),
        ({"frames_of_three": 22}, "66 images does not fit the batch of 64"),
    ],
)
def test_plans_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(StudySettings(), **changes)


# --- Running and keeping


@pytest.fixture(scope="module")
def script() -> ModuleType:
    specification = importlib.util.spec_from_file_location("neural_versus_direct", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    # Dataclasses look up their module by its name.
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


def test_a_study_is_resumed(model: FaceModel, script: ModuleType, tmp_path: Path) -> None:
    keep = script.kept_in(tmp_path)
    made: list[str] = []

    def watched(name: str, key: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        def counted() -> dict[str, Any]:
            made.append(name)
            return make()

        return keep(name, key, counted)

    first = run_study(TINY, model, keep=watched, progress=False)
    assert made == ["tuning_synthetic_1view_00", "test_synthetic_1view_00"]
    assert first.learning_rates == {"direct": 1e-2, "bounded": 1e-2, "neural": 1e-4}
    made.clear()
    again = run_study(TINY, model, keep=watched, progress=False)
    assert made == []
    assert again == first
    # A file that was cut short is made again, and so is a clip whose settings have changed.
    (tmp_path / "test_synthetic_1view_00.json").write_text('{"key":')
    run_study(TINY, model, keep=watched, progress=False)
    assert made == ["test_synthetic_1view_00"]
    made.clear()
    run_study(replace(TINY, neural_rates=(2e-4,)), model, keep=watched, progress=False)
    assert made == ["tuning_synthetic_1view_00", "test_synthetic_1view_00"]


def test_other_weights_are_another_study(script: ModuleType, tmp_path: Path) -> None:
    keep = script.kept_in(tmp_path)
    assert keep("a", {"encoder": "1", "rates": (0.1,)}, lambda: {"x": 1}) == {"x": 1}
    assert keep("a", {"encoder": "1", "rates": (0.1,)}, lambda: {"x": 2}) == {"x": 1}
    assert keep("a", {"encoder": "2", "rates": (0.1,)}, lambda: {"x": 3}) == {"x": 3}


def test_results_survive_json() -> None:
    for case in three_cases():
        assert case_from_json(json.loads(json.dumps(asdict(case)))) == case


# --- Tables


def test_summaries_by_hand() -> None:
    summaries = {item.group: item for item in summarise(three_cases())}
    assert list(summaries) == ["synthetic_1view", "synthetic_3views", "synthetic"]
    single, everyone = summaries["synthetic_1view"], summaries["synthetic"]
    assert (single.clips, everyone.clips) == (2, 3)
    assert single.means["neural"]["mpve_mm"] == pytest.approx(1.75)
    assert everyone.means["direct"]["mpve_mm"] == pytest.approx(7 / 3)
    assert everyone.means["direct"]["scan_mm"] is None
    contest = everyone.contests["direct"]["mpve_mm"]
    # Differences -1, 0.5 and 0: better once, and a tie is not better. Their spread is 0.7638, of the mean 0.4410.
    assert (contest.better, contest.clips) == (1, 3)
    assert contest.mean_difference == pytest.approx(-1 / 6)
    assert contest.standard_error == pytest.approx(0.44096, rel=1e-4)
    # More stability is better.
    assert everyone.contests["direct"]["msi3d_vertices"].better == 2
    assert "scan_mm" not in everyone.contests["direct"]
    assert summaries["synthetic_3views"].contests["direct"]["mpve_mm"].standard_error is None


def test_the_report_says_what_was_found() -> None:
    text = markdown(study())
    assert "## Rendered people, one camera (2 clips)" in text
    assert "## Rendered people, three cameras (1 clip)" in text
    assert "| neural | 1.75 |" in text
    assert "| neural better than direct | 1/2 |" in text
    assert "CVD" not in text  # no clip has one
    assert "**0.01**" in text
    assert "At the edge of the rates that were tried: neural." in text
    assert "neural: converged 3" in text
    lines = [line for line in text.splitlines() if line.startswith("| neural")]
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|") and "MPVE" in line}
    assert {line.count("|") for line in lines if "minus" in line or "better" in line} == widths


def test_tables_are_json() -> None:
    found = json.loads(json.dumps(tables(study()), allow_nan=False))
    assert found["summaries"][0]["means"]["neural"]["mpve_mm"] == pytest.approx(1.75)
    assert found["settings"]["clips"] == 20
    assert len(found["cases"]) == 3
