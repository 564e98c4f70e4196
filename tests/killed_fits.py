"""Fits whose process ends before they do, and the files from which they go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuface.io.checkpoints import CheckpointFile


class Killed(Exception):
    """Stands for the end of the process."""


def killed_after(passes: int) -> Any:
    """A report that ends the process when a pass is reached, and raises nothing when asked by a later run."""

    def report(number: int, _: dict[str, float]) -> None:
        if number == passes:
            raise Killed

    return report


def checkpoint(folder: Path, *, resume: bool, key: str = "key") -> CheckpointFile:
    return CheckpointFile(folder / "checkpoint.pt", key, resume=resume, seconds_between=0.0)
