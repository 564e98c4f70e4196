"""Whole commands in the settings of a user who has never heard of threads, and their fits."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from studies.common.recordings import find_footage
from studies.performance.neighbours import environment_without_threads

OPTIMIZE = """
import json, sys, time
import neuface
import neuface.pipeline
frames, landmarks, limit, passes = json.loads(sys.argv[1])
started, cpu = time.perf_counter(), time.process_time()
clip = neuface.read_clip(frames, landmarks, max_frames=limit)
read = time.perf_counter()
changes = {} if passes is None else {"m_step.stop.max_passes": passes}
result = neuface.optimize(clip, config=neuface.FitConfig.best(changes), progress=False)
found = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
print(json.dumps({**found, "read_s": read - started, "fit_s": result.seconds}))
"""
"""A fit after the imports."""


def commands(
    data: Path, folder: Path, *, demo: bool = True, passes: int | None = None
) -> list[dict[str, Any]]:
    """Seconds of the demo, of a short clip with given landmarks, and of a webcam's 150 frames.

    Args:
        data: folder of real clips; those that are missing are left out.
        folder: for the demo's outputs.
        passes: limit of passes, for a test.
    """
    rows = [_demo(folder, passes)] if demo else []
    cases = {case.name: case for case in find_footage(data).cases}
    wanted = (
        ("bbaf2n, landmarks given", "bbaf2n", True, 75),
        ("bbaf2n, landmarks found", "bbaf2n", False, 75),
        ("webcam, landmarks given", "cap12", True, 150),
        ("webcam, landmarks found", "cap12", False, 150),
    )
    for title, name, given, frames in wanted:
        if name in cases:
            video, landmarks, *_ = map(str, cases[name].files())
            rows.append({"what": title, **optimize(video, landmarks if given else None, frames, passes)})
    return rows


def optimize(video: str, landmarks: str | None, frames: int, passes: int | None = None) -> dict[str, float]:
    """Seconds of reading and fitting a video in a process of its own, after its imports."""
    arguments = json.dumps([video, landmarks, frames, passes])
    done = subprocess.run(
        [sys.executable, "-c", OPTIMIZE, arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=environment_without_threads(),
    )
    return json.loads(done.stdout.splitlines()[-1])


def _demo(folder: Path, passes: int | None) -> dict[str, Any]:
    out = folder / "demo"
    limit = [] if passes is None else [f"--config.m-step.stop.max-passes={passes}"]
    command = [
        sys.executable,
        "-m",
        "neuface.cli",
        "demo",
        "--out",
        str(out),
        "--overwrite",
        "--no-progress",
        *limit,
    ]
    started, before = time.perf_counter(), _cpu_seconds_of_children()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment_without_threads())
    seconds, cpu_seconds = time.perf_counter() - started, _cpu_seconds_of_children() - before
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return {
        "what": "neuface demo, imports included",
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "read_s": None,
        "fit_s": report["seconds"],
    }


def _cpu_seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
