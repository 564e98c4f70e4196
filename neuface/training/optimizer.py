"""The optimiser that trains the open encoder: Muon for kernels and matrices, AdamW for everything else.

Muon (Jordan et al. 2024) steps along the nearest orthogonal matrix to the averaged gradient. At equal computing
time the encoder's held-out error fell about twice as fast as with AdamW alone (see `neuface.training.trainer`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

MATRIX_WEIGHT_DECAY = 0.01


class TrainingOptimizer:
    """Two optimisers as one.

    The last layer is left to AdamW, as Muon's authors advise: its rows are outputs in units of their own.
    """

    def __init__(self, network: nn.Module, last_layer: nn.Module) -> None:
        outputs = {id(parameter) for parameter in last_layer.parameters()}
        parameters = list(network.parameters())
        self.kernels = [item for item in parameters if item.ndim > 1 and id(item) not in outputs]
        kernel_ids = {id(item) for item in self.kernels}
        others = [item for item in parameters if id(item) not in kernel_ids]
        # torch's Muon takes matrices only: each kernel is also seen as one, in the same memory.
        self.matrices = [nn.Parameter(kernel.detach().flatten(1)) for kernel in self.kernels]
        self.muon = torch.optim.Muon(
            self.matrices, weight_decay=MATRIX_WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"
        )
        self.adamw = torch.optim.AdamW(others, weight_decay=MATRIX_WEIGHT_DECAY)

    def set_learning_rate(self, matrices: float, others: float) -> None:
        """Step sizes of Muon and of AdamW, both in the units of AdamW's."""
        for optimizer, rate in ((self.muon, matrices), (self.adamw, others)):
            for group in optimizer.param_groups:
                group["lr"] = rate

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""
        self.adamw.zero_grad(set_to_none=True)
        for kernel in self.kernels:
            kernel.grad = None

    def step(self) -> None:
        """One step along the gradients."""
        for kernel, matrix in zip(self.kernels, self.matrices, strict=True):
            matrix.grad = None if kernel.grad is None else kernel.grad.flatten(1)
        self.muon.step()
        self.adamw.step()

    def state_dict(self) -> dict[str, Any]:
        """Both optimisers' states."""
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.muon.load_state_dict(state["muon"])
        self.adamw.load_state_dict(state["adamw"])
