"""Fit a video: read it, optimise, save the result, draw the meshes over the frames.

    python examples/00_a_video_in_five_lines.py
    python examples/00_a_video_in_five_lines.py --video talk.mp4 --landmarks None --passes 150

Without landmarks the package face-alignment finds them (pip install "neuface[fan]"). The clip in examples/data is
rendered; ten passes keep the example short, and the default is a limit of 150.
"""

from __future__ import annotations

from pathlib import Path

import tyro

import neuface

DATA = Path(__file__).parent / "data"


def main(
    video: Path = DATA / "front.mp4",
    landmarks: Path | None = DATA / "front.landmarks.npz",
    out: Path = Path("out"),
    passes: int = 10,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    result = neuface.optimize(
        video, landmarks=landmarks, config=neuface.FitConfig.best({"m_step.stop.max_passes": passes})
    )
    result.save(out / "talk.npz")  # neuface.FitResult.load reads it again
    result.overlay(out / "talk_overlay.mp4")
    print(result)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
