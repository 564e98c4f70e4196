"""Means of the evidence over the clips of a group: what every table, verdict and figure of the report is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from studies.benchmark.collect import Evidence, Run
from studies.benchmark.variants import LOSSES, MAIN, PHOTOMETRIC, SMOOTHERS, arms_of
from studies.common.recordings import FOUR_CAMERAS, REAL_1VIEW

Better = Literal["less", "more", "one"]

GROUP_TITLES = {
    "synthetic_1view": "Rendered people, one camera, clean",
    "synthetic_3views": "Rendered people, three cameras, clean",
    "hard_synthetic_1view": "Rendered people, one camera, hard",
    "hard_synthetic_3views": "Rendered people, three cameras, hard",
    "scan_1view": "Rendered scan, one camera",
    "scan_3views": "Rendered scan, three cameras",
    REAL_1VIEW: "Real clips, one camera",
    FOUR_CAMERAS: "Real session, four calibrated cameras",
}
"""The groups that a full study has, in the order of the report."""

ARM_TITLES = {arm.name: arm.title for arm in arms_of((LOSSES, SMOOTHERS, PHOTOMETRIC, MAIN))}
"""Of every arm; the main arms go by their titles in the main table."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One column of the tables."""

    name: str
    title: str
    unit: str
    better: Better | None
    """Which values are better: less, more, or nearer to one; None for what is no measure of quality."""
    digits: int | None
    """After the point; None: three significant digits, for figures that differ tenfold between groups."""
    read: Callable[[Run], float | None]


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A figure over the clips that have it."""

    mean: float
    clips: int
    stdev: float | None
    """Standard deviation between clips (of a sample); None for a single clip."""


def _score(name: str) -> Callable[[Run], float | None]:
    return lambda run: getattr(run.scores, name)


def _metric(
    name: str,
    title: str,
    unit: str,
    better: Better | None = "less",
    digits: int | None = 2,
    read: Callable[[Run], float | None] | None = None,
) -> Metric:
    return Metric(name=name, title=title, unit=unit, better=better, digits=digits, read=read or _score(name))


SHAPE = (
    _metric("mpve_mm", "MPVE, rigid", "mm"),
    _metric("mpve_face_mm", "MPVE, face, rigid", "mm"),
    _metric("mpve_scaled_mm", "MPVE, with scale", "mm"),
    _metric("mpve_unaligned_mm", "MPVE, not aligned", "mm"),
    _metric("scan_mm", "scan to mesh", "mm"),
    _metric("scan_scaled_mm", "scan to mesh, with scale", "mm"),
    _metric("landmarks_3d_median_mm", "3D landmarks, median", "mm"),
    _metric("landmarks_3d_turned_median_mm", "3D landmarks, each image turned, median", "mm"),
    _metric("nme_percent", "NME, 68 points", "%"),
    _metric("nme51_percent", "NME, inner 51", "%"),
    _metric("true_nme_percent", "NME to exact landmarks", "%"),
)
"""Errors of shape and of landmarks."""

MOTION = (
    _metric("cvd_mm", "CVD", "mm"),
    _metric("identity_drift_mm", "identity drift", "mm"),
    _metric("msi3d_vertices", "MSI3D, vertices", "frame⁴/mm²", "more", None),
    _metric("msi3d_landmarks", "MSI3D, landmarks", "frame⁴/mm²", "more", None),
    _metric("jitter_mm", "jitter", "mm/frame²"),
    _metric("angular_velocity_error_deg", "error of head turning", "°/frame"),
    _metric("turning_kept", "turning kept", "share", "one"),
    _metric("lip_opening_error_mm", "error of lip opening", "mm"),
    _metric("lip_motion_kept", "lip motion kept", "share", "one"),
)
"""Agreement between images, and motion."""

EFFORT = (
    _metric("expression_outside_percent", "expression outside 0..1", "%", None, 1),
    _metric(
        "passes",
        "passes",
        "count",
        None,
        0,
        lambda run: None if run.passes is None else float(run.passes),
    ),
    _metric("seconds", "fit time", "s per clip", None, 1, lambda run: run.seconds),
)
"""What is no measure of quality."""

METRICS = {metric.name: metric for metric in (*SHAPE, *MOTION, *EFFORT)}


def mean_of(values: Iterable[float | None]) -> Mean | None:
    """Over the values that are there and finite; None where there is none."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return None
    return Mean(mean=fmean(known), clips=len(known), stdev=stdev(known) if len(known) > 1 else None)


