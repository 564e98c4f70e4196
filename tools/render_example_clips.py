"""Render the video and landmark files of examples/data: the open head (CC0) as a person whom the encoder was not
trained on.

python tools/render_example_clips.py                 writes examples/data

    front.mp4, left.mp4, right.mp4   one talk before three synchronised cameras, 2 seconds
    later.mp4                        the same person at another time, one camera
    *.landmarks.npz                  `points_px` (frames, 68, 2): iBUG-68 with white noise, frame pixels
    front.mediapipe.npz              `points_px` (frames, 478, 2): MediaPipe's points with white noise

In frames 20 to 22 of `front` the points are missing, as if the detector had not found the face.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import neuface
from neuface.io.video import write_video
from neuface.landmarks.schemes import MEDIAPIPE478
from neuface.structs import ndc_to_px
from neuface.synthetic.clips import SyntheticClip, make_talking_clip
from neuface.synthetic.people import demo_identity

FOLDER = Path(__file__).parents[1] / "examples/data"
SIZE_PX, FRAMES = 256, 50
NOISE_PX = 0.5
"""Standard deviation of the landmarks' noise in each coordinate, pixels."""
CAMERAS_YAW_DEG = {"front": 0.0, "left": -35.0, "right": 35.0}
MISSING = slice(20, 23)
"""Frames of `front` without landmarks."""


def main() -> None:
    """Write every file of examples/data again."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    talk = _clip(tuple(CAMERAS_YAW_DEG.values()), seed=21)
    for view, name in enumerate(CAMERAS_YAW_DEG):
        _write(name, talk, view, missing=MISSING if name == "front" else slice(0, 0))
    _write("later", _clip((10.0,), seed=22), 0, missing=slice(0, 0))
    _write_points(FOLDER / "front.mediapipe.npz", _mediapipe_points(talk), missing=MISSING)
    total = sum(file.stat().st_size for file in FOLDER.iterdir())
    print(f"{FOLDER}: {total / 1e6:.2f} MB")


def _clip(view_yaw_deg: tuple[float, ...], *, seed: int) -> SyntheticClip:
    return make_talking_clip(
        neuface.load_head("open"),
        demo_identity(),
        view_yaw_deg=view_yaw_deg,
        time=FRAMES,
        size_px=SIZE_PX,
        noise_px=NOISE_PX,
        seed=seed,
    )


def _mediapipe_points(clip: SyntheticClip) -> np.ndarray:
    """MediaPipe's 478 points of the first view, frame pixels."""
    points = neuface.load_head("open").landmarks(clip.truth[0], MEDIAPIPE478.name)
    exact = ndc_to_px(clip.camera[0].project(points), SIZE_PX)
    noise = torch.randn(exact.shape, generator=torch.Generator().manual_seed(23))
    return (exact + NOISE_PX * noise).numpy()


def _write(name: str, clip: SyntheticClip, view: int, *, missing: slice) -> None:
    write_video(FOLDER / f"{name}.mp4", clip.frames[view], clip.fps)
    _write_points(FOLDER / f"{name}.landmarks.npz", clip.landmarks_px[view].numpy(), missing=missing)


def _write_points(path: Path, points_px: np.ndarray, *, missing: slice) -> None:
    # Coordinates are rounded to hundredths of a pixel, because numbers with few digits compress better.
    points = points_px.astype(np.float32).round(2)
    points[missing] = np.nan
    np.savez_compressed(path, points_px=points)


if __name__ == "__main__":
    main()
