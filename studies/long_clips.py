"""Peak memory of a fit by the number of frames, 720p, on the open model.

    python -m studies.long_clips --frames 500 2000 --out memory.json
    python -m studies.long_clips --frames 500 2000 --landmarks found

Every number of frames is fitted in a process of its own, whose largest resident memory is read. A short rendered
video is decoded and repeated as often as needed. One pass is enough: further passes need no more memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from jaxtyping import UInt8
from torch import Tensor

import neuface
from neuface.frames import check_range
from neuface.io.video import VideoSource, write_video
from neuface.landmarks.schemes import MEDIAPIPE478
from neuface.models import load_head
from neuface.structs import Track, ndc_to_px
from neuface.synthetic.clips import make_talking_clip
from neuface.synthetic.people import open_head_identities

SIZE_HW = (720, 1280)
RENDERED_PX = 256
"""Side of the rendered picture in the middle of each frame, pixels."""
RENDERED_FRAMES = 24
"""Length of the video that is repeated."""
VIDEO, POINTS = "short.mp4", "points_px.npy"
NOISE_PX = 0.6
"""Standard deviation of the given landmarks along x and along y, pixels."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which clips are fitted."""

    frames: tuple[int, ...] = (500, 2000)
    """Numbers of frames."""
    landmarks: Literal["given", "found"] = "given"
    """Whether all 478 landmarks are given, or the networks inside the package find them."""
    passes: int = 1
    out: Path | None = None
    """Where the figures are written, as JSON."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One fit."""

    frames: int
    landmarks: str
    peak_mb: float
    """Largest resident memory of the process, MiB, with the report and the saved result."""
    seconds: float
    nme_percent: float


class Repeated:
    """A video of one view that begins again and again, as a `FrameSource`."""

    views = 1

    def __init__(self, source: VideoSource, time: int) -> None:
        self._source, self.time = source, time

    def size_hw(self, view: int) -> tuple[int, int]:
        """Height and width of the frames."""
        return self._source.size_hw(view)

    def read(self, view: int, start: int, stop: int) -> UInt8[Tensor, "n h w 3"]:
        """Frames `start <= t < stop`."""
        check_range(self, view, start, stop)
        return torch.cat(
            [self._source.read(0, t, t + 1) for t in (t % self._source.time for t in range(start, stop))]
        )


def main(options: Options) -> None:
    """Make a short clip, fit it at every length in a process of its own; print and write the figures."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_short_clip(folder)
        for frames in options.frames:
            command = [sys.executable, "-c", "from studies.long_clips import fit_one; fit_one()", str(folder)]
            done = subprocess.run(
                [*command, str(frames), options.landmarks, str(options.passes)],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            item = Measured(**json.loads(done.stdout))
            found.append(item)
            ratio = item.peak_mb / found[0].peak_mb
            print(
                f"{frames:6} frames: {item.peak_mb:6.0f} MiB, {ratio:.2f} of the first; {item.seconds:.0f} s"
            )
    if options.out is not None:
        options.out.write_text(json.dumps([asdict(item) for item in found], indent=1) + "\n")


def fit_one() -> None:
    """Fit the clip of a folder at one length, and print the figures: the process that is measured."""
    folder, frames, landmarks = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    started = time.perf_counter()
    result = neuface.optimize(
        Repeated(VideoSource(folder / VIDEO), frames),
        landmarks=_track(folder, frames) if landmarks == "given" else None,
        config=neuface.FitConfig.best({"m_step.stop.max_passes": int(sys.argv[4])}),
        progress=False,
    )
    result.save(folder / "result.npz")
    nme_percent = result.report()["after"]["nme_percent"]
    found = Measured(
        frames=frames,
        landmarks=landmarks,
        peak_mb=round(peak_mb(), 1),
        seconds=round(time.perf_counter() - started, 1),
        nme_percent=round(nme_percent, 3),
    )
    print(json.dumps(asdict(found)))


def peak_mb() -> float:
    """Largest resident memory of this process, MiB; Linux only.

    `resource.getrusage` would count what the process had before it became this program.
    """
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def _write_short_clip(folder: Path) -> None:
    """The video of a rendered person in the middle of grey frames, and its exact landmarks."""
    head = load_head("open")
    person = open_head_identities(1, 0)[0]
    clip = make_talking_clip(head, person, view_yaw_deg=(0.0,), time=RENDERED_FRAMES, size_px=RENDERED_PX)
    top, left = ((side - RENDERED_PX) // 2 for side in SIZE_HW)
    frames = torch.full((RENDERED_FRAMES, *SIZE_HW, 3), 128, dtype=torch.uint8)
    frames[:, top : top + RENDERED_PX, left : left + RENDERED_PX] = clip.frames[0]
    write_video(folder / VIDEO, frames, clip.fps)
    points = clip.camera.project(head.landmarks(clip.truth, MEDIAPIPE478.name))
    points_px = ndc_to_px(points, RENDERED_PX) + torch.tensor((float(left), float(top)))
    np.save(folder / POINTS, points_px[0].numpy())


def _track(folder: Path, frames: int) -> Track:
    """All landmarks of the repeated clip, with noise of their own in every frame."""
    clean = torch.from_numpy(np.load(folder / POINTS))
    points_px = clean[torch.arange(frames) % len(clean)]
    points_px += NOISE_PX * torch.randn(points_px.shape, generator=torch.Generator().manual_seed(0))
    return Track(
        points_px=points_px[None], confidence=torch.ones(1, *points_px.shape[:2]), scheme=MEDIAPIPE478
    )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
