"""The evidence as tables of plain numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import fmean, geometric_mean
from typing import Any

from studies.benchmark.aggregate import (
    EFFORT,
    GROUP_TITLES,
    METRICS,
    MOTION,
    SHAPE,
    Mean,
    arms_in,
    clips_of,
    cvd_per_view,
    group_mean,
    group_title,
    groups_of,
    held_out_rows,
    identity_spread_course,
    true_stability_of,
)
from studies.benchmark.collect import Evidence
from studies.benchmark.requirements import claim_sources, orderings, verdicts
from studies.benchmark.variants import ENCODER, LOSSES, MAIN, PHOTOMETRIC, SMOOTHERS, Arm, arms_of

_ENCODER_ROW = tuple(arm for arm in MAIN if arm.name == ENCODER)

SUMMARY_METRICS = (
    "mpve_mm",
    "scan_mm",
    "landmarks_3d_median_mm",
    "nme_percent",
    "true_nme_percent",
    "cvd_mm",
    "msi3d_vertices",
    "angular_velocity_error_deg",
    "lip_opening_error_mm",
)


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """Which arms and metrics a table has."""

    name: str
    title: str
    arms: tuple[Arm, ...]
    metrics: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One arm on the clips of a group."""

    arm: str
    title: str
    means: dict[str, Mean | None]
    """By metric."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table on one group."""

    name: str
    group: str
    clips: int
    rows: tuple[Row, ...]
    """Of the arms that were run on the group."""
    metrics: tuple[str, ...]
    """Those of which some arm has a figure."""
    true_msi3d_vertices: Mean | None
    """What a perfect fit has."""


MAIN_TABLE = TableSpec(
    name="main",
    title="All arms",
    arms=MAIN,
    metrics=tuple(metric.name for metric in (*SHAPE, *MOTION, *EFFORT)),
)
ABLATIONS = (
    TableSpec(
        name="S1",
        title="Terms of the objective (Table S1)",
        arms=(*_ENCODER_ROW, *LOSSES),
        metrics=("cvd_mm", "msi3d_landmarks", "msi3d_vertices", "nme_percent", "mpve_mm"),
    ),
    TableSpec(
        name="S2",
        title="Smoothers (Table S2)",
        arms=SMOOTHERS,
        metrics=(
            "cvd_mm",
            "nme_percent",
            "msi3d_vertices",
            "angular_velocity_error_deg",
            "turning_kept",
            "lip_opening_error_mm",
            "lip_motion_kept",
        ),
    ),
    TableSpec(
        name="S3a",
        title="The photometric term (Table S3a)",
        arms=PHOTOMETRIC,
        metrics=("cvd_mm", "msi3d_landmarks", "msi3d_vertices", "nme_percent", "mpve_mm"),
    ),
)
TABLES = (MAIN_TABLE, *ABLATIONS)


def table(evidence: Evidence, spec: TableSpec, group: str) -> Table | None:
    """One table on one group; None where none of its own arms was run, those of the main table aside."""
    run = arms_in(evidence, group)
    main = {arm.name for arm in MAIN}
    own = [arm for arm in spec.arms if spec is MAIN_TABLE or arm.name not in main]
    if not any(arm.name in run for arm in own):
        return None
    rows = tuple(
        Row(
            arm=arm.name,
            title=arm.title,
            means={metric: group_mean(evidence, arm.name, group, metric) for metric in spec.metrics},
        )
        for arm in spec.arms
        if arm.name in run
    )
    return Table(
        name=spec.name,
        group=group,
        clips=len(clips_of(evidence, group)),
        rows=rows,
        metrics=tuple(
            metric for metric in spec.metrics if any(row.means[metric] is not None for row in rows)
        ),
        true_msi3d_vertices=true_stability_of(evidence, group),
    )


def tables_of(evidence: Evidence, spec: TableSpec) -> tuple[Table, ...]:
    """One table on every group that has it."""
    found = (table(evidence, spec, group) for group in groups_of(evidence))
    return tuple(item for item in found if item is not None)


@dataclass(frozen=True, kw_only=True)
class SummaryColumn:
    """One figure of every arm, mean over groups; each group counts the same."""

    metric: str
    groups: tuple[str, ...]
    """Those on which every arm has the figure that has it anywhere."""
    means: dict[str, float]
    """By arm. Geometric for MSI3D, whose size differs tenfold between groups."""


