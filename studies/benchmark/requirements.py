"""What is claimed, set against what was measured: our own requirements, and the orderings that the paper reports.

Two arms are always compared on the clips that both of them have. Nothing is left out because it failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from studies.benchmark.aggregate import (
    METRICS,
    arm_title,
    group_mean,
    groups_of,
    held_out_rows,
    identity_spread_course,
    mean_of,
    paired_means,
)
from studies.benchmark.collect import Evidence
from studies.benchmark.variants import BEST, DIRECT, ENCODER, OFFICIAL, PAPER
from studies.common.recordings import FOUR_CAMERAS

Status = Literal["met", "not met", "not measured"]
Relation = Literal["below", "above", "not below", "not above", "alike"]

RIVALS = (PAPER, OFFICIAL)
NO_WORSE = ("nme_percent", "true_nme_percent", "cvd_mm", "mpve_mm", "scan_mm")
"""In these `best()` is to be no worse than its rivals. Landmark error counts against what was fitted, noise and all,
and where the truth is known also against that. The scan has no corresponding vertices: its distance to the mesh
stands for MPVE."""
NO_LARGER = ("angular_velocity_error_deg", "lip_opening_error_mm")
"""Errors of motion: they tell whether steadiness was bought by flattening true motion."""
STEADIER = "msi3d_vertices"
LEAST_GAIN_OF_STEADINESS = 1.5
HELD_OUT = "held_out_nme51_percent"

# Relative difference up to which two figures are "alike"; those that the paper calls alike or comparable differ by
# 0.4 to 5.4 %.
ALIKE = 0.06


@dataclass(frozen=True, kw_only=True)
class Target:
    """A figure that `best()` is to reach on one group, whatever the other arms do."""

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


@dataclass(frozen=True, kw_only=True)
class Claim:
    """An ordering that the paper reports: the figure of each judged arm stands in a relation to that of another."""

    name: str
    source: str
    text: str
    metric: str
    relation: Relation
    rival: str
    judged: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Ordering:
    """A claim on one group."""

    claim: str
    source: str
    text: str
    metric: str
    group: str
    figures: dict[str, float]
    """By arm, the rival first; of Table S3b by pass."""
    holds: dict[str, bool]
    """By judged arm."""


NEUFACE = (PAPER, OFFICIAL, BEST)
"""Each stands for the paper's method in turn; the claims are the paper's own for the first."""
OTHERS = {DIRECT: "direct fitting", ENCODER: "the encoder"}

_AGAINST: tuple[tuple[str, str, Relation, str], ...] = (
    ("Table 2", "msi3d_vertices", "above", "MSI3D of vertices higher than of"),
    ("Table 2", "cvd_mm", "below", "CVD lower than of"),
    ("Table 2", "nme_percent", "below", "NME lower than of"),
    ("Fig. 4", "mpve_mm", "below", "MPVE lower than of"),
)
_PHOTOMETRIC: tuple[tuple[str, Relation, str, str], ...] = (
    ("cvd_mm", "not below", "lower", "CVD"),
    ("msi3d_vertices", "not above", "raise", "MSI3D of vertices"),
    ("nme_percent", "not below", "lower", "NME"),
)

CLAIMS = (
    *(
        Claim(
            name=f"{metric}_against_{rival}",
            source=source,
            text=f"{text} {title}",
            metric=metric,
            relation=relation,
            rival=rival,
            judged=NEUFACE,
        )
        for source, metric, relation, text in _AGAINST
        for rival, title in OTHERS.items()
    ),
    Claim(
        name="direct_msi3d",
        source="Table 2",
        text="direct fitting: MSI3D of vertices higher than of the encoder",
        metric="msi3d_vertices",
        relation="above",
        rival=ENCODER,
        judged=(DIRECT,),
    ),
    Claim(
        name="landmarks_only_cvd",
        source="Table S1",
        text="landmarks only: CVD higher than of the encoder",
        metric="cvd_mm",
        relation="above",
        rival=ENCODER,
        judged=("only_landmarks",),
    ),
    Claim(
        name="landmarks_only_msi3d",
        source="Table S1",
        text="landmarks only: MSI3D of vertices lower than of the encoder",
        metric="msi3d_vertices",
        relation="below",
        rival=ENCODER,
        judged=("only_landmarks",),
    ),
    Claim(
        name="multiview_cvd",
        source="Table S1",
        text="adding the multi-view term lowers CVD",
        metric="cvd_mm",
        relation="below",
        rival="only_landmarks",
        judged=("with_multiview",),
    ),
    Claim(
        name="multiview_nme",
        source="Table S1",
        text=f"the multi-view term, alone or with the temporal one, changes NME by at most {ALIKE:.0%}",
        metric="nme_percent",
        relation="alike",
        rival="only_landmarks",
        judged=("with_multiview", PAPER),
    ),
    Claim(
        name="temporal_cvd",
        source="Table S1",
        text="adding the temporal term lowers CVD",
        metric="cvd_mm",
        relation="below",
        rival="only_landmarks",
        judged=("with_temporal",),
    ),
    Claim(
        name="temporal_msi3d",
        source="Table S1",
        text="adding the temporal term raises MSI3D of vertices",
        metric="msi3d_vertices",
        relation="above",
        rival="only_landmarks",
        judged=("with_temporal",),
    ),
    Claim(
        name="everything_cvd",
        source="Table S1",
        text="all three terms: CVD lower than with landmarks and the multi-view term",
        metric="cvd_mm",
        relation="below",
        rival="with_multiview",
        judged=(PAPER,),
    ),
    Claim(
        name="everything_msi3d",
        source="Table S1",
        text="all three terms: MSI3D of vertices higher than with landmarks and the temporal term",
        metric="msi3d_vertices",
        relation="above",
        rival="with_temporal",
        judged=(PAPER,),
    ),
    *(
        Claim(
            name=f"median_{metric}",
            source="Table S2",
            text=f"{title} of median and mean differ by at most {ALIKE:.0%}",
            metric=metric,
            relation="alike",
            rival=PAPER,
            judged=("paper_median",),
        )
        for metric, title in (("cvd_mm", "CVD"), ("nme_percent", "NME"))
    ),
    *(
        Claim(
            name=f"photometric_{metric}",
            source="Table S3a",
            text=f"the photometric term does not {verb} {title}",
            metric=metric,
            relation=relation,
            rival=PAPER,
            judged=("paper_photo2", "paper_photo5"),
        )
        for metric, relation, verb, title in _PHOTOMETRIC
    ),
)
SPREAD_CLAIM, SPREAD_SOURCE = "identity_spread", "Table S3b"
SPREAD_TEXT = "without a shared code, the identity codes' spread over a clip falls"


def verdicts(evidence: Evidence) -> tuple[Verdict, ...]:
    """Every requirement on every group to which it applies: first those against rivals, then the fixed targets.

    A figure that neither `best()` nor its rival has on a group is no requirement there. A fixed target always is one;
    without clips it is "not measured".
    """
    found = [
        verdict
        for group in groups_of(evidence)
        for metric in (*NO_WORSE, *NO_LARGER, STEADIER)
        for rival in RIVALS
        if (verdict := _against(evidence, group, metric, rival)) is not None
    ]
    return (*found, *(_against_target(evidence, target) for target in TARGETS))


def orderings(evidence: Evidence) -> tuple[Ordering, ...]:
    """Every claim of the paper on every group that has the arms and figures for it, in the order of the claims."""
    groups = groups_of(evidence)
    found = [_ordering(evidence, claim, group) for claim in CLAIMS for group in groups]
    found += [_spread_ordering(evidence, group) for group in groups]
    return tuple(ordering for ordering in found if ordering is not None)


def claim_sources() -> tuple[str, ...]:
    """The paper's tables and figures of which `orderings` knows a claim."""
    return tuple(dict.fromkeys((*(claim.source for claim in CLAIMS), SPREAD_SOURCE)))


