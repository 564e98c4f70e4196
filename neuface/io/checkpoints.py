"""Checkpoints of fits in files, which hold tensors and plain values but no code."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from neuface.errors import InputError
from neuface.io.atomic import atomic_path

SECONDS_BETWEEN = 30.0
"""Time between two checkpoints, seconds: about what is lost if a fit is killed."""


class CheckpointFile:
    """One fit's state in a file, written from time to time; a `neuface.fitting.checkpoint.Checkpoints`.

    Args:
        path: the file.
        key: a hash of what is fitted and how; a checkpoint of another fit is not used.
        resume: whether to go on from the file if it is there; otherwise it is replaced.
        seconds_between: time between two checkpoints.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        key: str,
        *,
        resume: bool,
        seconds_between: float = SECONDS_BETWEEN,
    ) -> None:
        self._path = Path(path)
        self._key = key
        self._resume = resume
        self._seconds_between = seconds_between
        self._written_at = -math.inf

    def read(self, stage: str) -> dict[str, Any] | None:
        """The state of a stage of the fit; None without a file, or if it is of another stage.

        Raises InputError for a file that is damaged, holds anything but tensors and plain values, or is of another
        fit.
        """
        if not self._resume or not self._path.exists():
            return None
        try:
            stored = torch.load(self._path, weights_only=True, map_location="cpu")
        except Exception as error:
            # Torch's reader can raise any type of error on a damaged pickle.
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"{self._path} cannot be read ({reason}); delete it to begin the fit anew"
            ) from error
        if not isinstance(stored, dict) or stored.keys() != {"key", "stage", "state"}:
            raise InputError(
                f"{self._path} is no checkpoint of this package; delete it to begin the fit anew"
            )
        if stored["key"] != self._key:
            raise InputError(
                f"{self._path} is the checkpoint of another fit (other inputs, landmarks, model or configuration); "
                "delete it, or choose another --out, to begin anew"
            )
        return stored["state"] if stored["stage"] == stage else None

    def offer(self, stage: str, state: Callable[[], dict[str, Any]]) -> None:
        """Write a state if the last one is old enough, the first at once.

        Raises InputError if the file cannot be written.
        """
        if time.monotonic() - self._written_at < self._seconds_between:
            return
        with atomic_path(self._path) as temporary:
            torch.save({"key": self._key, "stage": stage, "state": state()}, temporary)
        self._written_at = time.monotonic()

    def remove(self) -> None:
        """Delete the file, once the results are written."""
        self._path.unlink(missing_ok=True)
