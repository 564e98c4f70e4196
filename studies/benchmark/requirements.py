"""What we require of `best()`, and what was measured of it.

Two variants are always compared on the clips that both of them have. Requirements that are not met stay listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from studies.benchmark.aggregate import group_mean, groups_of, held_out_rows, paired_means, variant_title
from studies.benchmark.records import Evidence
from studies.benchmark.variants import BEST, OFFICIAL, PAPER
from studies.common.metrics import METRICS, mean_of
from studies.common.recordings import FOUR_CAMERAS

Status = Literal["met", "not met", "not measured"]

RIVALS = (PAPER, OFFICIAL)
NO_WORSE = ("nme_percent", "true_nme_percent", "cvd_mm", "mpve_mm", "scan_mm")
"""Metrics in which `best()` must be no worse than its rivals. Landmark error is taken against the noisy landmarks
that were fitted and, where they are known, against the exact ones. The scan lacks corresponding vertices, so its
distance to the mesh takes the place of MPVE."""
NO_LARGER = ("angular_velocity_error_deg", "lip_opening_error_mm")
"""Errors of motion, which rise if stability comes from flattening true motion."""
STEADIER = "msi3d_vertices"
LEAST_GAIN_OF_STEADINESS = 1.5
"""Least ratio of the motion stability of `best()` to that of each rival."""
HELD_OUT = "held_out_nme51_percent"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A value that `best()` must reach on one group, independent of the other variants."""

    group: str
    metric: str
    at_most: float
    title: str


TARGETS = (
    Target(group="synthetic_1view", metric="mpve_mm", at_most=1.5, title="MPVE, rigid (mm)"),
    Target(group="synthetic_3views", metric="mpve_mm", at_most=1.0, title="MPVE, rigid (mm)"),
    Target(
        group=FOUR_CAMERAS,
        metric="landmarks_3d_median_mm",
        at_most=4.0,
        title="3D landmarks, median (mm)",
    ),
    Target(group=FOUR_CAMERAS, metric=HELD_OUT, at_most=3.0, title="held-out view, inner 51 (%)"),
    Target(group="scan_1view", metric="scan_mm", at_most=1.5, title="scan to mesh, mean (mm)"),
    Target(group="scan_3views", metric="scan_mm", at_most=1.5, title="scan to mesh, mean (mm)"),
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One requirement on one group: `best()` against a rival, or against a fixed number."""

    kind: Literal["no worse", "steadier", "target"]
    group: str
    metric: str
    rival: str | None
    """None: against a fixed number."""
    best: float | None
    other: float | None
    """The rival's figure, or the fixed number."""
    difference: float | None
    """Best minus other."""
    ratio: float | None
    """Best over other."""
    status: Status


def verdicts(evidence: Evidence) -> tuple[Verdict, ...]:
    """Every requirement on every group to which it applies: first those against rivals, then the fixed targets.

    A metric that neither `best()` nor its rival has on a group is not required there. A fixed target is always
    required; without clips it is "not measured".
    """
    found = [
        verdict
        for group in groups_of(evidence)
        for metric in (*NO_WORSE, *NO_LARGER, STEADIER)
        for rival in RIVALS
        if (verdict := _against(evidence, group, metric, rival)) is not None
    ]
    return (*found, *(_against_target(evidence, target) for target in TARGETS))


def _against(evidence: Evidence, group: str, metric: str, rival: str) -> Verdict | None:
    if all(group_mean(evidence, variant, group, metric) is None for variant in (BEST, rival)):
        return None
    kind = "steadier" if metric == STEADIER else "no worse"
    means = paired_means(evidence, (BEST, rival), group, metric)
    if means is None:
        return _verdict(kind, group, metric, rival, None, None, False)
    best, other = means[BEST], means[rival]
    met = best >= LEAST_GAIN_OF_STEADINESS * other if metric == STEADIER else best <= other
    return _verdict(kind, group, metric, rival, best, other, met)


def _against_target(evidence: Evidence, target: Target) -> Verdict:
    if target.metric == HELD_OUT:
        measured = mean_of(row.mean_percent for row in held_out_rows(evidence) if row.variant == BEST)
    else:
        measured = group_mean(evidence, BEST, target.group, target.metric)
    best = None if measured is None else measured.mean
    met = best is not None and best <= target.at_most
    return _verdict("target", target.group, target.metric, None, best, target.at_most, met)


def _verdict(
    kind: Literal["no worse", "steadier", "target"],
    group: str,
    metric: str,
    rival: str | None,
    best: float | None,
    other: float | None,
    met: bool,
) -> Verdict:
    difference = ratio = None
    status: Status = "not measured"
    if best is not None and other is not None:
        difference, ratio = best - other, best / other if other else None
        status = "met" if met else "not met"
    return Verdict(
        kind=kind,
        group=group,
        metric=metric,
        rival=rival,
        best=best,
        other=other,
        difference=difference,
        ratio=ratio,
        status=status,
    )


def requirement(verdict: Verdict) -> str:
    """The requirement of a verdict in words."""
    if verdict.rival is None:
        target = next(
            item for item in TARGETS if (item.group, item.metric) == (verdict.group, verdict.metric)
        )
        return f"{target.title} at most {target.at_most:.1f}"
    metric = METRICS[verdict.metric]
    title = f"{metric.title} ({metric.unit})"
    if verdict.kind == "steadier":
        return f"{title} at least {LEAST_GAIN_OF_STEADINESS:g} x that of {variant_title(verdict.rival)}"
    return f"{title} no larger than of {variant_title(verdict.rival)}"
