"""Means, verdicts and orderings of a study whose numbers are known by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from small_evidence import ALL_ABSENT, PEOPLE, REAL, four_camera_runs, held_out_runs, small_evidence

from studies.benchmark.aggregate import (
    cvd_per_view,
    group_mean,
    groups_of,
    held_out_rows,
    identity_spread_curve,
    paired_means,
    true_stability_of,
)
from studies.benchmark.paper_claims import Ordering, count_orderings, orderings
from studies.benchmark.records import Evidence
from studies.benchmark.requirements import Verdict, verdicts
from studies.benchmark.tables import left_out, summary, tables
from studies.common.metrics import GROUP_TITLES, mean_of


@pytest.fixture
def evidence() -> Evidence:
    return small_evidence()


@pytest.fixture
def with_session(evidence: Evidence) -> Evidence:
    return replace(evidence, runs=(*evidence.runs, *four_camera_runs()), held_out=held_out_runs())


def empty(evidence: Evidence) -> Evidence:
    return replace(evidence, runs=(), true_msi3d_vertices={})


# --- Means


def test_means_are_over_the_clips_that_have_the_figure(evidence: Evidence) -> None:
    mpve = group_mean(evidence, "encoder", PEOPLE, "mpve_mm")
    assert mpve is not None
    assert (mpve.mean, mpve.clips) == (5, 2)
    assert mpve.stdev == pytest.approx(math.sqrt(2))
    lips = group_mean(evidence, "official", PEOPLE, "lip_opening_error_mm")
    assert lips is not None
    assert (lips.mean, lips.clips, lips.stdev) == (0.9, 1, None)
    assert group_mean(evidence, "paper", REAL, "mpve_mm") is None
    assert group_mean(evidence, "official", REAL, "nme_percent") is None
    assert true_stability_of(evidence, PEOPLE) == mean_of([3.0, 5.0])
    assert true_stability_of(evidence, REAL) is None


def test_values_that_are_not_finite_are_missing() -> None:
    assert mean_of([float("nan"), float("inf"), None]) is None
    found = mean_of([float("nan"), 2.0])
    assert found is not None
    assert (found.mean, found.clips) == (2.0, 1)


def test_arms_are_compared_on_the_clips_that_both_have(evidence: Evidence) -> None:
    # best() has 0.8 and 1.2, official() 0.9 on the first clip alone.
    pair = paired_means(evidence, ("best", "official"), PEOPLE, "lip_opening_error_mm")
    assert pair == {"best": 0.8, "official": 0.9}
    assert paired_means(evidence, ("best", "official"), REAL, "nme_percent") is None


def test_views_and_passes_are_averaged_over_clips(evidence: Evidence) -> None:
    views = cvd_per_view(evidence, "paper", PEOPLE)
    assert [view and (view.mean, view.clips) for view in views] == [(2, 2), (2, 2), (3, 1)]
    assert cvd_per_view(evidence, "best", PEOPLE) == ()
    # The shorter clip keeps its last value: (0.4 + 0.6) / 2, (0.2 + 0.4) / 2, (0.2 + 0.2) / 2.
    assert identity_spread_curve(evidence, "paper", PEOPLE) == pytest.approx((0.5, 0.3, 0.2))
    assert identity_spread_curve(evidence, "best", PEOPLE) == ()


def test_groups_have_the_order_of_the_report_with_unknown_ones_last(evidence: Evidence) -> None:
    other = replace(evidence.runs[0], group="other")
    shuffled = replace(evidence, runs=(other, *reversed(evidence.runs)))
    assert groups_of(shuffled) == (PEOPLE, REAL, "other")


def test_held_out_means_leave_out_views_without_an_error(with_session: Evidence) -> None:
    encoder, best = held_out_rows(with_session)
    assert (encoder.mean_percent, best.mean_percent) == (5.0, 3.0)
    assert best.mean_head_percent == 1.0


# --- Tables


def test_the_tables_are_plain_json_with_every_mean(evidence: Evidence) -> None:
    found = json.loads(json.dumps(tables(evidence), allow_nan=False))
    main = found["tables"]["main"]
    assert list(main) == [PEOPLE, REAL]
    assert main[PEOPLE]["clips"] == 2
    assert list(main[PEOPLE]["rows"]) == [
        "encoder", "direct", "paper", "official", "official_fast", "neural", "best",
    ]  # fmt: skip
    assert list(main[REAL]["rows"]) == ["encoder", "direct", "paper", "official_fast", "neural", "best"]
    assert main[PEOPLE]["rows"]["best"]["means"]["mpve_mm"] == {
        "mean": 1.0,
        "clips": 2,
        "stdev": pytest.approx(math.sqrt(0.5)),
    }
    assert main[PEOPLE]["rows"]["official_fast"]["means"]["cvd_mm"] is None
    # A figure that no variant has is no column.
    assert "scan_mm" not in main[PEOPLE]["rows"]["best"]["means"]
    assert main[PEOPLE]["true_msi3d_vertices"]["mean"] == 4
    # Ablations only where their own variants were run, though paper() and best() were run on the real clip.
    for name, variants in {
        "S1": ["encoder", "only_landmarks", "with_multiview", "with_temporal", "paper"],
        "S2": ["paper", "paper_median", "best"],
        "S3a": ["paper", "paper_photo2", "paper_photo5"],
    }.items():
        assert list(found["tables"][name]) == [PEOPLE]
        assert list(found["tables"][name][PEOPLE]["rows"]) == variants
    assert found["identity_spread"] == {PEOPLE: {"paper": pytest.approx([0.5, 0.3, 0.2])}}
    assert list(found["cvd_per_view_mm"][PEOPLE]) == ["paper"]
    assert {item["clip"] for item in found["runs"]} == {"a", "b", "r"}
    assert found["metrics"]["mpve_mm"] == {"title": "MPVE, rigid", "unit": "mm", "better": "less"}


def test_the_summary_takes_groups_that_every_variant_name_has(evidence: Evidence) -> None:
    columns = {column.metric: column for column in summary(evidence)}
    assert columns["mpve_mm"].groups == (PEOPLE,)
    assert columns["mpve_mm"].means["best"] == 1.0
    # official() was not run on the real clip, official_fast has no NME on the people: no group has all variants.
    assert "nme_percent" not in columns
    without = replace(
        evidence, runs=tuple(run for run in evidence.runs if not run.variant.startswith("official"))
    )
    nme = next(column for column in summary(without) if column.metric == "nme_percent")
    assert nme.groups == (PEOPLE, REAL)
    assert nme.means["best"] == pytest.approx((1.6 + 2.0) / 2)
    assert summary(empty(evidence)) == ()


def test_every_absent_group_and_table_has_its_line(evidence: Evidence) -> None:
    lines = left_out(evidence)
    for group in ALL_ABSENT:
        assert f"{GROUP_TITLES[group]}: left out, no clip of this group was run." in lines
    assert not any(line.startswith(GROUP_TITLES[PEOPLE]) for line in lines)
    assert f"{GROUP_TITLES[REAL]}: not run: official()." in lines
    assert any(line.startswith("Held-out-view error: left out") for line in lines)
    assert not any("Table S" in line for line in lines)
    nothing = left_out(empty(evidence))
    for name in ("Table S1", "Table S2", "Table S3a", "Table S3b", "Table 2", "Fig. 4"):
        assert any(name in line for line in nothing), name


# --- Verdicts


def verdict(found: tuple[Verdict, ...], group: str, metric: str, rival: str | None) -> Verdict:
    return next(item for item in found if (item.group, item.metric, item.rival) == (group, metric, rival))


@pytest.mark.parametrize(
    ("metric", "rival", "best", "other", "status"),
    [
        ("mpve_mm", "paper", 1.0, 3.0, "met"),
        ("mpve_mm", "official", 1.0, 4.0, "met"),
        ("cvd_mm", "paper", 0.4, 0.5, "met"),
        # Equal is no worse.
        ("cvd_mm", "official", 0.4, 0.4, "met"),
        ("nme_percent", "paper", 1.6, 1.5, "not met"),
        ("nme_percent", "official", 1.6, 2.0, "met"),
        # 1.5 times is enough; better is not.
        ("msi3d_vertices", "paper", 3.0, 2.0, "met"),
        ("msi3d_vertices", "official", 3.0, 4.0, "not met"),
        ("angular_velocity_error_deg", "paper", 0.25, 0.3, "met"),
        ("angular_velocity_error_deg", "official", 0.25, 0.2, "not met"),
        ("lip_opening_error_mm", "paper", 1.0, 1.0, "met"),
        ("lip_opening_error_mm", "official", 0.8, 0.9, "met"),
    ],
)
def test_verdicts_against_rivals(
    evidence: Evidence, metric: str, rival: str, best: float, other: float, status: str
) -> None:
    found = verdict(verdicts(evidence), PEOPLE, metric, rival)
    assert (found.best, found.other) == (pytest.approx(best), pytest.approx(other))
    assert found.difference == pytest.approx(best - other)
    assert found.ratio == pytest.approx(best / other)
    assert found.status == status


def test_a_gain_of_stability_below_the_required_one_fails(evidence: Evidence) -> None:
    runs = tuple(
        replace(run, scores=replace(run.scores, msi3d_vertices=2.9)) if run.variant == "best" else run
        for run in evidence.runs
    )
    found = verdict(verdicts(replace(evidence, runs=runs)), PEOPLE, "msi3d_vertices", "paper")
    assert found.status == "not met"


def test_a_metric_that_both_lack_is_not_required_and_one_that_either_lacks_is_not_measured(
    evidence: Evidence,
) -> None:
    found = verdicts(evidence)
    real = {(item.metric, item.rival): item.status for item in found if item.group == REAL}
    assert real == {("nme_percent", "paper"): "met", ("nme_percent", "official"): "not measured"}
    assert not any(item.metric == "scan_mm" for item in found if item.rival)


def test_fixed_targets_are_always_listed(evidence: Evidence, with_session: Evidence) -> None:
    found = verdicts(evidence)
    targets = {(item.group, item.metric): item for item in found if item.rival is None}
    assert {key: item.other for key, item in targets.items()} == {
        ("synthetic_1view", "mpve_mm"): 1.5,
        (PEOPLE, "mpve_mm"): 1.0,
        ("four_cameras", "landmarks_3d_median_mm"): 4.0,
        ("four_cameras", "held_out_nme51_percent"): 3.0,
        ("scan_1view", "scan_mm"): 1.5,
        ("scan_3views", "scan_mm"): 1.5,
    }
    assert targets[PEOPLE, "mpve_mm"].status == "met"
    assert [item.status for item in targets.values()].count("not measured") == 5

    found = verdicts(with_session)
    landmarks = verdict(found, "four_cameras", "landmarks_3d_median_mm", None)
    assert (landmarks.best, landmarks.difference, landmarks.status) == (4.5, 0.5, "not met")
    held_out = verdict(found, "four_cameras", "held_out_nme51_percent", None)
    assert (held_out.best, held_out.status) == (3.0, "met")


# --- Orderings


def holds(found: tuple[Ordering, ...], claim: str, group: str = PEOPLE) -> dict[str, bool]:
    return next(item.holds for item in found if (item.claim, item.group) == (claim, group))


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        # As steady as direct fitting is not steadier.
        ("msi3d_vertices_against_direct", {"paper": False, "official": True, "best": True}),
        ("msi3d_vertices_against_encoder", {"paper": True, "official": True, "best": True}),
        ("cvd_mm_against_direct", {"paper": True, "official": True, "best": True}),
        ("nme_percent_against_direct", {"paper": False, "official": False, "best": False}),
        ("nme_percent_against_encoder", {"paper": True, "official": True, "best": True}),
        ("mpve_mm_against_direct", {"paper": False, "official": False, "best": True}),
        ("mpve_mm_against_encoder", {"paper": True, "official": True, "best": True}),
        ("direct_msi3d", {"direct": True}),
        ("landmarks_only_cvd", {"only_landmarks": True}),
        ("landmarks_only_msi3d", {"only_landmarks": True}),
        ("multiview_cvd", {"with_multiview": True}),
        # 1.40 and 1.45 are alike, 1.4 and 1.5 are not.
        ("multiview_nme", {"with_multiview": True, "paper": False}),
        ("temporal_cvd", {"with_temporal": False}),
        ("everything_cvd", {"paper": True}),
        ("everything_msi3d", {"paper": True}),
        ("temporal_msi3d", {"with_temporal": True}),
        # 0.50 and 0.52 are alike, 1.5 and 1.7 are not.
        ("median_cvd_mm", {"paper_median": True}),
        ("median_nme_percent", {"paper_median": False}),
        ("photometric_cvd_mm", {"paper_photo2": True, "paper_photo5": True}),
        ("photometric_msi3d_vertices", {"paper_photo2": True, "paper_photo5": False}),
        ("photometric_nme_percent", {"paper_photo2": False, "paper_photo5": True}),
        ("identity_spread", {"paper": True}),
    ],
)
def test_orderings_of_the_paper(evidence: Evidence, claim: str, expected: dict[str, bool]) -> None:
    assert holds(orderings(evidence), claim) == expected


def test_orderings_have_their_figures_and_skip_what_was_not_run(evidence: Evidence) -> None:
    found = orderings(evidence)
    figures = next(item.figures for item in found if item.claim == "mpve_mm_against_direct")
    assert figures == {"direct": 3, "paper": 3, "official": 4, "best": 1}
    assert holds(found, "nme_percent_against_direct", REAL) == {"paper": True, "best": True}
    assert {item.claim for item in found if item.group == REAL} == {
        "nme_percent_against_direct",
        "nme_percent_against_encoder",
    }
    assert orderings(empty(evidence)) == ()


def test_a_growing_spread_is_reported(evidence: Evidence) -> None:
    runs = tuple(replace(run, identity_spread=tuple(reversed(run.identity_spread))) for run in evidence.runs)
    assert holds(orderings(replace(evidence, runs=runs)), "identity_spread") == {"paper": False}


def test_claims_are_counted_over_groups(evidence: Evidence) -> None:
    counts = {
        (item.claim, item.variant): (item.holds, item.groups) for item in count_orderings(orderings(evidence))
    }
    assert counts["nme_percent_against_direct", "paper"] == (1, 2)
    assert counts["nme_percent_against_direct", "official"] == (0, 1)
    assert counts["landmarks_only_cvd", "only_landmarks"] == (1, 1)
