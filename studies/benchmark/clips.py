"""The clips of the benchmark: small values that can be sent to another process, which renders or reads them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from neuface.evaluation.landmarks_3d import triangulate_inner51
from neuface.head.model import HeadModel
from neuface.io.scans import read_scan
from studies.benchmark.settings import BenchmarkSettings
from studies.common.cache_keys import FileHashes, rendered_clip_key
from studies.common.cases import CLEAN, HARD, SCAN, SYNTHETIC, TEST, Case, CaseSpec, make_case
from studies.common.kept_runs import Json
from studies.common.recordings import FOUR_CAMERAS, REAL_1VIEW, SCAN_FILES, RealCase, RealFootage

LARGEST_TRIANGULATION_ERROR_PX = 8.0
"""Reprojection error above which a triangulated landmark does not count as truth."""


@dataclass(frozen=True, kw_only=True)
class RenderedClip:
    """A clip of a rendered person, or of the scan."""

    spec: CaseSpec
    scan_folder: str | None = None
    """Where the scan lies; None for rendered people."""

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def group(self) -> str:
        return self.spec.group

    def key(self, hashes: FileHashes) -> Json:
        """What the clip depends on. Raises InputError for a file of the scan that cannot be read."""
        key = rendered_clip_key(self.spec)
        if self.scan_folder is not None:
            key["files"] = hashes.of([f"{self.scan_folder}/{file}" for file in SCAN_FILES])
        return key

    def load(self, head: HeadModel) -> Case:
        """Render the clip. Raises InputError for a scan that cannot be read."""
        return make_case(self.spec, head, None if self.scan_folder is None else read_scan(self.scan_folder))


@dataclass(frozen=True, kw_only=True)
class RealClip:
    """A real clip, cut to its first frames."""

    recording: RealCase
    frames: int

    @property
    def name(self) -> str:
        return self.recording.name

    @property
    def group(self) -> str:
        return self.recording.group

    def key(self, hashes: FileHashes) -> Json:
        """What the clip depends on. Raises InputError for a file that cannot be read."""
        return {"name": self.name, "frames": self.frames, "files": hashes.of(self.recording.files())}

    def load(self, head: HeadModel) -> Case:
        """Read the clip and triangulate its landmarks where cameras are calibrated; `head` is not used.

        Raises InputError for files that cannot be read.
        """
        clip, cameras = self.recording.load(self.frames), self.recording.cameras()
        triangulated = None
        if cameras is not None:
            triangulated = triangulate_inner51(
                cameras.cameras, clip.track, max_error_px=LARGEST_TRIANGULATION_ERROR_PX
            )
        return Case(clip=clip, triangulated=triangulated)


BenchmarkClip = RenderedClip | RealClip


def benchmark_clips(settings: BenchmarkSettings, footage: RealFootage) -> tuple[BenchmarkClip, ...]:
    """The clips of the benchmark, in the order of its groups."""
    return (*_people(settings), *_scans(settings, footage), *_real(settings, footage))


def _people(settings: BenchmarkSettings) -> list[RenderedClip]:
    specs = [
        CaseSpec(
            kind=SYNTHETIC,
            role=TEST,
            views=views,
            # No person appears both in front of one camera and in front of three.
            number=number if views == 1 else settings.people + number,
            time=settings.frames if views == 1 else settings.frames_of_three,
            size_px=settings.size_px,
            condition=condition,
        )
        for condition in (CLEAN, HARD)
        for views in (1, 3)
        for number in range(settings.people)
    ]
    return [RenderedClip(spec=spec) for spec in specs]


def _scans(settings: BenchmarkSettings, footage: RealFootage) -> list[RenderedClip]:
    if footage.scan_folder is None:
        return []
    specs = [
        CaseSpec(
            kind=SCAN,
            role=TEST,
            views=views,
            number=number,
            time=settings.scan_frames if views == 1 else settings.scan_frames_of_three,
            size_px=settings.size_px,
        )
        for views in (1, 3)
        for number in range(settings.scans)
    ]
    return [RenderedClip(spec=spec, scan_folder=os.fspath(footage.scan_folder)) for spec in specs]


def _real(settings: BenchmarkSettings, footage: RealFootage) -> list[RealClip]:
    limits = {
        REAL_1VIEW: (settings.real_clips, settings.real_frames),
        FOUR_CAMERAS: (min(1, settings.four_camera_frames), settings.four_camera_frames),
    }
    return [
        RealClip(recording=recording, frames=frames)
        for group, (count, frames) in limits.items()
        for recording in footage.of_group(group)[:count]
    ]
