"""The memory of fits, measured, beside the formula of docs/performance.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuface.fitting.config import JointSolve
from neuface.io.image_store import MOST_IN_MEMORY_BYTES
from studies.performance.long_fit import LongFit, measure_fit

BASE_MB = 485.0
"""Memory that does not depend on the clip, MiB: Python, torch, the open model, and the equations of some images."""
IMAGE_AT_ONCE_MB = 1.1
"""Of each image that the open encoder predicts at once, beyond those in `BASE_MB`."""
AT_ONCE_IN_BASE = 32
STORED_IMAGE_MB = 3 * 112 * 112 * 4 / 2**20
"""Of each image as the open encoder takes it, up to the size from which they are kept in a file."""
VIEW_MB = 55.0
"""Of each view but the first, while the person is estimated."""
IMAGE_OF_PIECE_MB = 0.11
"""Of each image of the frames that are solved together, which is after the estimate."""
IMAGE_MB = 0.02
"""Of each image of the clip: its landmarks, its parameters, and what results from them."""
ONE_PASS = {"m_step.stop.max_passes": 1}
AT_ONCE = "m_step.images_at_once"


def memory(folder: Path, cases: tuple[LongFit, ...] | None = None) -> list[dict[str, Any]]:
    """Largest resident memory of fits of some sizes, and what the formula says."""
    rows = []
    for fit in default_cases() if cases is None else cases:
        found = measure_fit(fit, folder)
        images_at_once = (fit.changes or {}).get(AT_ONCE, default_images_at_once())
        rows.append(
            {
                "frames": fit.frames,
                "views": fit.views,
                "images_at_once": images_at_once,
                "peak_mb": found["peak_mb"],
                "formula_mb": formula_mb(fit.frames, fit.views, images_at_once),
            }
        )
    return rows


def formula_mb(frames: int, views: int, images_at_once: int) -> float:
    """Upper bound of the resident memory of a fit by `best()` with the open model and 478 landmarks, MiB.

    >>> round(formula_mb(100, 1, 32))
    512
    """
    images = frames * views
    solved_together = min(frames, JointSolve().frames_at_once) * views
    return (
        BASE_MB
        + IMAGE_AT_ONCE_MB * max(0, min(images_at_once, images) - AT_ONCE_IN_BASE)
        + min(STORED_IMAGE_MB * images, MOST_IN_MEMORY_BYTES / 2**20)
        + max(VIEW_MB * (views - 1), IMAGE_OF_PIECE_MB * solved_together)
        + IMAGE_MB * images
    )


def default_images_at_once() -> int:
    """That of `best()`."""
    return JointSolve().images_at_once


def default_cases() -> tuple[LongFit, ...]:
    """One size after the other is changed."""
    return (
        LongFit(frames=50, changes=ONE_PASS),
        LongFit(frames=200, changes=ONE_PASS),
        LongFit(frames=800, changes=ONE_PASS),
        LongFit(frames=3000, changes=ONE_PASS),
        LongFit(frames=50, views=4, changes=ONE_PASS),
        LongFit(frames=200, views=4, changes=ONE_PASS),
        LongFit(frames=200, changes={**ONE_PASS, AT_ONCE: 16}),
        LongFit(frames=200, changes={**ONE_PASS, AT_ONCE: 256}),
    )
