"""The work of a fit, counted instead of timed: it must not grow unnoticed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import scipy.linalg
import torch

from neuface.encoders.open_encoder import OpenEncoder
from neuface.head.model import HeadModel
from studies.common.work import counted_work
from studies.performance import work_limits
from tests.small_encoder import SMALL_ENCODER

ADVICE = "if this is meant: python -m studies.performance.work_limits --write"


def exceeded(counts: Mapping[str, int], limits: Mapping[str, int]) -> list[str]:
    """What grew beyond its limit, or fell so far that the limit says nothing."""
    return [
        f"{what}: {count}, limit {limits[what]}"
        for what, count in counts.items()
        if not work_limits.STALE * limits[what] <= count <= work_limits.LARGEST_GROWTH * limits[what]
    ]


@pytest.mark.parametrize("clip", work_limits.CLIPS)
@pytest.mark.parametrize("config", work_limits.CONFIGS)
def test_the_work_of_a_fit_stays_below_its_limits(clip: str, config: str) -> None:
    work = work_limits.work_of(work_limits.clip_of(work_limits.CLIPS[clip]), work_limits.CONFIGS[config])
    found = exceeded(vars(work), work_limits.read_limits()[f"{clip}, {config}"])
    assert not found, f"{'; '.join(found)} ({ADVICE})"


def test_growth_of_a_tenth_is_noticed() -> None:
    assert exceeded({"images": 104}, {"images": 100}) == []
    assert exceeded({"images": 110}, {"images": 100}) == ["images: 110, limit 100"]
    assert exceeded({"images": 40}, {"images": 100}) == ["images: 40, limit 100"]
    assert exceeded({"images": 1}, {"images": 0}) == ["images: 1, limit 0"]


def test_images_of_the_encoder_are_counted_forward_and_backward(open_head: HeadModel) -> None:
    encoder = OpenEncoder(open_head, SMALL_ENCODER)
    images = torch.zeros(3, 3, encoder.input_px, encoder.input_px)
    prepared = encoder.prepare(images)
    with counted_work() as work:
        with torch.no_grad():
            encoder(prepared)
        predicted = encoder(prepared)
        (predicted.params.identity.sum() + predicted.camera.magnification.sum()).backward()
    assert (work.encoder_images_forward, work.encoder_images_backward) == (6, 3)
    encoder(prepared)
    assert work.encoder_images_forward == 6


def test_vertices_are_counted(open_head: HeadModel) -> None:
    with counted_work() as work:
        open_head.vertices(open_head.neutral(2, 3))
    assert work.decoded_vertices == 6 * open_head.num_vertices


def test_linear_systems_are_counted() -> None:
    with counted_work() as work:
        torch.linalg.solve(torch.eye(4).expand(5, 4, 4), torch.ones(5, 4))
        torch.linalg.cholesky_ex(torch.eye(3))
        scipy.linalg.solveh_banded(np.ones((1, 7)), np.ones(7))
    assert work.factorised_matrices == 7
    assert work.factorised_numbers == 5 * 16 + 9 + 7
