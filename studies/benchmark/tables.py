"""The evidence as tables of plain numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import fmean, geometric_mean
from typing import Any

from studies.benchmark.aggregate import (
    clips_of,
    cvd_per_view,
    group_mean,
    groups_of,
    held_out_rows,
    identity_spread_curve,
    true_stability_of,
    variants_in,
)
from studies.benchmark.paper_claims import claim_sources, orderings
from studies.benchmark.records import Evidence
from studies.benchmark.requirements import verdicts
from studies.benchmark.variants import LOSSES, MAIN, PHOTOMETRIC, SMOOTHERS, every_variant
from studies.common.metrics import EFFORT, GROUP_TITLES, METRICS, MOTION, SHAPE, Mean, group_title
from studies.common.variants import ENCODER, Variant

_ENCODER_ROW = tuple(variant for variant in MAIN if variant.name == ENCODER)

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
    """Which variants and metrics a table has."""

    name: str
    title: str
    variants: tuple[Variant, ...]
    metrics: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant on the clips of a group."""

    variant: str
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
    """Of the variants that were run on the group."""
    metrics: tuple[str, ...]
    """Those of which some variant has a figure."""
    true_msi3d_vertices: Mean | None
    """What a perfect fit has."""


MAIN_TABLE = TableSpec(
    name="main",
    title="All variants",
    variants=MAIN,
    metrics=tuple(metric.name for metric in (*SHAPE, *MOTION, *EFFORT)),
)
ABLATIONS = (
    TableSpec(
        name="S1",
        title="Terms of the objective (Table S1)",
        variants=(*_ENCODER_ROW, *LOSSES),
        metrics=("cvd_mm", "msi3d_landmarks", "msi3d_vertices", "nme_percent", "mpve_mm"),
    ),
    TableSpec(
        name="S2",
        title="Smoothers (Table S2)",
        variants=SMOOTHERS,
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
        variants=PHOTOMETRIC,
        metrics=("cvd_mm", "msi3d_landmarks", "msi3d_vertices", "nme_percent", "mpve_mm"),
    ),
)
TABLES = (MAIN_TABLE, *ABLATIONS)


def table(evidence: Evidence, spec: TableSpec, group: str) -> Table | None:
    """One table on one group; None where none of its own variants was run, those of the main table aside."""
    run = variants_in(evidence, group)
    main = {variant.name for variant in MAIN}
    own = [variant for variant in spec.variants if spec is MAIN_TABLE or variant.name not in main]
    if not any(variant.name in run for variant in own):
        return None
    rows = tuple(
        Row(
            variant=variant.name,
            title=variant.title,
            means={metric: group_mean(evidence, variant.name, group, metric) for metric in spec.metrics},
        )
        for variant in spec.variants
        if variant.name in run
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
    """One figure of every variant, mean over groups; each group counts the same."""

    metric: str
    groups: tuple[str, ...]
    """Those on which every variant has the figure that has it anywhere."""
    means: dict[str, float]
    """By variant. Geometric for MSI3D, whose size differs tenfold between groups."""


def summary(evidence: Evidence) -> tuple[SummaryColumn, ...]:
    """One row per main variant over all groups, in a few figures; without those that no variant has."""
    groups = groups_of(evidence)
    columns = []
    for metric in SUMMARY_METRICS:
        cells = {
            (variant.name, group): mean.mean
            for variant in MAIN
            for group in groups
            if (mean := group_mean(evidence, variant.name, group, metric)) is not None
        }
        variants = [
            variant.name for variant in MAIN if any((variant.name, group) in cells for group in groups)
        ]
        common = tuple(
            group for group in groups if variants and all((variant, group) in cells for variant in variants)
        )
        if common:
            over = geometric_mean if metric.startswith("msi3d") else fmean
            means = {variant: over([cells[variant, group] for group in common]) for variant in variants}
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
        f"{spec.title}: left out, its variants were not run."
        for spec in ABLATIONS
        if not tables_of(evidence, spec)
    ]
    if not any(identity_spread_curve(evidence, variant.name, group) for variant in MAIN for group in groups):
        lines.append("Identity spread over passes (Table S3b): left out, no fit recorded it.")
    if not evidence.held_out:
        lines.append("Held-out-view error: left out, no fit without a camera was run.")
    for group in groups:
        if missing := _main_variants_missing(evidence, group):
            lines.append(f"{group_title(group)}: not run: {', '.join(missing)}.")
    judged = {item.source for item in orderings(evidence)}
    lines += [
        f"Orderings of {source}: left out, no group has the variants and figures for them."
        for source in claim_sources()
        if source not in judged
    ]
    return tuple(lines)


def tables(evidence: Evidence) -> dict[str, Any]:
    """The evidence, its tables, verdicts and orderings as one JSON-able object.

    `tables[name][group]` has `clips` and `rows[variant].means[metric]`, each with the mean, the number of clips and,
    for several, the standard deviation between them; `metrics` has their units and which values are better.
    """
    groups = groups_of(evidence)
    every_variant_name = [variant.name for variant in every_variant((MAIN, LOSSES, SMOOTHERS, PHOTOMETRIC))]
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
                group: {
                    variant: list(identity_spread_curve(evidence, variant, group))
                    for variant in every_variant_name
                }
                for group in groups
            }
        ),
        "mpve_mm": _by_group(
            {
                group: {
                    variant.name: _plain(group_mean(evidence, variant.name, group, "mpve_mm"))
                    for variant in MAIN
                }
                for group in groups
            }
        ),
        "cvd_per_view_mm": _by_group(
            {
                group: {
                    variant.name: [*map(_plain, cvd_per_view(evidence, variant.name, group))]
                    for variant in MAIN
                }
                for group in groups
            }
        ),
        "landmarks_3d_median_mm": _by_group(
            {
                group: {
                    variant.name: _plain(group_mean(evidence, variant.name, group, "landmarks_3d_median_mm"))
                    for variant in MAIN
                }
                for group in groups
            }
        ),
        "held_out_views": [asdict(row) for row in held_out_rows(evidence)],
        "verdicts": [asdict(item) for item in verdicts(evidence)],
        "orderings": [asdict(item) for item in orderings(evidence)],
        "left_out": list(left_out(evidence)),
    }


def _main_variants_missing(evidence: Evidence, group: str) -> list[str]:
    run = variants_in(evidence, group)
    return [variant.title for variant in MAIN if variant.name not in run]


def _by_group(values: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Without what is empty."""
    kept = {
        group: {variant: value for variant, value in variants.items() if value}
        for group, variants in values.items()
    }
    return {group: variants for group, variants in kept.items() if variants}


def _plain(mean: Mean | None) -> dict[str, Any] | None:
    return None if mean is None else asdict(mean)


def _plain_table(item: Table) -> dict[str, Any]:
    return {
        "clips": item.clips,
        "true_msi3d_vertices": _plain(item.true_msi3d_vertices),
        "rows": {
            row.variant: {
                "title": row.title,
                "means": {name: _plain(row.means[name]) for name in item.metrics},
            }
            for row in item.rows
        },
    }
