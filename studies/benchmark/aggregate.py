"""Means over the clips of a group: every table, verdict and figure of the report is made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from studies.benchmark.records import Evidence
from studies.benchmark.variants import LOSSES, MAIN, PHOTOMETRIC, SMOOTHERS, every_variant
from studies.common.metrics import GROUP_TITLES, METRICS, Mean, mean_of, value_of

VARIANT_TITLES = {
    variant.name: variant.title for variant in every_variant((LOSSES, SMOOTHERS, PHOTOMETRIC, MAIN))
}
"""Titles by name. A variant of several tables has its title in the main table."""


def group_mean(evidence: Evidence, variant: str, group: str, metric: str) -> Mean | None:
    """One cell of a table: one variant on the clips of one group."""
    return mean_of(METRICS[metric].read(run) for run in evidence.of(variant, group))


def paired_means(
    evidence: Evidence, variants: Sequence[str], group: str, metric: str
) -> dict[str, float] | None:
    """The means of several variants over the clips on which each of them has the figure; None where there is none.

    Claims are judged on these: means over different clips would compare clips, not variants.
    """
    values = [
        {
            run.clip: value
            for run in evidence.of(variant, group)
            if (value := METRICS[metric].read(run)) is not None and math.isfinite(value)
        }
        for variant in variants
    ]
    common = set.intersection(*(set(of_variant) for of_variant in values))
    if not common:
        return None
    return {
        variant: fmean(of_variant[clip] for clip in sorted(common))
        for variant, of_variant in zip(variants, values, strict=True)
    }


def groups_of(evidence: Evidence) -> tuple[str, ...]:
    """The groups that have runs, in the order of GROUP_TITLES; groups with other names follow."""
    found = list(dict.fromkeys(run.group for run in evidence.runs))
    known = [group for group in GROUP_TITLES if group in found]
    return tuple(known + [group for group in found if group not in GROUP_TITLES])


def clips_of(evidence: Evidence, group: str) -> tuple[str, ...]:
    """The names of a group's clips."""
    return tuple(dict.fromkeys(run.clip for run in evidence.runs if run.group == group))


def variants_in(evidence: Evidence, group: str) -> tuple[str, ...]:
    """The variants that were run on a group."""
    return tuple(dict.fromkeys(run.variant for run in evidence.runs if run.group == group))


def variant_title(variant: str) -> str:
    """The title of a variant for people."""
    return VARIANT_TITLES.get(variant, variant)


def true_stability_of(evidence: Evidence, group: str) -> Mean | None:
    """MSI3D of the true vertices of a group's clips, where the truth is known."""
    return mean_of(evidence.true_msi3d_vertices.get(clip) for clip in clips_of(evidence, group))


def expected_shape_error_of(evidence: Evidence, group: str) -> Mean | None:
    """MPVE at rest that an ideal estimator of a group's landmarks expects, where it is known."""
    return mean_of(evidence.expected_shape_error_mm.get(clip) for clip in clips_of(evidence, group))


def cvd_per_view(evidence: Evidence, variant: str, group: str) -> tuple[Mean | None, ...]:
    """Fig. S3: the distance of each view's meshes to those of the other views, mm; empty where there is none."""
    clips = [run.scores.cvd_per_view_mm for run in evidence.of(variant, group)]
    known = [values for values in clips if values is not None]
    views = max(map(len, known), default=0)
    return tuple(mean_of(values[view] for values in known if view < len(values)) for view in range(views))


def identity_spread_curve(evidence: Evidence, variant: str, group: str) -> tuple[float, ...]:
    """Table S3b: standard deviation of the identity codes over a clip's images, pass by pass, mean over clips.

    A clip whose fit ended earlier keeps its last value.
    """
    clips = [run.identity_spread for run in evidence.of(variant, group) if run.identity_spread]
    passes = max(map(len, clips), default=0)
    return tuple(fmean(values[min(number, len(values) - 1)] for values in clips) for number in range(passes))


@dataclass(frozen=True, kw_only=True)
class HeldOutRow:
    """The held-out-view error of one variant on one clip, percent, and its means over the views that have one."""

    clip: str
    variant: str
    views: tuple[str, ...]
    nme51_percent: tuple[float | None, ...]
    nme51_head_percent: tuple[float | None, ...]
    mean_percent: float | None
    mean_head_percent: float | None


def held_out_rows(evidence: Evidence) -> tuple[HeldOutRow, ...]:
    """One row per variant and clip, in the order in which they were run."""
    return tuple(
        HeldOutRow(
            **vars(run),
            mean_percent=value_of(mean_of(run.nme51_percent)),
            mean_head_percent=value_of(mean_of(run.nme51_head_percent)),
        )
        for run in evidence.held_out
    )
