"""Fits beside other work on the same cores, with the settings of a user who has never heard of threads."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from neuface.io.atomic import write_json
from studies.performance.child import fit_saved

THREAD_SETTINGS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
)
"""Variables that change the number of threads or how they wait; a user has none of them."""
SPIN = "while True: pass"


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What one fit took."""

    seconds: float
    """On the clock."""
    cpu_seconds: float
    """Of all its threads."""


def neighbours(
    tree: Path, config: str, clip: Path, folder: Path, *, views: int, rounds: int = 3, spinning: int = 2
) -> dict[str, Any]:
    """Seconds of one fit alone, of two side by side, and of one beside processes that only spin, in turn.

    Processor time shows threads that wait by spinning, also where others keep the cores busy; then seconds on the
    clock say little.

    Args:
        tree: the checkout of neuface that fits.
        config: as for `studies.performance.quality`.
        clip: a saved clip.
        folder: for the results and for what the processes are told.
        views: number of cameras of the clip.
        rounds: how often everything is measured; figures are medians.
    """
    names = ("alone", "two side by side", "beside spinning")
    found: dict[str, list[Spent]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            jobs = [
                _job(tree, config, clip, folder / f"{number}_{copy}.json", views=views)
                for copy in range(2 if name == "two side by side" else 1)
            ]
            with _spinning(spinning if name == "beside spinning" else 0):
                found[name] += _run_at_once(tree, jobs)
    clock = {name: median(spent.seconds for spent in found[name]) for name in names}
    cores = {name: median(spent.cpu_seconds for spent in found[name]) for name in names}
    return {
        "tree": tree.resolve().name,
        "alone_s": clock["alone"],
        "two_side_by_side": clock["two side by side"] / clock["alone"],
        f"beside_{spinning}_spinning": clock["beside spinning"] / clock["alone"],
        "alone_cpu_s": cores["alone"],
        "two_side_by_side_cpu": cores["two side by side"] / cores["alone"],
        f"beside_{spinning}_spinning_cpu": cores["beside spinning"] / cores["alone"],
        "seconds": {name: [spent.seconds for spent in found[name]] for name in names},
    }


def environment_without_threads() -> dict[str, str]:
    """The variables of this process's environment, but for those that change threads."""
    return {name: value for name, value in os.environ.items() if name not in THREAD_SETTINGS}


def _job(tree: Path, config: str, clip: Path, path: Path, *, views: int) -> Path:
    out = path.with_suffix(".npz")
    fit = {"clip": str(clip), "views": list(range(views)), "out": str(out)}
    write_json(
        path, {"tree": str(tree.resolve()), "config": config, "threads": 0, "wait": True, "fits": [fit]}
    )
    return path


def _run_at_once(tree: Path, jobs: Sequence[Path]) -> list[Spent]:
    """Let processes begin at once, and return what each fit took."""
    environment = {**environment_without_threads(), "PYTHONPATH": str(tree.resolve())}
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, fit_saved.__file__, str(job)],
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for job in jobs
        ]
        for process in processes:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError("a fit ended before it began; its error stands above")
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            if process.wait():
                raise RuntimeError("a fit failed; its error stands above")
    found = []
    for job in jobs:
        with np.load(job.with_suffix(".npz")) as arrays:
            found.append(Spent(seconds=float(arrays["seconds"]), cpu_seconds=float(arrays["cpu_seconds"])))
    return found


@contextmanager
def _spinning(count: int) -> Iterator[None]:
    """Processes that compute without end while the block runs."""
    processes = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(count)]
    time.sleep(0.2 if processes else 0)
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
