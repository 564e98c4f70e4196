"""The study's findings as numbers (JSON) and as text (Markdown)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from studies.common.metrics import GROUP_TITLES, LOSS, METRICS, Metric, mean_of, value_of
from studies.common.report.documents import (
    Block,
    Bullets,
    Cell,
    Grid,
    Heading,
    Paragraph,
    column_title,
    number,
    to_markdown,
)
from studies.common.runs import Run
from studies.neural_versus_direct.study import CaseResult, Study
from studies.neural_versus_direct.variants import BOUNDED, FITTED, FREE, NEURAL, VARIANT_TITLES

RIVALS = (FREE, BOUNDED)
ALL_PEOPLE = "synthetic"
GROUPS = {
    **{group: GROUP_TITLES[group] for group in ("synthetic_1view", "synthetic_3views")},
    ALL_PEOPLE: "Rendered people, all clips",
    **{group: GROUP_TITLES[group] for group in ("scan_1view", "scan_3views")},
}
"""Titles of the groups that are averaged; the rendered people are also averaged together."""

_ERRORS = ("mpve_mm", "mpve_scaled_mm", "mpve_face_mm", "scan_mm", "scan_scaled_mm", "nme_percent", "cvd_mm")
JUDGED = (*(METRICS[name] for name in _ERRORS), METRICS["msi3d_vertices"], LOSS)
"""Columns that measure quality: wins are counted in them."""
COLUMNS = (*JUDGED, *(METRICS[name] for name in ("expression_outside_percent", "passes", "seconds")))


@dataclass(frozen=True, kw_only=True)
class Contest:
    """The neural variant against a rival in one metric, clip by clip."""

    better: int
    """Clips on which the neural variant is better."""
    clips: int
    mean_difference: float
    """Neural minus rival, mean over clips, in the metric's unit."""
    standard_error: float | None
    """Standard error of that mean; None for a single clip."""


@dataclass(frozen=True, kw_only=True)
class GroupSummary:
    """Means over the clips of a group, and who wins how often."""

    group: str
    clips: int
    means: dict[str, dict[str, float | None]]
    """By variant, then by metric; None where the metric does not apply."""
    contests: dict[str, dict[str, Contest]]
    """By rival of the neural variant, then by metric."""
    true_msi3d_vertices: float | None


def summarise(cases: Sequence[CaseResult]) -> tuple[GroupSummary, ...]:
    """One summary per group in the order of GROUPS; all rendered people together are a group as well."""
    members = {
        group: [case for case in cases if case.group == group or case.group.startswith(f"{group}_")]
        for group in GROUPS
    }
    return tuple(_summary(group, chosen) for group, chosen in members.items() if chosen)


def tables(study: Study) -> dict[str, Any]:
    """The study and its summaries as one JSON-able object."""
    return {**asdict(study), "summaries": [asdict(item) for item in summarise(study.cases)]}


def markdown(study: Study) -> str:
    """The report for people."""
    blocks: list[Block] = [
        Heading(level=1, text="Neural re-parameterisation against free parameters"),
        Paragraph(
            text="All variants share clips, objective, E-step, stopping rule and initial values (the encoder's "
            "predictions) and differ in what the gradient moves. Free parameters: every image's scale, offset, "
            "orientation, identity and expression. Free parameters, bounded: the same with expression kept within "
            "0..1, as the encoder's output is. Neural: the encoder's weights. Identity is one code per clip in every "
            "variant, and the face has the size that the encoder predicted."
        ),
        Paragraph(
            text="Less is better, except for MSI3D. NME and the loss are taken against the noisy landmarks that were "
            "fitted, so a lower value may mean that noise was fitted. Errors with scale are taken after an alignment "
            "with scale, which a weak-perspective camera does not observe."
        ),
    ]
    for summary in summarise(study.cases):
        blocks += _group_blocks(summary)
    return to_markdown([*blocks, *_rate_blocks(study), *_origin(study)], picture_folder="")


def _summary(group: str, cases: Sequence[CaseResult]) -> GroupSummary:
    return GroupSummary(
        group=group,
        clips=len(cases),
        means={
            variant: {
                column.name: value_of(mean_of(column.read(case.run(variant)) for case in cases))
                for column in COLUMNS
            }
            for variant in VARIANT_TITLES
        },
        contests={
            rival: {
                column.name: contest
                for column in JUDGED
                if (contest := _contest(column, [(case.run(NEURAL), case.run(rival)) for case in cases]))
            }
            for rival in RIVALS
        },
        true_msi3d_vertices=value_of(mean_of(case.true_msi3d_vertices for case in cases)),
    )


