"""Find the frames that went wrong: status, landmark error, the overlay of the worst frame.

    python examples/04_look_at_the_quality.py

docs/results.md explains the figures, docs/troubleshooting.md what to do about bad ones.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tyro

import neuface

DATA = Path(__file__).parent / "data"


def main(out: Path = Path("out"), passes: int = 10) -> None:
    out.mkdir(parents=True, exist_ok=True)
    points = np.load(DATA / "front.landmarks.npz")["points_px"]
    points[40] += 30.0  # The detector found something else in this frame.
    result = neuface.optimize(
        DATA / "front.mp4",
        landmarks=points,
        config=neuface.FitConfig.best({"m_step.stop.max_passes": passes}),
    )

    print(result)
    for status in neuface.Status:
        frames = (result.status[0] == status).nonzero()[:, 0].tolist()
        print(f"{status.name}: {len(frames)} frames {frames[:10]}\n    {status.sentence}")

    error = result.image_nme_percent[0].nan_to_num(0.0)  # NaN where the frame has no landmarks
    print("largest landmark errors:")
    for frame in error.argsort(descending=True)[:5].tolist():
        print(f"    frame {frame}: {error[frame]:.2f} % of the distance between the outer eye corners")

    result.save(out / "talk.npz")
    result.overlay(out / "talk_overlay.mp4")
    print(f"look at {out / 'talk_overlay.mp4'}: frame, encoder alone, fitted mesh")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
