"""Peak memory of a fit by the number of frames, 720p, on the open model.

    python -m studies.long_clips --frames 500 2000 --out memory.json
    python -m studies.long_clips --frames 500 2000 --landmarks found

Every number of frames is fitted in a process of its own, whose largest resident memory is read. A short rendered
video is decoded and repeated as often as needed. One pass is enough: further passes need no more memory.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from jaxtyping import Float, UInt8
from torch import Tensor

import neuface
from neuface.frames import check_range
from neuface.head.model import HeadModel
from neuface.io.video import VideoSource, write_video
from neuface.landmarks.schemes import MEDIAPIPE478
from neuface.models import load_head
from neuface.structs import Track, ndc_to_px
from neuface.synthetic.clips import SyntheticClip, make_talking_clip
from neuface.synthetic.people import open_head_identities

SIZE_HW = (720, 1280)
RENDERED_PX = 512
"""Side of the rendered picture in the middle of each frame, pixels."""
RENDERED_FRAMES = 48
"""Length of the video that is repeated."""
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
    """Fit each clip in a process of its own; print and write the figures."""
    found = []
    for frames in options.frames:
        command = [sys.executable, "-m", "studies.long_clips", "--frames", str(frames)]
        command += ["--landmarks", options.landmarks, "--passes", str(options.passes)]
        if len(options.frames) == 1:
            found.append(_measured(frames, options))
        else:
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "one.json"
                subprocess.run([*command, "--out", str(out)], check=True)
                found += [Measured(**item) for item in json.loads(out.read_text())]
    if options.out is not None:
        options.out.write_text(json.dumps([asdict(item) for item in found], indent=1) + "\n")
    for item in found if len(options.frames) > 1 else ():
        ratio = item.peak_mb / found[0].peak_mb
        print(
            f"{item.frames:6} frames: {item.peak_mb:6.0f} MiB, {ratio:.2f} of the first; {item.seconds:.0f} s"
        )


def _measured(frames: int, options: Options) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        head = load_head("open")
        clip = make_talking_clip(
            head,
            open_head_identities(1, 0)[0],
            view_yaw_deg=(0.0,),
            time=RENDERED_FRAMES,
            size_px=RENDERED_PX,
        )
        video = Path(folder) / "short.mp4"
        write_video(video, _frames_of(clip), clip.fps)
        track = _track(head, clip, frames) if options.landmarks == "given" else None
        del clip, head
        started = time.perf_counter()
        config = neuface.FitConfig.best({"m_step.stop.max_passes": options.passes})
        result = neuface.optimize(
            Repeated(VideoSource(video), frames), landmarks=track, config=config, progress=False
        )
        result.save(Path(folder) / "result.npz")
        report = result.report()
        seconds = time.perf_counter() - started
    # Linux counts in KiB, macOS in bytes.
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return Measured(
        frames=frames,
        landmarks=options.landmarks,
        peak_mb=round(peak, 1),
        seconds=round(seconds, 1),
        nme_percent=round(report["after"]["nme_percent"], 3),
    )


def _frames_of(clip: SyntheticClip) -> Iterator[UInt8[Tensor, "h w 3"]]:
    """The rendered pictures in the middle of grey frames."""
    top, left = ((side - RENDERED_PX) // 2 for side in SIZE_HW)
    for picture in clip.frames[0]:
        frame = torch.full((*SIZE_HW, 3), 128, dtype=torch.uint8)
        frame[top : top + RENDERED_PX, left : left + RENDERED_PX] = picture
        yield frame


def _track(head: HeadModel, clip: SyntheticClip, frames: int) -> Track:
    """All landmarks of the repeated clip, with noise of their own in every frame."""
    top, left = ((side - RENDERED_PX) // 2 for side in SIZE_HW)
    clean: Float[Tensor, "1 time points 2"] = ndc_to_px(
        clip.camera.project(head.landmarks(clip.truth, MEDIAPIPE478.name)), RENDERED_PX
    ) + torch.tensor((float(left), float(top)))
    points_px = clean[:, torch.arange(frames) % RENDERED_FRAMES]
    points_px += NOISE_PX * torch.randn(points_px.shape, generator=torch.Generator().manual_seed(0))
    return Track(points_px=points_px, confidence=torch.ones_like(points_px[..., 0]), scheme=MEDIAPIPE478)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
