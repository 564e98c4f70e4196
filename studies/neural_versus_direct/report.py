"""The study's findings as numbers (JSON) and as text (Markdown)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from studies.neural_versus_direct.arms import ARMS, BOUNDED, DIRECT, FITTED_ARMS, NEURAL, ArmRow
from studies.neural_versus_direct.study import CaseResult, Study

RIVALS = (DIRECT, BOUNDED)
ARM_TITLES = {
    "encoder": "encoder alone",
    "direct": "direct",
    "bounded": "direct, bounded",
    "neural": "neural",
}
GROUP_TITLES = {
    "synthetic_1view": "Rendered people, one camera",
    "synthetic_3views": "Rendered people, three cameras",
    "synthetic": "Rendered people, all clips",
    "scan_1view": "Real scan, one camera",
    "scan_3views": "Real scan, three cameras",
}


@dataclass(frozen=True, kw_only=True)
class Column:
    """One figure of the tables."""

    name: str
    title: str
    digits: int
    read: Callable[[ArmRow], float | None]
    more_is_better: bool = False
    judged: bool = True
    """Whether wins are counted; not for what is no measure of quality."""


def _score(name: str) -> Callable[[ArmRow], float | None]:
    return lambda row: getattr(row.scores, name)


def _passes(row: ArmRow) -> float | None:
    return None if row.passes is None else float(row.passes)


COLUMNS = (
    Column(name="mpve_mm", title="MPVE (mm)", digits=2, read=_score("mpve_mm")),
    Column(name="mpve_scaled_mm", title="MPVE, scaled (mm)", digits=2, read=_score("mpve_scaled_mm")),
    Column(name="mpve_face_mm", title="MPVE, face (mm)", digits=2, read=_score("mpve_face_mm")),
    Column(name="scan_mm", title="scan to mesh (mm)", digits=2, read=_score("scan_mm")),
    Column(name="scan_scaled_mm", title="scan to mesh, scaled (mm)", digits=2, read=_score("scan_scaled_mm")),
    Column(name="nme_percent", title="NME (%)", digits=2, read=_score("nme_percent")),
    Column(name="cvd_mm", title="CVD (mm)", digits=2, read=_score("cvd_mm")),
    Column(
        name="msi3d_vertices", title="MSI3D", digits=2, read=_score("msi3d_vertices"), more_is_better=True
    ),
    Column(name="final_loss", title="loss (1e-3)", digits=2, read=lambda row: 1e3 * row.final_loss),
    Column(
        name="expression_outside_percent",
        title="expression outside 0..1 (%)",
        digits=1,
        read=_score("expression_outside_percent"),
        judged=False,
    ),
    Column(name="passes", title="passes", digits=0, read=_passes, judged=False),
    Column(name="seconds", title="seconds", digits=1, read=lambda row: row.seconds, judged=False),
)


@dataclass(frozen=True, kw_only=True)
class Contest:
    """The neural arm against a rival in one figure, clip by clip."""

    better: int
    """Clips on which the neural arm is better."""
    clips: int
    mean_difference: float
    """Neural minus rival, mean over clips, in the figure's unit."""
    standard_error: float | None
    """Of that mean; None for a single clip."""


@dataclass(frozen=True, kw_only=True)
class GroupSummary:
    """Means over the clips of a group, and who wins how often."""

    group: str
    clips: int
    means: dict[str, dict[str, float | None]]
    """By arm, then by figure; None where the figure does not apply."""
    contests: dict[str, dict[str, Contest]]
    """By rival of the neural arm, then by figure."""
    true_msi3d_vertices: float | None


def summarise(cases: Sequence[CaseResult]) -> tuple[GroupSummary, ...]:
    """One summary per group in the order of GROUP_TITLES; all rendered clips together are a group as well."""
    members = {
        title: [case for case in cases if case.group == title or case.group.startswith(f"{title}_")]
        for title in GROUP_TITLES
    }
    return tuple(_summary(group, chosen) for group, chosen in members.items() if chosen)


def tables(study: Study) -> dict[str, Any]:
    """The study and its summaries as one JSON-able object."""
    return {**asdict(study), "summaries": [asdict(item) for item in summarise(study.cases)]}


def markdown(study: Study) -> str:
    """The report for people."""
    parts = [
        "# Neural re-parameterisation against direct fitting",
        "",
        "Same clips, objective, E-step, stopping rule and initial values (the encoder's answers); what differs is "
        "what the gradient moves. *direct*: every image's scale, offset, orientation, identity and expression, "
        "freely. *direct, bounded*: the same with expression kept within 0..1, as the encoder's output is. "
        "*neural*: the encoder's weights. Identity is one code per clip in every arm, of the "
        "size that the encoder answered.",
        "",
        "Less is better, but for MSI3D. NME and the loss are taken against the noisy landmarks that were fitted, so "
        'a lower value may mean that noise was fitted. "Scaled" errors are taken after an alignment with scale, '
        "which a weak-perspective camera cannot see.",
        "",
    ]
    for summary in summarise(study.cases):
        parts += [*_group_table(summary), ""]
    parts += [*_rates_table(study), "", *_origin(study), ""]
    return "\n".join(parts)


