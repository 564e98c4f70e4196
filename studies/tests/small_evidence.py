"""A hand-made study whose means, verdicts and orderings are known by hand.

Two clips of rendered people before three cameras with every variant, one real clip on which official() was not run.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from studies.benchmark.records import Evidence, HeldOutRun
from studies.benchmark.settings import BenchmarkSettings
from studies.common.runs import Run
from studies.common.scores import Scores

PEOPLE, REAL = "synthetic_3views", "real_1view"
ALL_ABSENT = [
    "synthetic_1view",
    "hard_synthetic_1view",
    "hard_synthetic_3views",
    "scan_1view",
    "scan_3views",
    "four_cameras",
]


def scores(**figures: Any) -> Scores:
    """What is not named does not apply."""
    nothing = {item.name: None for item in fields(Scores)}
    named = {name: float(value) if isinstance(value, int) else value for name, value in figures.items()}
    return Scores(**{**nothing, "expression_outside_percent": 0.0, **named})


def run(clip: str, group: str, variant: str, spread: tuple[float, ...] = (), **figures: Any) -> Run:
    return Run(
        clip=clip,
        group=group,
        variant=variant,
        scores=scores(**figures),
        frames=24,
        views=3 if group == PEOPLE else 1,
        identity_spread=spread,
    )


# By variant: the figures of clips a and b.
FIGURES: dict[str, dict[str, tuple[float | None, float | None]]] = {
    "encoder": {"mpve_mm": (4, 6), "cvd_mm": (2, 2), "nme_percent": (4, 4), "msi3d_vertices": (1, 1)},
    "direct": {"mpve_mm": (3, 3), "cvd_mm": (1, 1), "nme_percent": (1, 1), "msi3d_vertices": (2, 2)},
    "paper": {
        "mpve_mm": (2, 4),
        "cvd_mm": (0.5, 0.5),
        "nme_percent": (1.5, 1.5),
        "msi3d_vertices": (2, 2),
        "angular_velocity_error_deg": (0.3, 0.3),
        "lip_opening_error_mm": (1.0, 1.0),
    },
    "official": {
        "mpve_mm": (4, 4),
        "cvd_mm": (0.4, 0.4),
        "nme_percent": (2, 2),
        "msi3d_vertices": (4, 4),
        "angular_velocity_error_deg": (0.2, 0.2),
        "lip_opening_error_mm": (0.9, None),
    },
    "official_fast": {"mpve_mm": (2, 2)},
    "neural": {"mpve_mm": (2, 2), "nme_percent": (1.8, 1.8)},
    "best": {
        "mpve_mm": (0.5, 1.5),
        "cvd_mm": (0.4, 0.4),
        "nme_percent": (1.6, 1.6),
        "msi3d_vertices": (2, 4),
        "angular_velocity_error_deg": (0.25, 0.25),
        "lip_opening_error_mm": (0.8, 1.2),
    },
    "only_landmarks": {"cvd_mm": (3, 3), "nme_percent": (1.4, 1.4), "msi3d_vertices": (0.5, 0.5)},
    "with_multiview": {"cvd_mm": (0.6, 0.6), "nme_percent": (1.45, 1.45)},
    "with_temporal": {"cvd_mm": (3.2, 3.2), "msi3d_vertices": (1.5, 1.5)},
    "paper_median": {"cvd_mm": (0.52, 0.52), "nme_percent": (1.7, 1.7)},
    "paper_photo2": {"cvd_mm": (0.6, 0.6), "nme_percent": (1.4, 1.4), "msi3d_vertices": (1.9, 1.9)},
    "paper_photo5": {"cvd_mm": (0.6, 0.6), "nme_percent": (1.6, 1.6), "msi3d_vertices": (2.1, 2.1)},
}
SPREADS = {"a": (0.4, 0.2), "b": (0.6, 0.4, 0.2)}
CVD_PER_VIEW = {"a": (1.0, 2.0, 3.0), "b": (3.0, 2.0, None)}


def small_evidence() -> Evidence:
    runs = [
        run(
            clip,
            PEOPLE,
            variant,
            spread=SPREADS[clip] if variant == "paper" else (),
            cvd_per_view_mm=CVD_PER_VIEW[clip] if variant == "paper" else None,
            **{name: values[place] for name, values in figures.items()},
        )
        for variant, figures in FIGURES.items()
        for place, clip in enumerate("ab")
    ]
    real = {"encoder": 5.0, "direct": 3.0, "paper": 2.0, "official_fast": 3.0, "neural": 3.0, "best": 2.0}
    runs += [run("r", REAL, variant, nme_percent=value) for variant, value in real.items()]
    return Evidence(
        settings=BenchmarkSettings(people=2),
        encoder_hash="e" * 64,
        head_hash="h" * 64,
        workers=2,
        absent=("some <clip> | of nobody",),
        runs=tuple(runs),
        true_msi3d_vertices={"a": 3.0, "b": 5.0},
        expected_shape_error_mm={"a": 1.0, "b": 1.5},
        held_out=(),
    )


def four_camera_runs() -> tuple[Run, ...]:
    return tuple(
        run("session", "four_cameras", variant, landmarks_3d_median_mm=value)
        for variant, value in {"encoder": 6.0, "paper": 4.5, "best": 4.5}.items()
    )


def held_out_runs() -> tuple[HeldOutRun, ...]:
    return tuple(
        HeldOutRun(
            clip="session",
            variant=variant,
            views=("left", "middle", "right"),
            nme51_percent=errors,
            nme51_head_percent=(1.0, 1.0, 1.0),
        )
        for variant, errors in {"encoder": (5.0, 4.0, 6.0), "best": (2.0, 4.0, None)}.items()
    )
