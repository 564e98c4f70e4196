"""What bounds the memory of a fit changes nothing else: images at once, and the number of threads."""

from __future__ import annotations

import pytest
import torch

import neuface
from neuface import FitConfig, FitResult
from neuface.devices import cpu_threads
from studies.performance.work_limits import clip_of

FIELDS = ("identity", "expression", "root_rotvec")


def fitted(images_at_once: int, threads: int) -> FitResult:
    config = FitConfig.best({"m_step.images_at_once": images_at_once, "m_step.stop.max_passes": 2})
    with cpu_threads(threads):
        return neuface.optimize(clip_of((0.0, 30.0)), config=config, progress=False)


@pytest.mark.slow
def test_few_images_at_once_give_the_same_result_but_for_rounding() -> None:
    few, many = fitted(3, 1), fitted(64, 1)
    for name in FIELDS:
        torch.testing.assert_close(getattr(few, name), getattr(many, name), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_the_number_of_threads_changes_no_bit() -> None:
    one, three = fitted(3, 1), fitted(3, 3)
    for name in FIELDS:
        assert torch.equal(getattr(one, name), getattr(three, name)), name
