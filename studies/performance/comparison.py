"""Two versions of neuface on the same clips: figures, and their ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from neuface.head.model import HeadModel
from studies.benchmark.clips import BenchmarkClip
from studies.common.recordings import find_footage
from studies.performance.quality import Options, figures_of
from studies.performance.saved_clips import compared_clips

COMPARED = (
    "mpve_mm", "mpve_face_mm", "true_nme_percent", "nme_percent", "angular_velocity_error_deg", "turning_kept",
    "lip_opening_error_mm", "lip_motion_kept", "cvd_mm", "held_out_nme51_percent", "landmarks_3d_median_mm",
    "scan_mm", "jitter_mm", "seconds", "cpu_seconds",
)  # fmt: skip
"""Figures that are compared; less is better, but for the shares that are kept, which are best at 1."""


def compared(
    head: HeadModel,
    *,
    baseline: Path,
    now: Path,
    config: str,
    data: Path,
    out: Path,
    clips: Sequence[BenchmarkClip] | None = None,
) -> list[dict[str, Any]]:
    """A row per figure: its mean over the clips that both versions have it for, and the ratio of the means.

    Args:
        baseline, now: checkouts. The baseline is fitted by its own `best()`.
        clips: others than those of the comparison, for a test.
    """
    chosen = tuple(compared_clips(find_footage(data))) if clips is None else clips
    found = []
    for name, tree, preset in (("baseline", baseline, "best"), ("now", now, config)):
        options = Options(
            tree=tree, out=out / "quality" / name, clips=out / "quality" / "clips", config=preset, data=data
        )
        found.append([figures_of(clip, head, options) for clip in chosen])
    return rows_of(*found)


def rows_of(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row per figure, from the figures of the same clips.

    >>> rows_of([{"clip": "a", "mpve_mm": 2.0}], [{"clip": "a", "mpve_mm": 1.0}])
    [{'figure': 'mpve_mm', 'clips': 1, 'baseline': 2.0, 'now': 1.0, 'ratio': 0.5}]
    """
    rows = []
    for figure in COMPARED:
        both = [
            (old[figure], new[figure])
            for old, new in zip(before, after, strict=True)
            if old.get(figure) is not None and new.get(figure) is not None
        ]
        if both:
            old, new = (fmean(values) for values in zip(*both, strict=True))
            rows.append(
                {
                    "figure": figure,
                    "clips": len(both),
                    "baseline": old,
                    "now": new,
                    "ratio": new / old if old else None,
                }
            )
    return rows
