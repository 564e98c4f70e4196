"""The state of a fit between two passes: what a checkpoint holds, so that a fit goes on exactly where it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from neuface.errors import InputError
from neuface.fitting.descent import Descent
from neuface.fitting.parameterisation import Parameterisation
from neuface.fitting.stopping import Progress

Stored = dict[str, Any]
"""Tensors, numbers, and lists and dictionaries of them."""


@runtime_checkable
class Checkpoints(Protocol):
    """Where the state of a fit is kept."""

    def read(self, stage: str) -> Stored | None:
        """The last state of a stage of the fit; None if there is none."""
        ...

    def offer(self, stage: str, state: Callable[[], Stored]) -> None:
        """Keep a state, if it is time to."""
        ...


@dataclass(kw_only=True)
class FitState:
    """All that changes during a fit; between two passes it determines how the fit goes on."""

    tuned: Parameterisation
    descent: Descent
    progress: Progress
    best: dict[str, torch.Tensor]
    """The parameters of the pass with the least loss."""
    identity_spread: list[float]
    passes: int = 0

    def stored(self) -> Stored:
        """The state as plain values."""
        return {
            "tuned": self.tuned.state_dict(),
            "best": self.best,
            "optimiser": self.descent.optimiser.state_dict(),
            "step_size": {"largest": self.descent.step_size.largest, "taken": self.descent.step_size.taken},
            "shuffler": self.descent.shuffler.get_state(),
            "progress": self.progress.stored(),
            "identity_spread": self.identity_spread,
            "passes": self.passes,
        }

    def restore(self, stored: Stored) -> None:
        """Take over a state that `stored` gave.

        Raises InputError if it is not a state, or is the state of other parameters.
        """
        try:
            self.tuned.load_state_dict(stored["best"])
            self.best = copy.deepcopy(self.tuned.state_dict())
            self.tuned.load_state_dict(stored["tuned"])
            self.descent.optimiser.load_state_dict(stored["optimiser"])
            self.descent.step_size.largest = float(stored["step_size"]["largest"])
            self.descent.step_size.taken = int(stored["step_size"]["taken"])
            self.descent.shuffler.set_state(stored["shuffler"])
            self.progress.restore(stored["progress"])
            self.identity_spread = [float(value) for value in stored["identity_spread"]]
            self.passes = int(stored["passes"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise InputError(
                f"the checkpoint is damaged, or of another version ({error}); delete it to begin the fit anew"
            ) from error
