"""Torch's layers, without the work of drawing weights on the meta device, where there are none.

A network whose weights come from a file is built there, in half the time.
"""

from __future__ import annotations

from torch import nn


class Conv2d(nn.Conv2d):
    """A convolution."""

    def reset_parameters(self) -> None:
        """Draw the weights, if there are any."""
        if not self.weight.is_meta:
            super().reset_parameters()


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation."""

    def reset_parameters(self) -> None:
        """Begin with scale 1 and shift 0, and no statistics, if there are any numbers."""
        if not self.weight.is_meta:
            super().reset_parameters()


class Linear(nn.Linear):
    """A matrix and a shift."""

    def reset_parameters(self) -> None:
        """Draw the weights, if there are any."""
        if not self.weight.is_meta:
            super().reset_parameters()
