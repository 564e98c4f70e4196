"""Seconds of the estimate of the person, which precedes every fit."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import process_time
from typing import Any

from neuface.devices import one_thread_per_operation
from neuface.encoders.calibration import OPEN_ENCODER
from neuface.fitting.person.estimate import estimate_person
from neuface.models import load_head
from studies.performance.rendered_track import rendered_problem
from studies.performance.timing import timed


def person(*, frames: tuple[int, ...] = (75, 500), rounds: int = 3) -> list[dict[str, Any]]:
    """Median seconds for clips of one camera with all landmarks of MediaPipe, by their number of frames."""
    head = load_head("open")
    rows = []
    for time in frames:
        made = rendered_problem(head, views=1, time=time)

        def estimate(made: Any = made) -> None:
            with one_thread_per_operation():
                estimate_person(head, made.initial, made.problem, calibration=OPEN_ENCODER)

        wall, cpu = zip(*[_seconds(estimate) for _ in range(rounds)], strict=True)
        rows.append({"frames": time, "seconds": median(wall), "cpu_seconds": median(cpu)})
    return rows


def _seconds(estimate: Callable[[], None]) -> tuple[float, float]:
    """On the clock, and of this process's cores, which others on the machine hardly change."""
    before = process_time()
    return timed(estimate), process_time() - before
