"""Micro-batches bound what an encoder keeps of a gradient step, and change nothing else."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from small_problems import PASSES, RATE, problem_of, turning_heads
from tiny_network import TinyNetwork, pictures
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from neuface.fitting.config import Chunks, FitConfig
from neuface.fitting.loop import FitOutcome, fit
from neuface.fitting.objective import FromEncoder
from neuface.fitting.parameterisation import FineTunedEncoder

VIEWS, TIME = 2, 5
MICRO_BATCH = "m_step.micro_batch"
FEW_STEPS = {PASSES: 3, RATE: 1e-3}


def fitted(tiny_head, config: FitConfig) -> FitOutcome:
    head = tiny_head()
    tuned = FineTunedEncoder(TinyNetwork(head).double(), pictures(VIEWS, TIME))
    return fit(tuned, head, problem_of(head, turning_heads(head, VIEWS, TIME)), config)


@pytest.mark.parametrize(
    "config",
    [
        # Without what magnifies rounding: the estimate of the person before the steps, and the multi-view term, an
        # L1 norm whose gradient is the sign of a rounding error where the views of one identity agree.
        FitConfig.neural(
            {**FEW_STEPS, "objective.identity_prior": FromEncoder(), "objective.multiview": None}
        ),
        FitConfig.paper(FEW_STEPS),
        # The gradient of a chunk's targets reaches images of other micro-batches.
        FitConfig.official({**FEW_STEPS, "m_step.batches": Chunks(frames=4, gradient_through_targets=True)}),
        FitConfig.official({**FEW_STEPS, "m_step.batches": Chunks(frames=4)}),
    ],
    ids=["neural", "paper", "official", "official, fixed targets"],
)
@pytest.mark.parametrize("size", [1, 3])
def test_micro_batches_give_the_same_result_but_for_rounding(tiny_head, config: FitConfig, size: int) -> None:
    whole, parts = fitted(tiny_head, config), fitted(tiny_head, config.changed({MICRO_BATCH: size}))
    moved = (whole.prediction.params.root_rotvec - whole.initial.params.root_rotvec).abs().max()
    assert float(moved) > 1e-4, "the steps are too short to differ"
    for noun in ("params", "camera"):
        one, other = getattr(whole.prediction, noun), getattr(parts.prediction, noun)
        for item in fields(one):
            torch.testing.assert_close(getattr(one, item.name), getattr(other, item.name), rtol=0, atol=1e-10)
    assert parts.history["total"] == pytest.approx(whole.history["total"], abs=1e-10)


@pytest.mark.parametrize(("size", "expected"), [(None, VIEWS * TIME), (3, 3), (1, 1)])
def test_the_encoder_keeps_no_more_than_a_micro_batch(tiny_head, size: int | None, expected: int) -> None:
    """Counted are the images whose features, which the gradient needs, are in memory when others are computed."""
    kept: list[tuple[StorageWeakRef, int]] = []
    most = 0

    def count(module: nn.Module, given: object, features: Tensor) -> None:
        nonlocal most
        if isinstance(module, nn.Conv2d) and features.requires_grad:
            kept.append((StorageWeakRef(features.untyped_storage()), len(features)))
            most = max(most, sum(images for storage, images in kept if not storage.expired()))

    handle = nn.modules.module.register_module_forward_hook(count)
    try:
        fitted(tiny_head, FitConfig.neural({**FEW_STEPS, MICRO_BATCH: size}))
    finally:
        handle.remove()
    assert most == expected


def test_a_micro_batch_bounds_predictions_without_a_gradient_too() -> None:
    assert FitConfig.neural({MICRO_BATCH: 8}).m_step.images_at_once == 8
    assert FitConfig.neural({MICRO_BATCH: 1000}).m_step.images_at_once == 64
    assert FitConfig.neural({"m_step.batches.size": 128}).m_step.images_at_once == 128
