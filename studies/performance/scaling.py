"""Time and memory of whole fits against frames, views, landmarks and images at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studies.performance.long_fit import LongFit, measure_fit

PASSES = {"m_step.stop.max_passes": 4}
"""The same number of passes at every size."""
FRAMES = (100, 500, 2000)
VIEWS = (1, 2, 4, 8)
FRAMES_OF_VIEWS = 40
SCHEMES = ("ibug68", "mediapipe478")
FRAMES_OF_SCHEMES = 200


def scaling(
    folder: Path,
    *,
    frames: Sequence[int] = FRAMES,
    views: Sequence[int] = VIEWS,
    frames_of_views: int = FRAMES_OF_VIEWS,
    frames_of_schemes: int = FRAMES_OF_SCHEMES,
    threads: int = 1,
) -> list[dict[str, Any]]:
    """One fit of each size, each in a process of its own with one thread; landmarks given, small frames."""
    wanted = [
        *[LongFit(frames=count, changes=PASSES, threads=threads) for count in frames],
        *[LongFit(frames=frames_of_views, views=count, changes=PASSES, threads=threads) for count in views],
        *[
            LongFit(frames=frames_of_schemes, scheme=name, changes=PASSES, threads=threads)
            for name in SCHEMES
        ],
    ]
    return [_row(item, measure_fit(item, folder)) for item in wanted]


def _row(fit: LongFit, found: dict[str, float]) -> dict[str, Any]:
    return {
        "frames": fit.frames,
        "views": fit.views,
        "landmarks": fit.scheme,
        "ms_per_frame_view": 1000 * found["cpu_seconds"] / (fit.frames * fit.views),
        **found,
    }
