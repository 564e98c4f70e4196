"""When the loop stops, what it records, and what it does with frames without landmarks."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from small_problems import (
    AS_PREDICTED,
    BATCH,
    PASSES,
    RATE,
    disturbed,
    problem_of,
    same,
    silenced,
    turning_heads,
)
from torch import Tensor

from neuface.errors import InputError
from neuface.fitting.config import FitConfig, Stop
from neuface.fitting.loop import fit
from neuface.fitting.parameterisation import FreeParameters
from neuface.fitting.terms import batch_of, clip_parts, estimate_targets, loss_parts, targets_of_images
from neuface.geometry.rotations import rotation_angle_rad
from neuface.structs import Outcome, Prediction

# --- History and reasons to stop


@pytest.mark.parametrize("views", [1, 2])
def test_the_history_adds_up(tiny_head, views: int) -> None:
    head = tiny_head()
    truth = turning_heads(head, views, 5)
    config = FitConfig.neural(
        {
            "objective.landmark.weight": 1.5,
            "objective.temporal.weight": 0.7,
            "objective.multiview.weight": 3.0,
            "objective.identity_prior.weight": 0.2,
            "objective.expression_prior.weight": 0.1,
            PASSES: 5,
        }
    )
    reported: list[tuple[int, dict[str, float]]] = []
    outcome = fit(
        FreeParameters(disturbed(truth)),
        head,
        problem_of(head, truth),
        config,
        lambda number, parts: reported.append((number, parts)),
    )
    history = outcome.history
    assert ("multiview" in history) == (views == 2)
    weights = config.objective.weights()
    for number, total in enumerate(history["total"]):
        parts = sum(weights[name] * values[number] for name, values in history.items() if name != "total")
        assert parts == pytest.approx(total, abs=1e-12)
    assert [number for number, _ in reported] == list(range(6))
    assert [parts["total"] for _, parts in reported] == history["total"]


def test_it_stops_when_nothing_improves(tiny_head) -> None:
    head = tiny_head()
    truth = turning_heads(head, 1, 4)
    config = FitConfig.neural({"m_step.stop": Stop(max_passes=50, patience=2, step_size_drops=1), RATE: 1e-6})
    outcome = fit(FreeParameters(truth), head, problem_of(head, truth), config)
    assert outcome.outcome is Outcome.CONVERGED
    # The first pass sets the mark, two without progress lower the step size, two more end it; the last loss is that
    # of the parameters after them.
    assert len(outcome.history["total"]) == 6
    torch.testing.assert_close(
        outcome.prediction.params.root_rotvec, truth.params.root_rotvec, atol=1e-4, rtol=0
    )


def test_it_stops_at_the_pass_limit(tiny_head) -> None:
    head = tiny_head()
    truth = turning_heads(head, 1, 4)
    outcome = fit(
        FreeParameters(disturbed(truth)),
        head,
        problem_of(head, truth),
        FitConfig.neural({"m_step.stop.max_passes": 3}),
    )
    assert outcome.outcome is Outcome.PASS_LIMIT
    assert len(outcome.history["total"]) == 4


class Exploding(FreeParameters):
    """Predictions infinity as soon as its parameters have moved further than `reach`."""

    reach = 0.0

    def predict(self, index: Tensor) -> Prediction:
        prediction = super().predict(index)
        start = self._start.camera.position
        moved = (self.tensors["offset"] - start).abs().max().item()
        if moved <= self.reach:
            return prediction
        return replace(
            prediction,
            camera=prediction.camera.placed(
                prediction.camera.position, prediction.camera.magnification * math.inf
            ),
        )


@pytest.mark.parametrize(("reach", "max_passes"), [(0.0, 20), (3.5e-3, 20), (0.0, 1)])
def test_it_stops_when_the_loss_is_infinite(tiny_head, reach: float, max_passes: int) -> None:
    head = tiny_head()
    truth = turning_heads(head, 1, 4)
    predictor = Exploding(disturbed(truth))
    predictor.reach = reach
    outcome = fit(predictor, head, problem_of(head, truth), AS_PREDICTED.changed({PASSES: max_passes}))
    assert outcome.outcome is Outcome.DIVERGED
    assert not math.isfinite(outcome.history["total"][-1])
    assert all(math.isfinite(value) for value in outcome.history["total"][:-1])
    assert bool(outcome.prediction.camera.magnification.isfinite().all())
    # The best pass: the start, or one that had moved a little.
    assert same(outcome.prediction, outcome.initial) == (reach == 0)


def test_a_prediction_that_is_infinite_from_the_start_is_returned(tiny_head) -> None:
    head = tiny_head()
    truth = turning_heads(head, 1, 4)
    predictor = Exploding(truth)
    predictor.reach = -1.0
    outcome = fit(predictor, head, problem_of(head, truth), FitConfig.neural({"m_step.stop.max_passes": 5}))
    assert outcome.outcome is Outcome.DIVERGED
    assert len(outcome.history["total"]) == 1


# --- Frames without landmarks


def test_frames_without_landmarks_follow_the_other_terms_only(tiny_head) -> None:
    head = tiny_head()
    truth = turning_heads(head, 1, 6)
    problem = silenced(problem_of(head, truth), [(0, 3)])
    start = disturbed(truth)
    targets = estimate_targets(head, start, problem, FitConfig.neural())
    root = start.params.root_rotvec.flatten(0, 1).requires_grad_()
    flat = start.flatten_batch(2)
    flat = replace(flat, params=replace(flat.params, root_rotvec=root))
    index = torch.arange(6)
    batch = batch_of(head, flat, problem, index, FitConfig.neural())
    parts = loss_parts(batch, targets_of_images(targets, index, 6), FitConfig.neural())
    (from_landmarks,) = torch.autograd.grad(parts["landmark"].sum(), root, retain_graph=True)
    (from_time,) = torch.autograd.grad(parts["temporal"].sum(), root)
    has_gradient = from_landmarks.abs().amax(-1) > 0
    assert has_gradient.tolist() == [True, True, True, False, True, True]
    assert float(from_time[3].abs().max()) > 0


def test_a_frame_without_landmarks_follows_its_neighbours(tiny_head) -> None:
    head = tiny_head()
    truth = turning_heads(head, 1, 7)
    problem = silenced(problem_of(head, truth), [(0, 3)])
    turn = truth.params.root_rotvec.clone()
    turn[0, 3, 1] += 0.4
    start = replace(truth, params=replace(truth.params, root_rotvec=turn))
    config = FitConfig.neural({RATE: 1e-2, PASSES: 120})
    outcome = fit(FreeParameters(start, ("root_rotvec",)), head, problem, config)
    angle = rotation_angle_rad(outcome.prediction.params.root_rotvec, truth.params.root_rotvec)
    assert float(angle[0, 3]) < 0.1


def test_the_landmark_term_is_the_mean_over_valid_images(tiny_head) -> None:
    head = tiny_head()
    truth = turning_heads(head, 1, 5)
    problem = silenced(problem_of(head, truth), [(0, 0), (0, 4)])
    problem = replace(problem, observed_px=problem.observed_px + torch.tensor([0.25, -0.5]))
    targets = estimate_targets(head, truth, problem, FitConfig.neural())
    parts = clip_parts(head, truth, problem, targets, FitConfig.neural({BATCH: 2}))
    assert parts["landmark"] == pytest.approx(0.75)


def test_a_clip_without_landmarks_is_refused(tiny_head) -> None:
    head = tiny_head()
    truth = turning_heads(head, 1, 3)
    problem = silenced(problem_of(head, truth), [(0, 0), (0, 1), (0, 2)])
    with pytest.raises(InputError, match="no frame of the clip has the six landmarks"):
        fit(FreeParameters(truth), head, problem, FitConfig.neural())
