"""The orderings that the paper reports, compared with what was measured.

Two variants are always compared on the clips that both of them have. Claims that do not hold stay listed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from studies.benchmark.aggregate import group_mean, groups_of, identity_spread_curve, paired_means
from studies.benchmark.records import Evidence
from studies.benchmark.variants import BEST, DIRECT, OFFICIAL, PAPER
from studies.common.variants import ENCODER

Relation = Literal["below", "above", "not below", "not above", "alike"]

ALIKE = 0.06
"""Largest relative difference of two figures that count as alike. Figures that the paper calls alike or comparable
differ by 0.4 to 5.4 %."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """An ordering that the paper reports: a relation of the figure of each judged variant to that of another."""

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
    """By variant, the rival first; of Table S3b by pass."""
    holds: dict[str, bool]
    """By judged variant."""


NEUFACE = (PAPER, OFFICIAL, BEST)
"""The variants that are judged in the place of the paper's method. The paper's claims are about the first."""
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


def orderings(evidence: Evidence) -> tuple[Ordering, ...]:
    """Every claim of the paper on every group that has its variants and figures, in the order of the claims."""
    groups = groups_of(evidence)
    found = [_ordering(evidence, claim, group) for claim in CLAIMS for group in groups]
    found += [_spread_ordering(evidence, group) for group in groups]
    return tuple(ordering for ordering in found if ordering is not None)


def claim_sources() -> tuple[str, ...]:
    """The paper's tables and figures of which `orderings` knows a claim."""
    return tuple(dict.fromkeys((*(claim.source for claim in CLAIMS), SPREAD_SOURCE)))


def _ordering(evidence: Evidence, claim: Claim, group: str) -> Ordering | None:
    variants = (claim.rival, *claim.judged)
    present = [
        variant for variant in variants if group_mean(evidence, variant, group, claim.metric) is not None
    ]
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
        holds={
            variant: _stands(claim.relation, figures[variant], rival)
            for variant in present
            if variant != claim.rival
        },
    )


def _spread_ordering(evidence: Evidence, group: str) -> Ordering | None:
    curve = identity_spread_curve(evidence, PAPER, group)
    if len(curve) < 2:
        return None
    return Ordering(
        claim=SPREAD_CLAIM,
        source=SPREAD_SOURCE,
        text=SPREAD_TEXT,
        metric="identity_spread",
        group=group,
        figures={"first pass": curve[0], "last pass": curve[-1]},
        holds={PAPER: curve[-1] < curve[0]},
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
    """On how many groups a claim holds for one judged variant."""

    claim: str
    source: str
    text: str
    variant: str
    holds: int
    groups: int


def count_orderings(found: tuple[Ordering, ...]) -> tuple[ClaimCount, ...]:
    """One count per claim and judged variant, in the order of the orderings."""

    def counted() -> Iterator[ClaimCount]:
        for claim in dict.fromkeys(item.claim for item in found):
            members = [item for item in found if item.claim == claim]
            for variant in dict.fromkeys(variant for item in members for variant in item.holds):
                outcomes = [item.holds[variant] for item in members if variant in item.holds]
                yield ClaimCount(
                    claim=claim,
                    source=members[0].source,
                    text=members[0].text,
                    variant=variant,
                    holds=sum(outcomes),
                    groups=len(outcomes),
                )

    return tuple(counted())
