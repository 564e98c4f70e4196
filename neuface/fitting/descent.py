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
from neuface.fitting.parameterisation import Parameterisation, write_images
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

    def one_pass(
        self,
        parameterisation: Parameterisation,
        head: HeadModel,
        problem: Problem,
        person: SharedIdentity,
        known: Prediction,
        e_step: Callable[[Prediction], Targets],
    ) -> dict[str, float]:
        """Gradient steps over every image of the clip once; returns the loss, `total`, and its unweighted parts.

        The E-step takes place after the first forward pass, from the predictions that training makes anyway: those
        just made, and for all other images those of the pass before. Where one step sees the whole clip, targets and
        loss are therefore exactly those of the parameters before the step. Otherwise every image's loss is that of
        the parameters by which it was predicted.

        Args:
            known: the last prediction of every image, batch axis the flattened (views, time) clip; it is updated.
            e_step: makes targets of predictions with batch axes `views time`.
        """
        config = self.config
        weights = config.objective.weights()
        shape = (problem.views, problem.time)
        sums: dict[str, Tensor] = {}
        targets: Targets = {}
        last_identity = known.params.identity
        for number, index in enumerate(_steps(problem, config, self.shuffler)):
            predicted = _predict(parameterisation, index, config.gradient_steps)
            write_images(known, predicted.detach(), index)
            if number == 0:
                # Later predictions are written over these.
                expected = known.map_tensors(torch.clone).unflatten_batch(shape)
                targets = e_step(expected)
                last_identity = expected.params.identity
            prediction = person.of_images(predicted, index, last_identity)
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
        return total_and_parts(sums, config)

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
