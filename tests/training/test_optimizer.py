"""Muon takes orthogonal steps on kernels, AdamW the others; both states can be restored."""

from __future__ import annotations

import copy

import torch
from torch import nn

from neuface.training.optimizer import TrainingOptimizer, orthogonalized


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 5), nn.Linear(5, 2)
    )


def test_kernels_take_orthogonal_steps_and_the_rest_take_adams() -> None:
    model = network()
    optimizer = TrainingOptimizer(model, model[4])
    optimizer.set_learning_rate(matrices=0.1, others=0.01)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()
    moves = [after.detach() - was for after, was in zip(model.parameters(), before, strict=True)]
    for kernel in (moves[0].flatten(1), moves[4]):
        # All singular values are equal up to the tolerance of Muon's five iterations and the weight decay.
        size = torch.linalg.svdvals(kernel) / (0.1 * 0.2 * max(kernel.shape) ** 0.5)
        assert size.min() > 0.6
        assert size.max() < 1.3
    for other in (moves[1], moves[2], moves[3], moves[5], moves[6], moves[7]):
        # Adam's first step is the learning rate in every coordinate, except for the weight decay.
        assert torch.allclose(other.abs(), torch.full_like(other, 0.01), atol=3e-4)


def test_gradients_are_discarded() -> None:
    model = network()
    optimizer = TrainingOptimizer(model, model[4])
    model(torch.rand(2, 3, 3, 3)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_state_can_be_saved_and_restored() -> None:
    """Two steps in a row equal one step, its state restored into a new optimiser, and a second step."""

    def take_step(model: nn.Module, optimizer: TrainingOptimizer, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.set_learning_rate(0.1, 0.01)
        optimizer.step()

    straight = network()
    optimizer = TrainingOptimizer(straight, straight[4])
    take_step(straight, optimizer, 1)
    resumed = network()
    resumed.load_state_dict(straight.state_dict())
    restored = TrainingOptimizer(resumed, resumed[4])
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    take_step(straight, optimizer, 2)
    take_step(resumed, restored, 2)
    for one, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_orthogonalized_approximates_the_orthogonal_factor() -> None:
    """The result equals the polynomial on the matrix itself, with unchanged singular vectors."""
    for shape in ((6, 20), (20, 6)):
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        stretched = matrix / torch.linalg.matrix_norm(matrix)
        for _ in range(5):
            cube = stretched @ stretched.mT @ stretched
            stretched = 3.4445 * stretched - 4.775 * cube + 2.0315 * stretched @ stretched.mT @ cube
        found = orthogonalized(matrix)
        assert torch.allclose(found, stretched, atol=1e-9)
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        inner = left.mT @ found @ right.mT
        assert torch.allclose(inner, inner.diagonal().diag(), atol=1e-9)
        assert inner.diagonal().min() > 0.6
        assert inner.diagonal().max() < 1.3
