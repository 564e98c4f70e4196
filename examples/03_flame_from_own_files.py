"""Fit FLAME's head with DECA, EMOCA or SMIRK from your own licensed files.

    NEUFACE_ASSETS=~/faces python examples/03_flame_from_own_files.py --model deca

The folder holds your downloads, in any folders inside it. Without it, the example lists what is needed and where to
get it, and reads the repository's synthetic FLAME file: the same layout, but not a face.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import tyro

import neuface

DATA = Path(__file__).parent / "data"
SYNTHETIC = Path(__file__).parents[1] / "tests/data/parity/flame_tiny/FLAME_NEUTRAL.npz"


def main(
    model: Literal["deca", "emoca", "smirk"] = "deca",
    assets: Path | None = None,
    out: Path = Path("out"),
    passes: int = 10,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    try:
        loaded = neuface.load_model(model, assets=assets)  # None: the folder that NEUFACE_ASSETS names
    except neuface.InputError as missing:
        print(missing)
        show_head(neuface.load_head(SYNTHETIC))
        return
    show_head(loaded.head)
    result = neuface.optimize(
        DATA / "front.mp4",
        landmarks=DATA / "front.landmarks.npz",
        model=loaded,
        config=neuface.FitConfig.best({"m_step.stop.max_passes": passes}),
    )
    result.save(out / f"{model}.npz")
    print(result)
    print("FLAME's codes:", result.identity.shape, result.expression.shape)


def show_head(head: neuface.HeadModel) -> None:
    neutral = head.neutral(1)
    print(f"{head.name}: {len(head.template)} vertices, {neutral.identity.shape[-1]} identity and", end=" ")
    print(f"{neutral.expression.shape[-1]} expression coefficients")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
