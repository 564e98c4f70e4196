"""The clips on which two versions of neuface are compared, saved so that both get the same frames and landmarks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from neuface.frames import Clip
from neuface.head.model import HeadModel
from neuface.io.atomic import atomic_path
from neuface.structs import HeadParams, Prediction, WeakPerspective
from studies.benchmark.clips import BenchmarkClip, RealClip, RenderedClip, benchmark_clips
from studies.benchmark.settings import BenchmarkSettings
from studies.common.cases import Case
from studies.common.recordings import RealFootage

LENGTHS = BenchmarkSettings(people=2, scans=1, real_clips=2)
"""The clips of the benchmark, of two people instead of four."""
GROUPS = {
    "synthetic_1view": 2,
    "hard_synthetic_1view": 2,
    "real_1view": 2,
    "synthetic_3views": 1,
    "hard_synthetic_3views": 1,
    "four_cameras": 1,
    "scan_1view": 1,
}
"""How many clips of each group are compared, in the order in which they are fitted."""


@dataclass(frozen=True, kw_only=True)
class SavedFit:
    """What `fit_saved` wrote of one fit."""

    prediction: Prediction
    """Batch axes `views time`, frame pixels."""
    valid: Bool[Tensor, "views time"]
    seconds: float
    cpu_seconds: float
    passes: int


def compared_clips(footage: RealFootage, lengths: BenchmarkSettings = LENGTHS) -> Iterator[BenchmarkClip]:
    """The clips of the comparison that can be made from this footage."""
    clips = benchmark_clips(lengths, footage)
    for group, count in GROUPS.items():
        yield from [clip for clip in clips if clip.group == group][:count]


def load_case(clip: BenchmarkClip, head: HeadModel, folder: Path) -> Case:
    """The clip with what is known of it; its frames and landmarks are saved below `folder` on the way."""
    case = clip.load(head)
    path = clip_path(folder, clip)
    if not path.exists():
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, **_arrays(case.clip))
    return case


def clip_path(folder: Path, clip: RenderedClip | RealClip) -> Path:
    """Where `load_case` saves a clip."""
    return folder / f"{clip.name}.npz"


def read_fit(path: Path) -> SavedFit:
    """A result of `fit_saved`."""
    with np.load(path) as arrays:
        params = {
            name: torch.from_numpy(arrays[name])
            for name in ("identity", "expression", "root_rotvec", "neck_rotvec", "jaw_rotvec", "eyes_rotvec")
        }
        camera = WeakPerspective(
            scale=torch.from_numpy(arrays["scale"]), offset=torch.from_numpy(arrays["offset"])
        )
        return SavedFit(
            prediction=Prediction(params=HeadParams(**params), camera=camera),
            valid=torch.from_numpy(arrays["valid"]),
            seconds=float(arrays["seconds"]),
            cpu_seconds=float(arrays["cpu_seconds"]),
            passes=int(arrays["passes"]),
        )


def _arrays(clip: Clip) -> dict[str, Any]:
    frames = clip.recording.frames
    arrays: dict[str, Any] = {
        f"frames_{view}": frames.read(view, 0, clip.time).numpy() for view in range(clip.views)
    }
    points = torch.cat((clip.track.points_px, clip.track.confidence[..., None]), -1)
    return {**arrays, "points": points.numpy(), "fps": clip.recording.fps}
