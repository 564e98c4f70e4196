"""When a fit ends: the history of its loss, and when it stalls."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from neuface.fitting.config import Convergence, Stop
from neuface.fitting.descent import StepSize

History = dict[str, list[float]]


@dataclass(kw_only=True)
class Progress:
    """The history of the loss: whether the last pass is the best, and whether the loss has stalled."""

    stop: Convergence
    history: History = field(default_factory=dict)
    """Per pass: the loss, `total`, and its unweighted parts."""
    best: float = math.inf
    """The least loss of all passes."""
    improved: bool = False
    """Whether the last pass has the least loss."""
    _reference: float = math.inf
    """The loss from which the next fall that counts as progress is measured."""
    _waited: int = 0
    """Passes since that fall."""
    _drops: int = 0
    """How often the step size has fallen."""

    def stored(self) -> dict[str, Any]:
        """All that changes, as plain values."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "stop"}

    def restore(self, stored: dict[str, Any]) -> None:
        """Take over what `stored` gave; raises KeyError if a part is missing."""
        for name in self.stored():
            setattr(self, name, stored[name])

    def record(self, parts: dict[str, float]) -> None:
        """Append the loss and the parts of one pass."""
        for name, value in parts.items():
            self.history.setdefault(name, []).append(value)
        total = parts["total"]
        self.improved = total < self.best
        self.best = min(self.best, total)
        if total < self._reference * (1 - self.stop.tolerance):
            self._reference, self._waited = total, 0
        else:
            self._waited += 1

    @property
    def finite(self) -> bool:
        """Whether the loss of the last pass is a finite number."""
        return math.isfinite(self.history["total"][-1])

    @property
    def stalled(self) -> bool:
        """Whether the loss has not fallen enough for `patience` passes."""
        return self._waited >= self.stop.patience

    def starts_again(self, step_size: StepSize) -> bool:
        """Lower the step size after a stall; return False once it was lowered as often as allowed."""
        if not isinstance(self.stop, Stop) or self._drops >= self.stop.step_size_drops:
            return False
        self._drops += 1
        self._waited = 0
        step_size.drop()
        return True
