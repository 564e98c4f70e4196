"""The study as a whole: its plan, what is kept, its tables and its command."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from small_evidence import scores

from neuface.errors import InputError
from neuface.models import FaceModel
from studies.common.kept_runs import kept_in
from studies.common.runs import Run
from studies.neural_versus_direct.report import markdown, summarise, tables
from studies.neural_versus_direct.study import (
    FAST,
    CaseResult,
    ComparisonSettings,
    Study,
    case_from_json,
    run_study,
)
from studies.neural_versus_direct.variants import VARIANT_TITLES, Trial

TINY = replace(
    FAST,
    clips=1,
    tuning_clips=1,
    frames=4,
    size_px=96,
    free_rates=(1e-2,),
    neural_rates=(1e-4,),
    max_passes=1,
)


def result(name: str, group: str, by_variant: dict[str, dict[str, float]]) -> CaseResult:
    runs = tuple(
        Run(
            clip=name,
            group=group,
            variant=variant,
            scores=scores(**by_variant[variant]),
            frames=16,
            views=1,
            passes=None if variant == "encoder" else 100,
            seconds=None if variant == "encoder" else 2.0,
            stop_reason=None if variant == "encoder" else "converged",
            start_loss=None if variant == "encoder" else 0.02,
            least_loss=0.01,
        )
        for variant in VARIANT_TITLES
    )
    return CaseResult(name=name, group=group, runs=runs, true_msi3d_vertices=9.0)


def three_cases() -> tuple[CaseResult, ...]:
    def variants(free: float, neural: float, stability: float) -> dict[str, dict[str, float]]:
        return {
            "encoder": {"mpve_mm": 5.0, "msi3d_vertices": 0.1},
            "free": {"mpve_mm": free, "msi3d_vertices": 1.0},
            "bounded": {"mpve_mm": free, "msi3d_vertices": 1.0},
            "neural": {"mpve_mm": neural, "msi3d_vertices": stability},
        }

    return (
        result("a", "synthetic_1view", variants(2.0, 1.0, 3.0)),
        result("b", "synthetic_1view", variants(2.0, 2.5, 3.0)),
        result("c", "synthetic_3views", variants(3.0, 3.0, 0.5)),
    )


def study() -> Study:
    trials = tuple(
        Trial(
            variant=variant,
            learning_rate=rate,
            start_loss=1.0,
            final_loss=rate,
            passes=7,
            stop_reason="converged",
        )
        for variant, rates in ComparisonSettings().grids().items()
        for rate in rates
    )
    return Study(
        settings=ComparisonSettings(),
        encoder_hash="e" * 64,
        head_hash="h" * 64,
        scan_hash=None,
        threads=2,
        trials=trials,
        learning_rates={"free": 0.01, "bounded": 0.01, "neural": 3e-4},
        cases=three_cases(),
    )


# --- The plan


def test_the_default_plan() -> None:
    settings = ComparisonSettings()
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
def test_impossible_plans_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(ComparisonSettings(), **changes)


# --- Running and keeping


def test_a_study_is_resumed(model: FaceModel, tmp_path: Path) -> None:
    keep = kept_in(tmp_path)
    made: list[str] = []

    def watched(name: str, key: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        def counted() -> dict[str, Any]:
            made.append(name)
            return make()

        return keep(name, key, counted)

    first = run_study(TINY, model, keep=watched, progress=False)
    assert made == ["tuning_synthetic_1view_00", "test_synthetic_1view_00"]
    assert first.learning_rates == {"free": 1e-2, "bounded": 1e-2, "neural": 1e-4}
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


def test_another_key_is_made_again(tmp_path: Path) -> None:
    keep = kept_in(tmp_path)
    assert keep("a", {"encoder": "1", "rates": (0.1,)}, lambda: {"x": 1}) == {"x": 1}
    assert keep("a", {"encoder": "1", "rates": (0.1,)}, lambda: {"x": 2}) == {"x": 1}
    assert keep("a", {"encoder": "2", "rates": (0.1,)}, lambda: {"x": 3}) == {"x": 3}


def test_results_survive_json() -> None:
    for case in three_cases():
        assert case_from_json(json.loads(json.dumps(asdict(case)))) == case


# --- Tables


def test_summaries_equal_those_computed_by_hand() -> None:
    summaries = {item.group: item for item in summarise(three_cases())}
    assert list(summaries) == ["synthetic_1view", "synthetic_3views", "synthetic"]
    single, everyone = summaries["synthetic_1view"], summaries["synthetic"]
    assert (single.clips, everyone.clips) == (2, 3)
    assert single.means["neural"]["mpve_mm"] == pytest.approx(1.75)
    assert everyone.means["free"]["mpve_mm"] == pytest.approx(7 / 3)
    assert everyone.means["free"]["scan_mm"] is None
    contest = everyone.contests["free"]["mpve_mm"]
    # Differences -1, 0.5 and 0: better once, and a tie is not better. Their spread is 0.7638, of the mean 0.4410.
    assert (contest.better, contest.clips) == (1, 3)
    assert contest.mean_difference == pytest.approx(-1 / 6)
    assert contest.standard_error == pytest.approx(0.44096, rel=1e-4)
    # More stability is better.
    assert everyone.contests["free"]["msi3d_vertices"].better == 2
    assert "scan_mm" not in everyone.contests["free"]
    assert summaries["synthetic_3views"].contests["free"]["mpve_mm"].standard_error is None


def test_the_report_has_the_findings() -> None:
    text = markdown(study())
    assert "## Rendered people, one camera, clean (2 clips)" in text
    assert "## Rendered people, three cameras, clean (1 clip)" in text
    assert "| neural | 1.75 |" in text
    assert "| neural better than free parameters | 1/2 |" in text
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
