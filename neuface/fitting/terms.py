"""The objective evaluated: targets of a clip, the terms of some images, and the loss of the whole clip."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuface.fitting.config import FitConfig
from neuface.fitting.objective import Batch
from neuface.fitting.problem import Problem
from neuface.fitting.targets import ClipState, Priors, Targets
from neuface.head.model import HeadModel
from neuface.structs import Prediction


def estimate_targets(
    head: HeadModel,
    prediction: Prediction,
    problem: Problem,
    config: FitConfig,
    priors: Priors | None = None,
    *,
    only_of_chunk: bool = False,
) -> Targets:
    """One E-step over the whole clip, or over each of its chunks.

    The targets carry a gradient where `prediction` does.

    Args:
        prediction: for the clip of `problem`, batch axes `views time`.
        priors: what is known about the person; None expects the population's mean identity.
        only_of_chunk: leave out the targets that stay the whole clip's where a chunk is fitted.
    """
    expected = torch.zeros_like(prediction.params.identity[0, 0])
    clip = ClipState(
        head=head,
        prediction=prediction,
        problem=problem,
        e_step=config.e_step,
        segments=config.m_step.segments(problem),
        priors=Priors(identity=expected) if priors is None else priors,
    )
    terms = [term for term in config.objective.terms() if term.target_of_chunk or not only_of_chunk]
    found = {term.name: term.target(clip) for term in terms}
    return {name: target for name, target in found.items() if target is not None}


def targets_of_images(targets: Targets, index: Int[Tensor, " images"], time: int) -> dict[str, Any]:
    """The values of targets for some images of the flattened (views, time) clip."""
    return {name: target.of_images(index, time) for name, target in targets.items()}


def batch_of(
    head: HeadModel,
    prediction: Prediction,
    problem: Problem,
    index: Int[Tensor, " images"],
    config: FitConfig,
    sampler: torch.Generator | None = None,
) -> Batch:
    """Some images of a clip, for terms to be evaluated on.

    Args:
        prediction: one batch axis, the images `index` of the flattened (views, time) clip.
        sampler: draws the frames of terms that use a sample of them; None evaluates every frame.
    """
    return Batch(
        head=head,
        prediction=prediction,
        problem=problem,
        index=index,
        views_per_identity=problem.views if config.identity.shared == "clip" else 1,
        sampler=sampler,
    )


def loss_parts(
    batch: Batch, targets: dict[str, Any], config: FitConfig
) -> dict[str, Float[Tensor, " images"]]:
    """The named terms of Eq. 1 for some images, each unweighted and scaled so that its sum over the clip is its mean.

    Args:
        targets: `targets_of_images` of the same images; terms without one do not apply to the clip.
    """
    return {
        term.name: term.values(batch, targets[term.name])
        for term in config.objective.terms()
        if term.name in targets
    }


@torch.no_grad()
def clip_parts(
    head: HeadModel, prediction: Prediction, problem: Problem, targets: Targets, config: FitConfig
) -> dict[str, float]:
    """The loss of the whole clip, `total`, and its unweighted parts; batch axes of `prediction`: `views time`."""
    flat = prediction.flatten_batch(2)
    images = torch.arange(problem.views * problem.time, device=problem.valid.device)
    sums: dict[str, Tensor] = {}
    for index in images.split(config.m_step.images_at_once):
        rows = targets_of_images(targets, index, problem.time)
        batch = batch_of(head, flat[index], problem, index, config)
        for name, values in loss_parts(batch, rows, config).items():
            sums[name] = sums.get(name, 0.0) + values.sum()
    return total_and_parts(sums, config)


def total_and_parts(sums: dict[str, Float[Tensor, ""]], config: FitConfig) -> dict[str, float]:
    """The loss, `total`, and its unweighted parts, of the terms' sums over the clip."""
    # A device is waited for once, and not for each term.
    parts = dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True))
    weights = config.objective.weights()
    return {"total": sum(weights[name] * value for name, value in parts.items()), **parts}
