"""Fit two clips of one person together, with one identity code for both.

    python examples/06_two_clips_of_one_person.py

More views of a face determine its shape better, also when they come from different days.
"""

from __future__ import annotations

from pathlib import Path

import tyro

import neuface

DATA = Path(__file__).parent / "data"


def main(out: Path = Path("out"), passes: int = 5) -> None:
    out.mkdir(parents=True, exist_ok=True)
    clips = [
        neuface.read_clip(DATA / f"{name}.mp4", DATA / f"{name}.landmarks.npz") for name in ("front", "later")
    ]
    first, second = neuface.optimize_person(
        clips, config=neuface.FitConfig.best({"m_step.stop.max_passes": passes})
    )
    first.save(out / "front.npz")
    second.save(out / "later.npz")
    print(first, second, sep="\n")
    print("one identity for both:", first.identity.equal(second.identity))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
