"""Change a weight of the objective, or begin with another preset, and compare the figures.

    python examples/07_another_configuration.py

docs/presets.md explains every field and what the presets are. The command line takes the same paths:
neuface optimize talk.mp4 --out out --preset paper --config.objective.temporal.weight 1.0
"""

from __future__ import annotations

from pathlib import Path

import tyro

import neuface
from neuface import FitConfig

DATA = Path(__file__).parent / "data"


def main(out: Path = Path("out"), passes: int = 5) -> None:
    out.mkdir(parents=True, exist_ok=True)
    limit = {"m_step.stop.max_passes": passes}
    configurations = {
        "best": FitConfig.best(limit),
        "best, five times the temporal weight": FitConfig.best({**limit, "objective.temporal.weight": 1.0}),
        "paper": FitConfig.paper(limit),
    }
    clip = neuface.read_clip(DATA / "front.mp4", DATA / "front.landmarks.npz", max_frames=20)
    for number, (title, config) in enumerate(configurations.items()):
        result = neuface.optimize(clip, config=config)
        result.save(out / f"configuration_{number}.npz")
        after = result.report()["after"]
        print(f"{title:38} landmark error {after['nme_percent']:.2f} %, ", end="")
        print(f"steadiness {after['msi3d_vertices']:.2f} frame^4/mm^2")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
