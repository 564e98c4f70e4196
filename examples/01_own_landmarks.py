"""Give landmarks of your own detector as arrays: MediaPipe's 478 points, or 68 points with confidences.

    python examples/01_own_landmarks.py

Landmarks are frame pixels. A point that was not found is NaN; a frame without a face is NaN as a whole. The number of
points determines the scheme: 68 is iBUG's (FAN, dlib), 478 or 468 is MediaPipe's face mesh.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tyro

import neuface

DATA = Path(__file__).parent / "data"
VIDEO = DATA / "front.mp4"


def main(out: Path = Path("out"), passes: int = 5) -> None:
    out.mkdir(parents=True, exist_ok=True)
    config = neuface.FitConfig.best({"m_step.stop.max_passes": passes})

    # MediaPipe gives shares of the frame's width and height; multiply them by both to get pixels.
    mediapipe = np.load(DATA / "front.mediapipe.npz")["points_px"]  # (frames, 478, 2)
    print("frames without a face:", np.flatnonzero(np.isnan(mediapipe).all((1, 2))))
    result = neuface.optimize(VIDEO, landmarks=mediapipe, config=config)
    result.save(out / "mediapipe.npz")
    print(result)

    # FAN and others know how sure they are of a point: a third column, 0 (missing) to 1.
    points = np.load(DATA / "front.landmarks.npz")["points_px"]  # (frames, 68, 2)
    confidence = np.ones((*points.shape[:2], 1))
    confidence[:10, 48:] = 0.2  # Something passes before the mouth here: trust its points less.
    confidence[10:15, 48:] = 0.0  # Here the mouth is hidden: leave its points out.
    fan = np.concatenate((points, confidence), axis=-1)  # (frames, 68, 3)
    result = neuface.optimize(VIDEO, landmarks=fan, config=config)
    result.save(out / "fan.npz")
    print(result)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
