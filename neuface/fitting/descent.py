"""The M-step: gradient steps on the parameters of a parameterisation, with the targets of the last E-step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from neuface import losses
from neuface.fitting.config import Adam, Chunks, FineTune, FitConfig, MStep
from neuface.fitting.parameterisation import Parameterisation
from neuface.fitting.problem import Problem
from neuface.fitting.shared_identity import SharedIdentity
from neuface.fitting.targets import Targets
from neuface.fitting.terms import (
    batch_of,
    estimate_targets,
    loss_parts,
    targets_of_images,
    total_and_parts,
)
from neuface.head.model import HeadModel
from neuface.structs import Prediction

# Factor of the step size each time the loss stalls.
STEP_SIZE_DROP = 0.3
# Largest norm of a gradient; longer ones are shortened, for Adam's step may overshoot on a curved objective.
GRADIENT_NORM_LIMIT = 1.0


def freeze_normalisation(model: nn.Module) -> list[nn.Parameter]:
    """Put a model into evaluation mode, fix its normalisation layers, and return the parameters left to train.

    The statistics of one clip would otherwise replace those of the training set, and dropout would add noise to the
    predictions.
    """
    model.eval()
    frozen = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
    for module in model.modules():
        if isinstance(module, frozen):
            for parameter in module.parameters():
                parameter.requires_grad_(False)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


class StepSize:
    """The step size: it grows linearly over the first steps and falls on demand."""

    def __init__(self, adam: Adam) -> None:
        self.warm_up_steps = adam.warm_up_steps
        self.largest = adam.learning_rate
        self.taken = 0

    def set_next(self, optimiser: torch.optim.Optimizer) -> None:
        """Set the size of the next step in the optimiser."""
        self.taken += 1
        share = min(1.0, self.taken / max(1, self.warm_up_steps))
        for group in optimiser.param_groups:
            group["lr"] = share * self.largest

    def drop(self) -> None:
        """Multiply the largest step size by `STEP_SIZE_DROP`."""
        self.largest *= STEP_SIZE_DROP


class Descent:
    """The M-step: the optimiser, its step size, and the order in which images are visited."""

    def __init__(self, trainable: list[nn.Parameter], config: FitConfig) -> None:
        self.trainable = trainable
        self.config = config
        self.optimiser = torch.optim.Adam(trainable, lr=config.gradient_steps.adam.learning_rate)
        self.step_size = StepSize(config.gradient_steps.adam)
        self.shuffler = torch.Generator().manual_seed(config.seed)

    def steps_per_pass(self, problem: Problem) -> int:
        """The number of gradient steps of a pass over the clip."""
        batches = self.config.gradient_steps.batches
        if isinstance(batches, Chunks):
            return len(batches.segments(problem))
        return math.ceil(problem.views * problem.time / batches.size)

    def one_pass(
        self,
        parameterisation: Parameterisation,
        head: HeadModel,
        problem: Problem,
        person: SharedIdentity,
        e_step: Callable[[Prediction], Targets],
        current: Prediction | None,
    ) -> tuple[Prediction, dict[str, float]]:
        """Gradient steps over every image of the clip once.

        Args:
            e_step: makes targets of predictions with batch axes `views time`.
            current: the predictions before the pass; None takes those of the first step, which has to see all images,
                so that nothing is predicted for the targets alone.

        Returns:
            The predictions that the targets were made of, and the loss that the steps lowered, `total`, with its
            unweighted parts.
        """
        config = self.config
        weights = config.objective.weights()
        sums: dict[str, Tensor] = {}
        targets = {} if current is None else e_step(current)
        for index in _steps(problem, config, self.shuffler):
            predicted = _predict(parameterisation, index, config.gradient_steps)
            if current is None:
                current = predicted.detach()[index.argsort()].unflatten_batch((problem.views, problem.time))
                targets = e_step(current)
            prediction = person.of_images(predicted, index, current.params.identity)
            rows = targets_of_images(targets, index, problem.time)
            if isinstance(config.gradient_steps.batches, Chunks):
                rows |= _targets_of_chunk(
                    head, prediction, problem, index, config, config.gradient_steps.batches
                )
            batch = batch_of(head, prediction, problem, index, config, self.shuffler)
            parts = loss_parts(batch, rows, config)
            self._step(losses.weighted_sum(parts, weights), problem)
            for name, values in parts.items():
                sums[name] = sums.get(name, 0.0) + values.detach().sum()
        assert current is not None, "a clip has images"
        return current, total_and_parts(sums, config)

    def _step(self, loss: Float[Tensor, " images"], problem: Problem) -> None:
        """One gradient step on some images, scaled to the clip so that it does not depend on their number."""
        self.step_size.set_next(self.optimiser)
        self.optimiser.zero_grad(set_to_none=True)
        (loss.sum() * (problem.views * problem.time / len(loss))).backward()
        nn.utils.clip_grad_norm_(self.trainable, GRADIENT_NORM_LIMIT)
        self.optimiser.step()


def _predict(parameterisation: Parameterisation, index: Tensor, m_step: MStep) -> Prediction:
    """The predictions for the images of a step, with gradient; the encoder keeps no more than a micro-batch of them.

    It forgets what it computed for a part as soon as it has predicted it, and computes it again when the gradient of
    the whole step's loss returns to that part. So the loss may compare any images of the step.
    """
    size = m_step.micro_batch if isinstance(m_step, FineTune) else None
    if size is None or len(index) <= size:
        return parameterisation.predict(index)
    parts = [checkpoint(parameterisation.predict, part, use_reentrant=False) for part in index.split(size)]
    return Prediction.cat(parts)


def _steps(problem: Problem, config: FitConfig, shuffler: torch.Generator) -> Iterator[Tensor]:
    """Indices of the images of each step: all once, in random batches of nearly equal size, or chunk by chunk."""
    views, time = problem.views, problem.time
    device = problem.valid.device
    batches = config.gradient_steps.batches
    if not isinstance(batches, Chunks):
        order = torch.randperm(views * time, generator=shuffler).to(device)
        yield from order.tensor_split(math.ceil(views * time / batches.size))
        return
    image = torch.arange(views * time, device=device).unflatten(0, (views, time))
    starts = batches.segments(problem)
    for start, end in zip(starts, (*starts[1:], time), strict=True):
        yield image[:, start:end].flatten()


def _targets_of_chunk(
    head: HeadModel,
    prediction: Prediction,
    problem: Problem,
    index: Tensor,
    config: FitConfig,
    chunks: Chunks,
) -> dict[str, Any]:
    """Targets from the predictions of this step, image by image, for the terms whose targets come from the chunk."""
    frames = len(index) // problem.views
    start = int(index[0])
    part = problem.cut(start, start + frames)
    with torch.set_grad_enabled(chunks.gradient_through_targets):
        chunk = prediction.unflatten_batch((problem.views, frames))
        targets = estimate_targets(head, chunk, part, config, only_of_chunk=True)
    if not chunks.gradient_through_targets:
        targets = {name: target.detach() for name, target in targets.items()}
    return targets_of_images(targets, torch.arange(len(index), device=index.device), frames)
