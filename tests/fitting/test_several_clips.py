"""Several clips of one person: one problem, one identity."""

from __future__ import annotations

import pytest
import torch
from small_problems import (
    AS_PREDICTED,
    disturbed,
    problem_of,
    turning_heads,
)

from neuface.errors import InputError
from neuface.fitting.config import FitConfig
from neuface.fitting.problem import join_problems
from neuface.fitting.terms import clip_parts, estimate_targets
from neuface.structs import Prediction


def test_joined_problems_are_the_parts(tiny_head) -> None:
    head = tiny_head()
    parts = [problem_of(head, turning_heads(head, 2, time)) for time in (4, 3)]
    joined = join_problems(parts)
    assert (joined.views, joined.time, joined.starts) == (2, 7, (0, 4))
    torch.testing.assert_close(joined.observed_px[:, 4:], parts[1].observed_px)
    assert join_problems([joined, parts[0]]).starts == (0, 4, 7)
    with pytest.raises(InputError, match=r"same number of cameras, got 1, 2"):
        join_problems([parts[0], problem_of(head, turning_heads(head, 1, 4))])


def test_the_objective_of_joined_clips_is_the_mean_of_theirs(tiny_head) -> None:
    """Of clips of the same length."""
    head = tiny_head()
    truths = [turning_heads(head, 1, 6), turning_heads(head, 1, 6)]
    predictions = [disturbed(truth, seed=number) for number, truth in enumerate(truths)]
    config = AS_PREDICTED.changed(
        {"objective.expression_smoothness.weight": 0.5, "objective.camera_smoothness.weight": 0.5}
    )
    problems = [problem_of(head, truth) for truth in truths]

    def parts(prediction: Prediction, problem) -> dict[str, float]:
        return clip_parts(
            head, prediction, problem, estimate_targets(head, prediction, problem, config), config
        )

    alone = [parts(prediction, problem) for prediction, problem in zip(predictions, problems, strict=True)]
    flat = Prediction.cat([prediction.flatten_batch(2) for prediction in predictions]).unflatten_batch(
        (1, 12)
    )
    together = parts(flat, join_problems(problems))
    for name, value in together.items():
        assert value == pytest.approx((alone[0][name] + alone[1][name]) / 2, abs=1e-12), name


def test_the_prior_of_a_shared_identity_is_divided_by_the_views(tiny_head) -> None:
    """Each of two views constrains a code that they share; a code of its own is constrained by one."""
    head = tiny_head()
    truth = turning_heads(head, 2, 3)
    problem = problem_of(head, truth)
    found = {}
    for per in ("clip", "image"):
        config = FitConfig.neural({"identity.shared": per})
        found[per] = clip_parts(head, truth, problem, estimate_targets(head, truth, problem, config), config)
    deviation = float(truth.params.identity.square().mean())
    assert found["image"]["identity_prior"] == pytest.approx(deviation)
    assert found["clip"]["identity_prior"] == pytest.approx(deviation / 2)
