"""The columns of the studies' tables, the groups of clips, and means over clips: one vocabulary for all studies."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from studies.common.recordings import FOUR_CAMERAS, REAL_1VIEW
from studies.common.runs import Run

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
"""The groups that a complete benchmark has, in the order of the report."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One column of the tables."""

    name: str
    title: str
    unit: str
    better: Better | None
    """Which values are better: less, more, or nearer to one; None for what does not measure quality."""
    digits: int | None
    """Digits after the point; None: three significant digits, for values that differ tenfold between groups."""
    read: Callable[[Run], float | None]


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A metric's mean over the clips that have it."""

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


def _passes(run: Run) -> float | None:
    return None if run.passes is None else float(run.passes)


def _least_loss(run: Run) -> float | None:
    return None if run.least_loss is None else 1e3 * run.least_loss


SHAPE = (
    _metric("mpve_mm", "MPVE, rigid", "mm"),
    _metric("mpve_face_mm", "MPVE, face, rigid", "mm"),
    _metric("mpve_scaled_mm", "MPVE, with scale", "mm"),
    _metric("mpve_unaligned_mm", "MPVE, not aligned", "mm"),
    _metric("scan_mm", "scan to mesh", "mm"),
    _metric("scan_scaled_mm", "scan to mesh, with scale", "mm"),
    _metric("landmarks_3d_median_mm", "3D landmarks, median", "mm"),
    _metric("landmarks_3d_per_image_median_mm", "3D landmarks, rotation per image, median", "mm"),
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
    _metric("passes", "passes", "count", None, 0, _passes),
    _metric("seconds", "fit time", "s per clip", None, 1, lambda run: run.seconds),
)
"""What does not measure quality."""

LOSS = _metric("loss", "loss", "1e-3", read=_least_loss)
"""The objective that was reached; comparable only between variants that share their objective."""

METRICS = {metric.name: metric for metric in (*SHAPE, *MOTION, *EFFORT)}


def mean_of(values: Iterable[float | None]) -> Mean | None:
    """Mean over the values that are known and finite; None without any.

    >>> mean_of([1.0, None, float("nan"), 3.0]).mean
    2.0
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return None
    return Mean(mean=fmean(known), clips=len(known), stdev=stdev(known) if len(known) > 1 else None)


def value_of(mean: Mean | None) -> float | None:
    """The plain number of a mean."""
    return None if mean is None else mean.mean


def group_title(group: str) -> str:
    """The title of a group for people."""
    return GROUP_TITLES.get(group, group)