def summary(evidence: Evidence) -> tuple[SummaryColumn, ...]:
    """One row per main arm over all groups, in a few figures; without those that no arm has."""
    groups = groups_of(evidence)
    columns = []
    for metric in SUMMARY_METRICS:
        cells = {
            (arm.name, group): mean.mean
            for arm in MAIN
            for group in groups
            if (mean := group_mean(evidence, arm.name, group, metric)) is not None
        }
        arms = [arm.name for arm in MAIN if any((arm.name, group) in cells for group in groups)]
        common = tuple(group for group in groups if arms and all((arm, group) in cells for arm in arms))
        if common:
            over = geometric_mean if metric.startswith("msi3d") else fmean
            means = {arm: over([cells[arm, group] for group in common]) for arm in arms}
            columns.append(SummaryColumn(metric=metric, groups=common, means=means))
    return tuple(columns)


def left_out(evidence: Evidence) -> tuple[str, ...]:
    """One line for everything that a full study has and this one has not."""
    groups = groups_of(evidence)
    lines = [
        f"{title}: left out, no clip of this group was run."
        for group, title in GROUP_TITLES.items()
        if group not in groups
    ]
    lines += [
        f"{spec.title}: left out, its arms were not run."
        for spec in ABLATIONS
        if not tables_of(evidence, spec)
    ]
    if not any(identity_spread_course(evidence, arm.name, group) for arm in MAIN for group in groups):
        lines.append("Identity spread over passes (Table S3b): left out, no fit recorded it.")
    if not evidence.held_out:
        lines.append("Held-out-view error: left out, no fit without a camera was run.")
    for group in groups:
        if missing := _main_arms_missing(evidence, group):
            lines.append(f"{group_title(group)}: not run: {', '.join(missing)}.")
    judged = {item.source for item in orderings(evidence)}
    lines += [
        f"Orderings of {source}: left out, no group has the arms and figures for them."
        for source in claim_sources()
        if source not in judged
    ]
    return tuple(lines)


def tables(evidence: Evidence) -> dict[str, Any]:
    """The evidence, its tables, verdicts and orderings as one JSON-able object.

    `tables[name][group]` has `clips` and `rows[arm].means[metric]`, each with the mean, the number of clips and, for
    several, the standard deviation between them; `metrics` tells their units and which values are better.
    """
    groups = groups_of(evidence)
    every_arm = [arm.name for arm in arms_of((MAIN, LOSSES, SMOOTHERS, PHOTOMETRIC))]
    return {
        **asdict(evidence),
        "metrics": {
            metric.name: {"title": metric.title, "unit": metric.unit, "better": metric.better}
            for metric in METRICS.values()
        },
        "summary": [asdict(column) for column in summary(evidence)],
        "tables": {
            spec.name: {item.group: _plain_table(item) for item in tables_of(evidence, spec)}
            for spec in TABLES
        },
        "identity_spread": _by_group(
            {
                group: {arm: list(identity_spread_course(evidence, arm, group)) for arm in every_arm}
                for group in groups
            }
        ),
        "mpve_mm": _by_group(
            {
                group: {arm.name: _plain(group_mean(evidence, arm.name, group, "mpve_mm")) for arm in MAIN}
                for group in groups
            }
        ),
        "cvd_per_view_mm": _by_group(
            {
                group: {arm.name: [*map(_plain, cvd_per_view(evidence, arm.name, group))] for arm in MAIN}
                for group in groups
            }
        ),
        "landmarks_3d_median_mm": _by_group(
            {
                group: {
                    arm.name: _plain(group_mean(evidence, arm.name, group, "landmarks_3d_median_mm"))
                    for arm in MAIN
                }
                for group in groups
            }
        ),
        "held_out_views": [asdict(row) for row in held_out_rows(evidence)],
        "verdicts": [asdict(item) for item in verdicts(evidence)],
        "orderings": [asdict(item) for item in orderings(evidence)],
        "left_out": list(left_out(evidence)),
    }


def _main_arms_missing(evidence: Evidence, group: str) -> list[str]:
    run = arms_in(evidence, group)
    return [arm.title for arm in MAIN if arm.name not in run]


def _by_group(values: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Without what is empty."""
    kept = {group: {arm: value for arm, value in arms.items() if value} for group, arms in values.items()}
    return {group: arms for group, arms in kept.items() if arms}


def _plain(mean: Mean | None) -> dict[str, Any] | None:
    return None if mean is None else asdict(mean)


def _plain_table(item: Table) -> dict[str, Any]:
    return {
        "clips": item.clips,
        "true_msi3d_vertices": _plain(item.true_msi3d_vertices),
        "rows": {
            row.arm: {
                "title": row.title,
                "means": {name: _plain(row.means[name]) for name in item.metrics},
            }
            for row in item.rows
        },
    }
