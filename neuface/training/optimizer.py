"""The optimiser that trains the open encoder: Muon for kernels and matrices, AdamW for everything else.

Muon's step is the orthogonal matrix nearest to the averaged gradient (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon). At equal computing time the encoder's held-out error fell about twice as
fast as with AdamW alone (docs/open_encoder.md). torch's own Muon does not accept convolution kernels and iterates in
bfloat16, which took a fifth of a training step on a CPU; this implementation takes a twentieth.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

# Decoupled weight decay of both optimisers, per step and unit of the learning rate.
MATRIX_WEIGHT_DECAY = 0.01
# Decay of Muon's moving average of the gradient, per step.
MOMENTUM = 0.95
# Coefficients a, b, c of Jordan's quintic a s + b s^3 + c s^5 on singular values s, and its number of iterations.
# They bring all singular values, except for very small ones, into 0.7 to 1.2.
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
# Root mean square of a typical step of AdamW, to which a step of Muon is scaled.
ADAMW_STEP_SIZE = 0.2


def orthogonalized(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """An approximation of the matrix's orthogonal (polar) factor, with singular values of 0.7 to 1.2.

    The polynomial is iterated on the smaller Gram matrix and applied to the matrix once. This is equal in exact
    arithmetic and, for matrices nine times as wide as high, 2.5 times less work.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
    scaled = wide / (torch.linalg.matrix_norm(wide) + 1e-12)
    gram = scaled @ scaled.mT
    unit = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    product = unit
    for done in range(ITERATIONS):
        factor = QUINTIC[0] * unit + QUINTIC[1] * gram + QUINTIC[2] * (gram @ gram)
        product = factor @ product if done else factor
        if done < ITERATIONS - 1:
            gram = factor @ gram @ factor
    result = product @ scaled
    return result if wide is matrix else result.mT


class Muon(torch.optim.Optimizer):
    """Momentum, then an orthogonal step. Kernels are treated as matrices with one row per output channel."""

    def __init__(self, kernels: Iterable[nn.Parameter]) -> None:
        super().__init__(kernels, {"lr": 1e-3})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step along the gradients."""
        for group in self.param_groups:
            for kernel in group["params"]:
                if kernel.grad is None:
                    continue
                state = self.state[kernel]
                if not state:
                    state["momentum"] = torch.zeros_like(kernel)
                state["momentum"].lerp_(kernel.grad, 1 - MOMENTUM)
                direction = kernel.grad.lerp(state["momentum"], MOMENTUM).flatten(1)
                size = group["lr"] * ADAMW_STEP_SIZE * max(direction.shape) ** 0.5
                kernel.mul_(1 - group["lr"] * MATRIX_WEIGHT_DECAY)
                kernel.add_(orthogonalized(direction).reshape(kernel.shape), alpha=-size)


class TrainingOptimizer:
    """Muon for the kernels and matrices of a network, AdamW for its other parameters and its last layer.

    The last layer is excepted, as Muon's authors advise, because its rows are outputs in different units.
    """

    def __init__(self, network: nn.Module, last_layer: nn.Module) -> None:
        outputs = {id(parameter) for parameter in last_layer.parameters()}
        parameters = list(network.parameters())
        kernels = [item for item in parameters if item.ndim > 1 and id(item) not in outputs]
        kernel_ids = {id(item) for item in kernels}
        others = [item for item in parameters if id(item) not in kernel_ids]
        self.muon = Muon(kernels)
        self.adamw = torch.optim.AdamW(others, weight_decay=MATRIX_WEIGHT_DECAY)

    def set_learning_rate(self, matrices: float, others: float) -> None:
        """Step sizes of Muon and of AdamW, both in the units of AdamW's."""
        for optimizer, rate in ((self.muon, matrices), (self.adamw, others)):
            for group in optimizer.param_groups:
                group["lr"] = rate

    def zero_grad(self) -> None:
        """Discard the gradients of the last step."""
        self.muon.zero_grad(set_to_none=True)
        self.adamw.zero_grad(set_to_none=True)

    def step(self) -> None:
        """One step along the gradients."""
        self.muon.step()
        self.adamw.step()

    def state_dict(self) -> dict[str, Any]:
        """Both optimisers' states."""
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of `state_dict`."""
        self.muon.load_state_dict(state["muon"])
        self.adamw.load_state_dict(state["adamw"])
