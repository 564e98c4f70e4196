"""Fit several synchronised cameras at once. They need no calibration.

    python examples/02_several_cameras.py

The videos must show the same instants: equally many frames, frame by frame. Their sizes may differ.
"""

from __future__ import annotations

from pathlib import Path

import tyro

import neuface

DATA = Path(__file__).parent / "data"
CAMERAS = ("left", "front", "right")


def main(out: Path = Path("out"), passes: int = 5) -> None:
    out.mkdir(parents=True, exist_ok=True)
    result = neuface.optimize(
        [DATA / f"{camera}.mp4" for camera in CAMERAS],
        landmarks=[DATA / f"{camera}.landmarks.npz" for camera in CAMERAS],
        config=neuface.FitConfig.best({"m_step.stop.max_passes": passes}),
    )
    result.save(out / "three_cameras.npz")
    report = result.report()
    before, after = report["before"]["cvd_mm"], report["after"]["cvd_mm"]
    print(result)
    print(
        f"distance between the cameras' meshes: {before:.2f} mm by the encoder alone, {after:.2f} mm fitted"
    )


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