def _against(evidence: Evidence, group: str, metric: str, rival: str) -> Verdict | None:
    if all(group_mean(evidence, arm, group, metric) is None for arm in (BEST, rival)):
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
        measured = mean_of(row.mean_percent for row in held_out_rows(evidence) if row.arm == BEST)
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


def _ordering(evidence: Evidence, claim: Claim, group: str) -> Ordering | None:
    arms = (claim.rival, *claim.judged)
    present = [arm for arm in arms if group_mean(evidence, arm, group, claim.metric) is not None]
    if claim.rival not in present or len(present) < 2:
        return None
    figures = paired_means(evidence, present, group, claim.metric)
    if figures is None:
        return None
    rival = figures[claim.rival]
    return Ordering(
        claim=claim.name,
        source=claim.source,
        text=claim.text,
        metric=claim.metric,
        group=group,
        figures=figures,
        holds={arm: _stands(claim.relation, figures[arm], rival) for arm in present if arm != claim.rival},
    )


def _spread_ordering(evidence: Evidence, group: str) -> Ordering | None:
    course = identity_spread_course(evidence, PAPER, group)
    if len(course) < 2:
        return None
    return Ordering(
        claim=SPREAD_CLAIM,
        source=SPREAD_SOURCE,
        text=SPREAD_TEXT,
        metric="identity_spread",
        group=group,
        figures={"first pass": course[0], "last pass": course[-1]},
        holds={PAPER: course[-1] < course[0]},
    )


def _stands(relation: Relation, value: float, rival: float) -> bool:
    if relation == "alike":
        return abs(value - rival) <= ALIKE * max(abs(value), abs(rival))
    return {
        "below": value < rival,
        "above": value > rival,
        "not below": value >= rival,
        "not above": value <= rival,
    }[relation]


@dataclass(frozen=True, kw_only=True)
class ClaimCount:
    """On how many groups a claim holds for one judged arm."""

    claim: str
    source: str
    text: str
    arm: str
    holds: int
    groups: int


def count_orderings(found: tuple[Ordering, ...]) -> tuple[ClaimCount, ...]:
    """One count per claim and judged arm, in the order of the orderings."""

    def counted() -> Iterator[ClaimCount]:
        for claim in dict.fromkeys(item.claim for item in found):
            members = [item for item in found if item.claim == claim]
            for arm in dict.fromkeys(arm for item in members for arm in item.holds):
                answers = [item.holds[arm] for item in members if arm in item.holds]
                yield ClaimCount(
                    claim=claim,
                    source=members[0].source,
                    text=members[0].text,
                    arm=arm,
                    holds=sum(answers),
                    groups=len(answers),
                )

    return tuple(counted())


def requirement(verdict: Verdict) -> str:
    """What the verdict asks for, for people."""
    if verdict.rival is None:
        target = next(
            item for item in TARGETS if (item.group, item.metric) == (verdict.group, verdict.metric)
        )
        return f"{target.title} at most {target.at_most:.1f}"
    metric = METRICS[verdict.metric]
    title = f"{metric.title} ({metric.unit})"
    if verdict.kind == "steadier":
        return f"{title} at least {LEAST_GAIN_OF_STEADINESS:g} x that of {arm_title(verdict.rival)}"
    return f"{title} no larger than of {arm_title(verdict.rival)}"