def group_mean(evidence: Evidence, arm: str, group: str, metric: str) -> Mean | None:
    """One cell of a table: one arm on the clips of one group."""
    return mean_of(METRICS[metric].read(run) for run in evidence.of(arm, group))


def paired_means(evidence: Evidence, arms: Sequence[str], group: str, metric: str) -> dict[str, float] | None:
    """The means of several arms over the clips on which each of them has the figure; None where there is none.

    Claims are judged on these: a mean over other clips would compare clips, not arms.
    """
    values = [
        {
            run.clip: value
            for run in evidence.of(arm, group)
            if (value := METRICS[metric].read(run)) is not None and math.isfinite(value)
        }
        for arm in arms
    ]
    common = set.intersection(*(set(of_arm) for of_arm in values))
    if not common:
        return None
    return {
        arm: fmean(of_arm[clip] for clip in sorted(common)) for arm, of_arm in zip(arms, values, strict=True)
    }


def groups_of(evidence: Evidence) -> tuple[str, ...]:
    """The groups that have runs, in the order of GROUP_TITLES; groups of other names follow."""
    found = list(dict.fromkeys(run.group for run in evidence.runs))
    known = [group for group in GROUP_TITLES if group in found]
    return tuple(known + [group for group in found if group not in GROUP_TITLES])


def clips_of(evidence: Evidence, group: str) -> tuple[str, ...]:
    """The names of a group's clips."""
    return tuple(dict.fromkeys(run.clip for run in evidence.runs if run.group == group))


def arms_in(evidence: Evidence, group: str) -> tuple[str, ...]:
    """The arms that were run on a group."""
    return tuple(dict.fromkeys(run.arm for run in evidence.runs if run.group == group))


def group_title(group: str) -> str:
    """For people."""
    return GROUP_TITLES.get(group, group)


def arm_title(arm: str) -> str:
    """For people."""
    return ARM_TITLES.get(arm, arm)


def true_stability_of(evidence: Evidence, group: str) -> Mean | None:
    """MSI3D of the true vertices of a group's clips, where the truth is known."""
    return mean_of(evidence.true_msi3d_vertices.get(clip) for clip in clips_of(evidence, group))


def expected_shape_error_of(evidence: Evidence, group: str) -> Mean | None:
    """MPVE at rest that an ideal estimator of a group's landmarks expects, where it is known."""
    return mean_of(evidence.expected_shape_error_mm.get(clip) for clip in clips_of(evidence, group))


def cvd_per_view(evidence: Evidence, arm: str, group: str) -> tuple[Mean | None, ...]:
    """Fig. S3: the distance of each view's meshes to those of the other views, mm; empty where there is none."""
    clips = [run.scores.cvd_per_view_mm for run in evidence.of(arm, group)]
    known = [values for values in clips if values is not None]
    views = max(map(len, known), default=0)
    return tuple(mean_of(values[view] for values in known if view < len(values)) for view in range(views))


def identity_spread_course(evidence: Evidence, arm: str, group: str) -> tuple[float, ...]:
    """Table S3b: standard deviation of the identity codes over a clip's images, pass by pass, mean over clips.

    A clip that ended sooner keeps its last value: its fit stays where it is.
    """
    clips = [run.identity_spread for run in evidence.of(arm, group) if run.identity_spread]
    passes = max(map(len, clips), default=0)
    return tuple(fmean(values[min(number, len(values) - 1)] for values in clips) for number in range(passes))


@dataclass(frozen=True, kw_only=True)
class HeldOutRow:
    """The held-out-view error of one arm on one clip, percent, and its means over the views that have one."""

    clip: str
    arm: str
    views: tuple[str, ...]
    nme51_percent: tuple[float | None, ...]
    nme51_head_percent: tuple[float | None, ...]
    mean_percent: float | None
    mean_head_percent: float | None


def held_out_rows(evidence: Evidence) -> tuple[HeldOutRow, ...]:
    """One row per arm and clip, in the order in which they were run."""
    return tuple(
        HeldOutRow(
            **vars(run),
            mean_percent=_plain(mean_of(run.nme51_percent)),
            mean_head_percent=_plain(mean_of(run.nme51_head_percent)),
        )
        for run in evidence.held_out
    )


def _plain(mean: Mean | None) -> float | None:
    return None if mean is None else mean.mean
