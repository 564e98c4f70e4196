"""Fit one clip from arrays, look at the figures, save the result and use it again.

    python examples/01_fit_one_clip.py --out out

The frames here are rendered, so that the example needs no video; yours come from a file
(`neuface.optimize("talk.mp4")`) or from any reader that gives uint8 RGB arrays.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import neuface
from neuface.demo import demo_identity
from neuface.synthetic.clips import make_talking_clip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--frames", type=int, default=24)
    options = parser.parse_args()

    head = neuface.load_head("open")
    clip = make_talking_clip(
        head, demo_identity(), view_yaw_deg=(10.0,), time=options.frames, size_px=256, seed=2
    )
    frames = clip.frames[0].numpy()  # (time, height, width, 3) uint8 RGB
    landmarks = clip.landmarks_px[0].numpy()  # (time, 68, 2) pixels, NaN where there is no face
    landmarks[3] = float("nan")  # A detector missed the face here: the fit goes on without it.

    result = neuface.optimize(frames, landmarks=landmarks, config=neuface.FitConfig(max_passes=60))

    report = result.report(truth=clip.truth)
    for name, before in report["before"].items():
        print(f"{name:16} {before:9.3f} -> {report['after'][name]:9.3f}")
    print("frames marked:", report["failed"])

    options.out.mkdir(parents=True, exist_ok=True)
    result.save(options.out / "talk.npz")
    again = neuface.FitResult.load(options.out / "talk.npz")
    vertices = again.vertices()  # (views, time, vertices, 3) metres
    print("vertices", tuple(vertices.shape), "identity", tuple(again.params.identity.shape))
    again.overlay(options.out / "talk_overlay.mp4", frames=result.frames)


if __name__ == "__main__":
    main()
