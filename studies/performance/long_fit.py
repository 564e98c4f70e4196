"""A fit of a clip of any length and number of cameras in a process of its own, with its memory and seconds.

A short rendered clip is repeated as often as needed; landmarks are given, with noise of their own in every frame.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

import neuface
from neuface.fitting.config import PRESETS, Preset
from neuface.fitting.joint import fit as joint_fit
from neuface.fitting.joint import solve as joint_solve
from neuface.frames import check_range
from neuface.models import load_head, load_model
from neuface.structs import Track, ndc_to_px
from neuface.synthetic.clips import make_talking_clip
from neuface.synthetic.people import open_head_identities
from studies.long_clips import peak_mb
from studies.performance.dense_landmarks import DENSE1000, STUDIED_SCHEMES, with_dense_landmarks

SIZE_PX = 128
SHORT = 12
"""Frames of the clip that is repeated."""
YAW_DEG = 40.0
"""Largest angle between a camera and the middle one."""
NOISE_PX = 0.3
STAGES = {
    "encoder": (joint_fit, "predict_clip"),
    "person": (joint_fit, "expect_person"),
    "passes": (joint_fit, "solve_clip"),
    "linear_system": (joint_solve, "solve"),
}
"""What a joint solution calls, by what it does; the linear systems are part of the passes."""


@dataclass(frozen=True, kw_only=True)
class LongFit:
    """What is fitted, and how."""

    frames: int
    views: int = 1
    scheme: str = "mediapipe478"
    changes: Mapping[str, Any] | None = None
    """Changes of the preset by dotted paths."""
    threads: int = 1
    preset: Preset = "best"
    memory_limit_mb: float | None = None
    """What the process may hold in memory, MiB, by `limit_memory`; Linux only."""


class RepeatedViews:
    """A short clip of several cameras that begins again and again, as a `FrameSource`."""

    def __init__(self, frames: UInt8[Tensor, "views short h w 3"], time: int) -> None:
        self._frames, self.views, self.time = frames, len(frames), time

    def size_hw(self, view: int) -> tuple[int, int]:
        """Height and width of the frames."""
        return (self._frames.shape[2], self._frames.shape[3])

    def read(self, view: int, start: int, stop: int) -> UInt8[Tensor, "n h w 3"]:
        """Frames `start <= t < stop`."""
        check_range(self, view, start, stop)
        return self._frames[view, torch.arange(start, stop) % self._frames.shape[1]]


def make_short_clip(path: Path, views: int) -> None:
    """Render the clip that is repeated, with the exact landmarks of every scheme."""
    head = with_dense_landmarks(load_head("open"))
    (identity,) = open_head_identities(1, 0)
    yaw_deg = [0.0] if views == 1 else torch.linspace(-YAW_DEG, YAW_DEG, views).tolist()
    clip = make_talking_clip(head, identity, view_yaw_deg=yaw_deg, time=SHORT, size_px=SIZE_PX)
    points: dict[str, Any] = {
        name: ndc_to_px(clip.camera.project(head.landmarks(clip.truth, name)), SIZE_PX).numpy()
        for name in head.embeddings
    }
    np.savez(path, frames=clip.frames.numpy(), **points)


def write_short_fit(path: Path, *, frames: int = 75) -> Path:
    """A clip of one camera for `child.fit_saved`, repeated to this length."""
    short = path.with_name("short_1.npz")
    make_short_clip(short, 1)
    index = np.arange(frames) % SHORT
    with np.load(short) as made:
        points = made["mediapipe478"][:, index]
        noise = NOISE_PX * np.random.default_rng(0).standard_normal(points.shape)
        seen = np.concatenate((points + noise, np.ones_like(points[..., :1])), -1)
        np.savez(path, frames_0=made["frames"][0][index], points=seen.astype(np.float32), fps=25.0)
    return path


def measure_fit(wanted: LongFit, folder: Path) -> dict[str, float]:
    """Largest resident memory (MiB) and seconds of a fit in a process of its own."""
    short = folder / f"short_{wanted.views}.npz"
    if not short.exists():
        make_short_clip(short, wanted.views)
    command = [sys.executable, "-c", "from studies.performance.long_fit import main; main()"]
    done = subprocess.run(
        [*command, str(short), json.dumps(vars(wanted))], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Carry out one fit and print its figures: the process that is measured."""
    path, wanted = Path(sys.argv[1]), LongFit(**json.loads(sys.argv[2]))
    torch.set_num_threads(wanted.threads)
    with np.load(path) as short:
        frames, clean = torch.from_numpy(short["frames"]), torch.from_numpy(short[wanted.scheme])
    points_px = clean[:, torch.arange(wanted.frames) % SHORT]
    points_px += NOISE_PX * torch.randn(points_px.shape, generator=torch.Generator().manual_seed(0))
    track = Track(
        points_px=points_px,
        confidence=torch.ones(points_px.shape[:-1]),
        scheme=STUDIED_SCHEMES[wanted.scheme],
    )
    clip = neuface.read_clip(RepeatedViews(frames, wanted.frames), track)
    model = load_model("open")
    if wanted.scheme == DENSE1000.name:
        model = replace(model, head=with_dense_landmarks(model.head))
    config = PRESETS[wanted.preset].changed(wanted.changes)
    before_mb = peak_mb()
    if wanted.memory_limit_mb is not None:
        limit_memory(wanted.memory_limit_mb)
    started, cpu = time.perf_counter(), time.process_time()
    with stages_timed() as stages:
        result = neuface.optimize(clip, model=model, config=config, progress=False)
    print(
        json.dumps(
            {
                "peak_mb": peak_mb(),
                "before_mb": before_mb,
                "seconds": time.perf_counter() - started,
                "cpu_seconds": time.process_time() - cpu,
                **{f"{name}_cpu_seconds": value for name, value in stages.items()},
                "passes": len(result.history["total"]) - 1,
            }
        )
    )


def limit_memory(most_mb: float) -> None:
    """Let this process allocate what it lacks to this resident memory, MiB: more raises an error. Linux only.

    Limited is private memory that can be written (RLIMIT_DATA), stacks of threads included, whether it is resident
    or not; programs and models in files, which are there already, do not count. A limit of all addresses (RLIMIT_AS)
    would say nothing, because torch reserves far more of them than it uses.
    """
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    size_kb = {
        line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmRSS", "VmData"))
    }
    limit = 1024 * (size_kb["VmData"] - size_kb["VmRSS"]) + int(most_mb * 2**20)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


@contextmanager
def stages_timed() -> Iterator[dict[str, float]]:
    """Processor time of all threads in each of `STAGES`, seconds, of what the block computes."""
    seconds = dict.fromkeys(STAGES, 0.0)

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[name] += time.process_time() - started

        return call

    with ExitStack() as stack:
        for name, (module, function) in STAGES.items():
            stack.enter_context(patch.object(module, function, timed(name, getattr(module, function))))
        yield seconds
