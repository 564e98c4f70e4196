"""What the benchmark records: plain numbers and text, so that every record can be a JSON object."""

from __future__ import annotations

from dataclasses import dataclass

from studies.benchmark.settings import BenchmarkSettings
from studies.common.runs import Run


@dataclass(frozen=True, kw_only=True)
class TruthRecord:
    """What is known of a rendered person's clip without any fit."""

    clip: str
    msi3d_vertices: float
    """Motion stability of the true vertices, which a perfect fit has."""
    expected_shape_error_mm: float | None
    """MPVE at rest that an ideal estimator of the landmarks expects; None where the noise is not white."""


@dataclass(frozen=True, kw_only=True)
class HeldOutRun:
    """Errors of one variant in each camera while it was left out of the fit, inner 51 points, percent."""

    clip: str
    variant: str
    views: tuple[str, ...]
    nme51_percent: tuple[float | None, ...]
    """In percent of the outer-eye distance in the image."""
    nme51_head_percent: tuple[float | None, ...]
    """In percent of the head's outer-eye distance in 3D, which does not shrink in a profile."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that was measured, with all that it depends on."""

    settings: BenchmarkSettings
    encoder_hash: str
    head_hash: str
    workers: int
    """Processes that fitted clips side by side; `seconds` depend on them."""
    absent: tuple[str, ...]
    """One line for every part of the real data that is missing."""
    runs: tuple[Run, ...]
    true_msi3d_vertices: dict[str, float]
    """Motion stability of the truth, by clip."""
    expected_shape_error_mm: dict[str, float]
    """MPVE at rest that an ideal estimator of the landmarks expects, by clip; for clips with white noise."""
    held_out: tuple[HeldOutRun, ...]

    def of(self, variant: str, group: str) -> tuple[Run, ...]:
        """The runs of one variant on the clips of one group."""
        return tuple(run for run in self.runs if (run.variant, run.group) == (variant, group))
