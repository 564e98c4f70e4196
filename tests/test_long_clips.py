"""Memory of long clips: what a stage needs for a moment does not grow with the number of frames."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from neuface.evaluation import figures, quality
from neuface.head import pieces
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import IBUG68
from neuface.structs import HeadParams, Prediction, Track, WeakPerspective

MOST = 4
"""Number of heads that may be decoded at once in these tests."""


def test_figures_and_quality_decode_few_heads_at_a_time(
    open_head: HeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = 5 * MOST + 1
    generator = torch.Generator().manual_seed(0)
    params = replace(
        open_head.neutral(1, time), root_rotvec=0.1 * torch.randn(1, time, 3, generator=generator)
    )
    camera = WeakPerspective(scale=torch.full((1, time), 500.0), offset=torch.full((1, time, 2), 100.0))
    prediction = Prediction(params=params, camera=camera)
    points = camera.project(open_head.landmarks(params, "ibug68"))
    points = points + torch.randn(points.shape, generator=generator)
    track = Track(points_px=points, confidence=torch.ones_like(points[..., 0]), scheme=IBUG68)

    def judged() -> tuple[Tensor, figures.Figures]:
        score = quality.judge(open_head, prediction, track, [(200, 200)])[0].score
        return score, figures.measure(open_head, prediction, track, track.usable, params)

    score, whole = judged()
    sizes = []
    posed = HeadModel._posed

    def watched(self: HeadModel, some: HeadParams, rows: Any) -> Tensor:
        sizes.append(some.root_rotvec[..., 0].numel())
        return posed(self, some, rows)

    monkeypatch.setattr(HeadModel, "_posed", watched)
    for module in (pieces, figures):
        monkeypatch.setattr(module, "MESHES_PER_CHUNK", MOST)
    score_of_pieces, of_pieces = judged()
    assert max(sizes) <= MOST
    torch.testing.assert_close(score_of_pieces, score)
    assert of_pieces.cvd_mm is None
    for name in ("nme_percent", "nme51_percent", "msi3d_landmarks", "msi3d_vertices", "mpve_mm"):
        assert getattr(of_pieces, name) == pytest.approx(getattr(whole, name), rel=1e-5, abs=1e-6), name


LONG_SEARCH = """
import torch
from neuface.landmarks.candidates import FrameFaces
from neuface.landmarks.finding import FaceSearch
from neuface.landmarks.schemes import IBUG68

class Detector:
    scheme = IBUG68
    def detect(self, frames):
        found = []
        for frame in frames:
            # What networks compute on the way is large, and gone when the face is found.
            frame.float().square().mean()
            one = torch.ones(1)
            found.append(FrameFaces(points_px=torch.rand(1, 68, 2), confidence=torch.ones(1, 68), score=one))
        return found

frames = torch.zeros(8, 360, 640, 3, dtype=torch.uint8)
search = FaceSearch(Detector())

def peak_mb():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

for _ in range(10):
    search.look(frames)
before = peak_mb()
for _ in range(45):
    search.look(frames)
print(peak_mb() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and is about glibc's allocator")
def test_a_search_of_many_frames_leaves_no_holes_in_memory() -> None:
    """Each of 360 faces is 1 kB; a small tensor of its own for each made the memory grow by megabytes a frame."""
    done = subprocess.run(
        [sys.executable, "-c", LONG_SEARCH], capture_output=True, text=True, check=True, timeout=120
    )
    assert float(done.stdout) < 20
