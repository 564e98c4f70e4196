"""Seconds of things that are measured in turn, so that what else the machine does meets all of them alike."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch

Seconds = dict[str, list[float]]


def in_turn(things: Mapping[str, Callable[[], float]], rounds: int) -> Seconds:
    """The seconds that each thing says it took, `rounds` times, one thing after the other in every round."""
    found: Seconds = {name: [] for name in things}
    for _ in range(rounds):
        for name, thing in things.items():
            found[name].append(thing())
    return found


def ratio(seconds: Seconds, above: str, below: str) -> float:
    """The median over rounds of the ratio of two things' seconds.

    >>> ratio({"a": [2.0, 4.0, 9.0], "b": [1.0, 1.0, 3.0]}, "a", "b")
    3.0
    """
    return median(high / low for high, low in zip(seconds[above], seconds[below], strict=True))


def timed(
    function: Callable[[], Any], device: str = "cpu", clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds that a function takes, all that it started on the device included."""
    _finish(device)
    started = clock()
    function()
    _finish(device)
    return clock() - started


def machine() -> dict[str, Any]:
    """What the figures were measured on, and how busy it was: the mean number of running processes in a minute."""
    names = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "processor": names[0].split(":", 1)[1].strip() if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def _finish(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []
