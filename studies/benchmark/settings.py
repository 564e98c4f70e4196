"""How large the benchmark is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from studies.common.settings import StudySettings


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings(StudySettings):
    """How large the benchmark is."""

    MAY_BE_ZERO: ClassVar[tuple[str, ...]] = ("scans", "real_clips", "four_camera_frames")

    people: int = 4
    """Rendered people in front of one camera, and as many in front of three; each once clean and once hard."""
    frames: int = 32
    """Length of a clip from one camera."""
    frames_of_three: int = 16
    """Length of a clip from three cameras, frames of each."""
    scans: int = 2
    """Rendered clips of the scan from one camera, and as many from three."""
    scan_frames: int = 16
    scan_frames_of_three: int = 8
    real_clips: int = 3
    """Real clips from one camera; people whom the encoder has not seen come first."""
    real_frames: int = 60
    four_camera_frames: int = 16
    """Frame sets of the session of four cameras; 0 leaves it out."""
    ablations: bool = True
    """Tables S1, S2 and S3a."""
    held_out: bool = True
    """Fit the session of four cameras once without each of them."""


FAST = BenchmarkSettings(
    people=1,
    frames=24,
    frames_of_three=8,
    scans=1,
    scan_frames=12,
    scan_frames_of_three=6,
    real_clips=1,
    real_frames=30,
    four_camera_frames=8,
    ablations=False,
)
"""All main variants on a clip of every group."""
