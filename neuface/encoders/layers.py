"""Torch's layers, without random initialisation on the meta device, where weights have no values.

A network whose weights are read from a file is built on that device, in half the time.
"""

from __future__ import annotations

from torch import nn


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d`."""

    def reset_parameters(self) -> None:
        """Draw random weights, unless they have no values."""
        if not self.weight.is_meta:
            super().reset_parameters()


class BatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d`."""

    def reset_parameters(self) -> None:
        """Set scale 1, shift 0 and empty statistics, unless they have no values."""
        if not self.weight.is_meta:
            super().reset_parameters()


class Linear(nn.Linear):
    """`torch.nn.Linear`."""

    def reset_parameters(self) -> None:
        """Draw random weights, unless they have no values."""
        if not self.weight.is_meta:
            super().reset_parameters()