def _summary(group: str, cases: Sequence[CaseResult]) -> GroupSummary:
    judged = [column for column in COLUMNS if column.judged]
    contests = {
        rival: {
            column.name: contest
            for column in judged
            if (contest := _contest(column, [(case.row(NEURAL), case.row(rival)) for case in cases]))
        }
        for rival in RIVALS
    }
    return GroupSummary(
        group=group,
        clips=len(cases),
        means={
            arm: {column.name: _mean([column.read(case.row(arm)) for case in cases]) for column in COLUMNS}
            for arm in ARMS
        },
        contests=contests,
        true_msi3d_vertices=_mean([case.true_msi3d_vertices for case in cases]),
    )


def _contest(column: Column, pairs: Sequence[tuple[ArmRow, ArmRow]]) -> Contest | None:
    """None where the figure applies to no clip."""
    differences = [
        ours - theirs
        for ours, theirs in ((column.read(neural), column.read(rival)) for neural, rival in pairs)
        if ours is not None and theirs is not None
    ]
    if not differences:
        return None
    sign = 1 if column.more_is_better else -1
    spread = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else None
    return Contest(
        better=sum(sign * difference > 0 for difference in differences),
        clips=len(differences),
        mean_difference=fmean(differences),
        standard_error=spread,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _group_table(summary: GroupSummary) -> list[str]:
    columns = [
        column
        for column in COLUMNS
        if any(means[column.name] is not None for means in summary.means.values())
    ]
    lines = [
        f"## {GROUP_TITLES[summary.group]} ({summary.clips} clip{'s' if summary.clips > 1 else ''})",
        "",
        _line("", [column.title for column in columns]),
        "|---" * (len(columns) + 1) + "|",
    ]
    for arm in ARMS:
        means = summary.means[arm]
        lines.append(
            _line(ARM_TITLES[arm], [_number(means[column.name], column.digits) for column in columns])
        )
    for rival in RIVALS:
        won, lead = [], []
        for column in columns:
            contest = summary.contests[rival].get(column.name)
            won.append("" if contest is None else f"{contest.better}/{contest.clips}")
            lead.append("" if contest is None else _difference(contest, column.digits))
        lines.append(_line(f"neural better than {ARM_TITLES[rival]}", won))
        lines.append(_line(f"neural minus {ARM_TITLES[rival]} (± standard error)", lead))
    if summary.true_msi3d_vertices is not None:
        lines += ["", f"MSI3D of the true meshes: {summary.true_msi3d_vertices:.2f}."]
    return lines


def _rates_table(study: Study) -> list[str]:
    lines = [
        "## Learning rates",
        "",
        "Chosen on tuning clips of other people by the objective alone: the mean over clips of log(final loss / "
        "loss at the start).",
        "",
        _line("", ["learning rate", "log(final / start)", "passes", "stopped"]),
        "|---|---|---|---|---|",
    ]
    for arm in FITTED_ARMS:
        for rate in sorted({trial.learning_rate for trial in study.trials if trial.arm == arm}):
            tried = [trial for trial in study.trials if (trial.arm, trial.learning_rate) == (arm, rate)]
            gain = fmean(math.log(trial.final_loss / trial.start_loss) for trial in tried)
            mark = "**" if rate == study.learning_rates[arm] else ""
            cells = [
                f"{mark}{rate:g}{mark}",
                f"{gain:.3f}",
                ", ".join(str(trial.passes) for trial in tried),
                ", ".join(trial.stop_reason for trial in tried),
            ]
            lines.append(_line(ARM_TITLES[arm], cells))
    edges = [ARM_TITLES[arm] for arm, grid in study.settings.grids().items() if _at_edge(study, arm, grid)]
    if edges:
        lines += ["", f"At the edge of the rates that were tried: {'; '.join(edges)}."]
    return lines


def _at_edge(study: Study, arm: str, grid: Sequence[float]) -> bool:
    return study.learning_rates[arm] in (min(grid), max(grid))


def _origin(study: Study) -> list[str]:
    stops: dict[str, int] = {}
    for case in study.cases:
        for arm in FITTED_ARMS:
            reason = f"{ARM_TITLES[arm]}: {case.row(arm).stop_reason}"
            stops[reason] = stops.get(reason, 0) + 1
    settings = study.settings
    return [
        "## How",
        "",
        f"- Clips of {settings.frames} frames (one camera) and 3 x {settings.frames_of_three} (three cameras), "
        f"{settings.size_px} px.",
        f"- At most {settings.max_passes} passes, patience {settings.patience}; all else as FitConfig's defaults.",
        f"- How fits ended: {'; '.join(f'{reason} {count}' for reason, count in sorted(stops.items())) or 'none'}.",
        f"- Encoder {study.encoder_hash[:12]}, head {study.head_hash[:12]}"
        + (f", scan {study.scan_hash[:12]}" if study.scan_hash else "")
        + f"; {study.threads} threads.",
    ]


def _line(first: str, cells: Sequence[str]) -> str:
    return f"| {' | '.join((first, *cells))} |"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _difference(contest: Contest, digits: int) -> str:
    error = "" if contest.standard_error is None else f" ± {contest.standard_error:.{digits}f}"
    return f"{contest.mean_difference:+.{digits}f}{error}"