def _contest(column: Metric, pairs: Sequence[tuple[Run, Run]]) -> Contest | None:
    """None where the metric applies to no clip."""
    differences = [
        ours - theirs
        for ours, theirs in ((column.read(neural), column.read(rival)) for neural, rival in pairs)
        if ours is not None and theirs is not None
    ]
    if not differences:
        return None
    sign = 1 if column.better == "more" else -1
    spread = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else None
    return Contest(
        better=sum(sign * difference > 0 for difference in differences),
        clips=len(differences),
        mean_difference=fmean(differences),
        standard_error=spread,
    )


def _group_blocks(summary: GroupSummary) -> list[Block]:
    columns = [
        column
        for column in COLUMNS
        if any(means[column.name] is not None for means in summary.means.values())
    ]
    rows = [
        _row(VARIANT_TITLES[variant], [number(means[column.name], column.digits) for column in columns])
        for variant, means in summary.means.items()
    ]
    for rival in RIVALS:
        contests = [summary.contests[rival].get(column.name) for column in columns]
        title = VARIANT_TITLES[rival]
        rows.append(
            _row(
                f"neural better than {title}",
                ["" if contest is None else f"{contest.better}/{contest.clips}" for contest in contests],
            )
        )
        rows.append(_row(f"neural minus {title} (± standard error)", [*map(_difference, contests, columns)]))
    clips = f"{summary.clips} clip{'s' if summary.clips > 1 else ''}"
    blocks: list[Block] = [
        Heading(level=2, text=f"{GROUPS[summary.group]} ({clips})"),
        Grid(header=("", *map(column_title, columns)), rows=tuple(rows)),
    ]
    if summary.true_msi3d_vertices is not None:
        blocks.append(Paragraph(text=f"MSI3D of the true meshes: {summary.true_msi3d_vertices:.2f}."))
    return blocks


def _rate_blocks(study: Study) -> list[Block]:
    rows = []
    for variant in FITTED:
        for rate in sorted({trial.learning_rate for trial in study.trials if trial.variant == variant}):
            tried = [
                trial for trial in study.trials if (trial.variant, trial.learning_rate) == (variant, rate)
            ]
            gain = fmean(math.log(trial.final_loss / trial.start_loss) for trial in tried)
            rows.append(
                (
                    Cell(text=VARIANT_TITLES[variant]),
                    Cell(text=f"{rate:g}", bold=rate == study.learning_rates[variant]),
                    Cell(text=f"{gain:.3f}"),
                    Cell(text=", ".join(str(trial.passes) for trial in tried)),
                    Cell(text=", ".join(trial.stop_reason for trial in tried)),
                )
            )
    blocks: list[Block] = [
        Heading(level=2, text="Learning rates"),
        Paragraph(
            text="Chosen on tuning clips of other people by the objective alone: the mean over clips of log(final "
            "loss / loss at the start)."
        ),
        Grid(header=("", "learning rate", "log(final / start)", "passes", "stopped"), rows=tuple(rows)),
    ]
    edges = [
        VARIANT_TITLES[variant]
        for variant, grid in study.settings.grids().items()
        if study.learning_rates[variant] in (min(grid), max(grid))
    ]
    if edges:
        blocks.append(Paragraph(text=f"At the edge of the rates that were tried: {'; '.join(edges)}."))
    return blocks


def _origin(study: Study) -> list[Block]:
    stops: dict[str, int] = {}
    for case in study.cases:
        for variant in FITTED:
            reason = f"{VARIANT_TITLES[variant]}: {case.run(variant).stop_reason}"
            stops[reason] = stops.get(reason, 0) + 1
    ends = "; ".join(f"{reason} {count}" for reason, count in sorted(stops.items()))
    settings = study.settings
    scan = f", scan {study.scan_hash[:12]}" if study.scan_hash else ""
    return [
        Heading(level=2, text="How this was made"),
        Bullets(
            lines=(
                f"Clips of {settings.frames} frames (one camera) and 3 x {settings.frames_of_three} (three "
                f"cameras), {settings.size_px} px.",
                f"At most {settings.max_passes} passes, patience {settings.patience}; all else as "
                "`comparison_config` says (studies/neural_versus_direct/variants.py).",
                f"How fits ended: {ends or 'none was run'}.",
                f"Encoder {study.encoder_hash[:12]}, head {study.head_hash[:12]}{scan}; {study.threads} threads.",
            )
        ),
    ]


def _row(title: str, cells: Sequence[str]) -> tuple[Cell, ...]:
    return (Cell(text=title), *(Cell(text=text) for text in cells))


def _difference(contest: Contest | None, column: Metric) -> str:
    if contest is None:
        return ""
    digits = 2 if column.digits is None else column.digits
    error = "" if contest.standard_error is None else f" ± {contest.standard_error:.{digits}f}"
    return f"{contest.mean_difference:+.{digits}f}{error}"
