"""Time and memory of whole fits against frames, views and landmarks.

Processor time is measured, because it depends less than seconds on the clock on what else the machine does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.performance.long_fit import LongFit, measure_fit

PASSES = {"m_step.stop.max_passes": 4, "m_step.stop.patience": 4}
"""The same number of passes at every size."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Which sizes are measured; one of them is changed at a time."""

    frames: Sequence[int] = (100, 200, 500, 1000, 2000, 5000, 20000)
    """Of one view, 478 landmarks."""
    views: Sequence[int] = (1, 2, 4, 8, 16)
    frames_of_views: int = 60
    schemes: Sequence[str] = ("ibug68", "mediapipe478", "dense1000")
    frames_of_schemes: int = 200
    whole: Sequence[int] = (75, 500, 2000)
    """Frames of fits with as many passes as they need."""

    def fits(self) -> Iterator[tuple[str, LongFit]]:
        """Every fit, with the name of the series that it belongs to."""
        for count in self.frames:
            yield "frames", LongFit(frames=count, changes=PASSES)
        for count in self.views:
            yield "views", LongFit(frames=self.frames_of_views, views=count, changes=PASSES)
        for name in self.schemes:
            yield "landmarks", LongFit(frames=self.frames_of_schemes, scheme=name, changes=PASSES)
        for count in self.whole:
            yield "whole fit", LongFit(frames=count)


def scaling(folder: Path, sizes: Sizes = Sizes()) -> list[dict[str, Any]]:
    """One fit of each size, each in a process of its own with one thread; landmarks given, small frames."""
    rows = []
    for series, fit in sizes.fits():
        rows.append(_row(series, fit, measure_fit(fit, folder)))
        print(rows[-1], flush=True)
    return rows


def _row(series: str, fit: LongFit, found: Mapping[str, float]) -> dict[str, Any]:
    return {
        "series": series,
        "frames": fit.frames,
        "views": fit.views,
        "landmarks": fit.scheme,
        "cpu_ms_per_image": 1000 * found["cpu_seconds"] / (fit.frames * fit.views),
        **found,
    }
