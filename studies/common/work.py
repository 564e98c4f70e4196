"""Counts of the work that a computation does: they are the same on every machine, as seconds are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import scipy.linalg
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from neuface.devices import cpu_threads
from neuface.encoders.predictor import Predictor
from neuface.head.model import HeadModel
from neuface.structs import Prediction

FACTORISATIONS = {
    "_linalg_eigh", "_linalg_solve_ex", "_linalg_svd", "linalg_cholesky_ex", "linalg_inv_ex", "linalg_ldl_factor_ex",
    "linalg_lstsq", "linalg_lu_factor_ex", "linalg_qr",
}  # fmt: skip
"""Operations of torch that factorise a matrix, or solve a system with one."""
SCIPY_SOLVERS = (
    "cho_factor",
    "cholesky_banded",
    "lstsq",
    "lu_factor",
    "solve",
    "solve_banded",
    "solveh_banded",
)
"""Functions of scipy.linalg that do; they are counted where they are called as `scipy.linalg.NAME`."""


@dataclass(kw_only=True)
class Work:
    """How much was done."""

    encoder_images_forward: int = 0
    """Images that went through the encoder."""
    encoder_images_backward: int = 0
    """Images whose gradient went back through the encoder."""
    decoded_vertices: int = 0
    """Vertices of heads that were computed, those that landmarks need included."""
    factorised_matrices: int = 0
    """Matrices of linear systems, each of a batch counted."""
    factorised_numbers: int = 0
    """The numbers in all these matrices: a system of ten times the size counts a hundred times."""


@contextmanager
def counted_work() -> Iterator[Work]:
    """Count what is done in the block, in this thread and those that `map_pieces` would use."""
    work = Work()
    with ExitStack() as stack:
        # The mode that sees every operation belongs to one thread.
        stack.enter_context(cpu_threads(1))
        stack.callback(nn.modules.module.register_module_forward_hook(_of_encoder(work)).remove)
        stack.enter_context(patch.object(HeadModel, "_posed", _of_head(work, HeadModel._posed)))
        stack.enter_context(_Factorisations(work))
        for name in SCIPY_SOLVERS:
            stack.enter_context(
                patch.object(scipy.linalg, name, _of_scipy(work, getattr(scipy.linalg, name)))
            )
        yield work


def _of_encoder(work: Work) -> Callable[[nn.Module, Any, Any], None]:
    def seen(module: nn.Module, _: Any, output: Any) -> None:
        if not isinstance(module, Predictor) or not isinstance(output, Prediction):
            return
        images = output.camera.magnification.numel()
        work.encoder_images_forward += images
        passed: list[bool] = []

        def back(gradient: Tensor) -> None:
            # Each of the encoder's outputs has a gradient; the images are counted once.
            if not passed:
                passed.append(True)
                work.encoder_images_backward += images

        for tensor in (*output.params.named_tensors().values(), *output.camera.named_tensors().values()):
            if tensor.requires_grad:
                tensor.register_hook(back)

    return seen


def _of_head(work: Work, posed: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def counted(*arguments: Any) -> Tensor:
        vertices = posed(*arguments)
        work.decoded_vertices += vertices.numel() // 3
        return vertices

    return counted


def _of_scipy(work: Work, solver: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*arguments: Any, **named: Any) -> Any:
        work.factorised_matrices += 1
        # A banded matrix is the second argument of one of the solvers, behind the widths of the band.
        work.factorised_numbers += max(getattr(argument, "size", 0) for argument in arguments[:2])
        return solver(*arguments, **named)

    return counted


class _Factorisations(TorchDispatchMode):
    def __init__(self, work: Work) -> None:
        super().__init__()
        self._work = work

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name.removeprefix("aten::") in FACTORISATIONS:
            matrix: Tensor = args[0]
            self._work.factorised_matrices += matrix[..., 0, 0].numel()
            self._work.factorised_numbers += matrix.numel()
        return func(*args, **(kwargs or {}))
