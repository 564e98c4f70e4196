"""The arms start alike, differ in what they move only, and their learning rates are chosen by the objective."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from neuface.errors import InputError
from neuface.fitting.config import FitConfig
from neuface.models import FaceModel
from neuface.structs import Prediction
from studies.common.cases import Case, CaseSpec, make_case
from studies.neural_versus_direct.arms import (
    ARMS,
    FITTED_ARMS,
    BoundedParameters,
    Trial,
    choose_rates,
    compare,
    encoder_answer,
    fit_arm,
    try_rates,
)

QUICK = FitConfig(max_passes=3)
RATES = {"direct": 1e-2, "bounded": 1e-2, "neural": 2e-5}


@pytest.fixture(scope="module")
def case(model: FaceModel) -> Case:
    spec = CaseSpec(kind="synthetic", role="tuning", views=3, number=1, time=4, size_px=160)
    return make_case(spec, model.head)


@pytest.fixture(scope="module")
def start(case: Case, model: FaceModel) -> Prediction:
    return encoder_answer(case, model, QUICK)


def all_tensors(prediction: Prediction) -> torch.Tensor:
    """Every number of a prediction, one row per image."""
    gathered: list[torch.Tensor] = []
    prediction.map_tensors(
        lambda tensor: gathered.append(tensor.flatten(2) if tensor.ndim > 2 else tensor[..., None]) or tensor
    )
    return torch.cat(gathered, -1)


@pytest.mark.parametrize("arm", FITTED_ARMS)
def test_every_arm_starts_at_the_encoders_answer(
    arm: str, case: Case, model: FaceModel, start: Prediction
) -> None:
    result = fit_arm(arm, case, model, start, replace(QUICK, learning_rate=RATES[arm]))
    torch.testing.assert_close(all_tensors(result.initial), all_tensors(start), rtol=1e-4, atol=1e-4)
    assert min(result.history["total"]) < result.history["total"][0]
    assert not torch.allclose(all_tensors(result.prediction), all_tensors(start), atol=1e-4)


def test_one_step_per_pass_moves_what_the_arm_says(case: Case, model: FaceModel, start: Prediction) -> None:
    """Adam's first step moves every free number by the learning rate."""
    config = FitConfig(
        max_passes=1,
        learning_rate=1e-3,
        warm_up_steps=0,
        identity_per="image",
        expected_identity="encoder",
        hold_size=False,
    )
    moved = fit_arm("direct", case, model, start, config).prediction
    step = (all_tensors(moved) - all_tensors(start)).abs()
    assert float(step.max()) == pytest.approx(1e-3, rel=1e-2)
    for name in ("neck_rotvec", "jaw_rotvec", "eyes_rotvec"):
        assert getattr(moved.params, name).equal(getattr(start.params, name))


def test_bounded_parameters_answer_the_start_and_stay_in_bounds(start: Prediction) -> None:
    free = BoundedParameters(start)
    inputs = torch.zeros(12, 1, 1, 1)
    flat = start.flatten_batch(2)
    answer = free(inputs)
    torch.testing.assert_close(answer.params.expression, flat.params.expression, rtol=0, atol=1.1e-4)
    torch.testing.assert_close(answer.camera.magnification, flat.camera.magnification)
    assert free(inputs[:2], torch.tensor([3, 5])).params.identity.equal(flat.params.identity[[3, 5]])
    with torch.no_grad():
        for tensor in free.parameters():
            tensor.sub_(30.0)
    answer = free(inputs).detach()
    assert float(answer.params.expression.min()) >= 0
    assert float(answer.camera.magnification.min()) > 0


def test_the_encoder_is_left_as_it_was(case: Case, model: FaceModel, start: Prediction) -> None:
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    fit_arm("neural", case, model, start, QUICK)
    assert all(value.equal(before[name]) for name, value in model.encoder.state_dict().items())


def test_compare_gives_one_row_per_arm(case: Case, model: FaceModel) -> None:
    rows = compare(case, model, QUICK, RATES)
    assert tuple(row.arm for row in rows) == ARMS
    encoder, *fitted = rows
    assert encoder.learning_rate is encoder.passes is encoder.seconds is encoder.stop_reason is None
    assert [row.learning_rate for row in fitted] == [RATES[row.arm] for row in fitted]
    assert all(row.passes == 3 and row.stop_reason == "pass limit" for row in fitted)
    # The encoder's loss is where all others start.
    assert all(row.final_loss < encoder.final_loss for row in fitted)
    assert all(row.scores.mpve_mm is not None and row.scores.cvd_mm is not None for row in rows)


def test_arms_without_a_rate_and_unknown_arms_are_refused(
    case: Case, model: FaceModel, start: Prediction
) -> None:
    with pytest.raises(InputError, match="no learning rate for bounded, neural"):
        compare(case, model, QUICK, {"direct": 1e-2})
    with pytest.raises(InputError, match="unknown arm 'magic'"):
        fit_arm("magic", case, model, start, QUICK)


def test_every_rate_is_tried(case: Case, model: FaceModel) -> None:
    trials = try_rates(case, model, QUICK, {"direct": (1e-3, 1e-2), "bounded": (1e-2,)})
    assert [(trial.arm, trial.learning_rate) for trial in trials] == [
        ("direct", 1e-3), ("direct", 1e-2), ("bounded", 1e-2),
    ]  # fmt: skip
    assert len({round(trial.start_loss, 5) for trial in trials}) == 1
    assert all(trial.final_loss < trial.start_loss for trial in trials)


def trial(arm: str, rate: float, start: float, final: float) -> Trial:
    return Trial(
        arm=arm, learning_rate=rate, start_loss=start, final_loss=final, passes=9, stop_reason="converged"
    )


def test_the_rate_with_the_least_objective_is_chosen() -> None:
    """By the mean of log(final / start), so that a clip with a large loss has no more say than others."""
    trials = [
        trial("direct", 0.1, 100.0, 40.0), trial("direct", 0.1, 1.0, 0.9),  # log 0.4 + log 0.9 = log 0.36
        trial("direct", 0.2, 100.0, 60.0), trial("direct", 0.2, 1.0, 0.5),  # log 0.6 + log 0.5 = log 0.30
        trial("neural", 0.3, 1.0, 0.5), trial("neural", 0.1, 1.0, 0.5),  # a tie goes to the lower rate
    ]  # fmt: skip
    assert choose_rates(trials) == {"direct": 0.2, "neural": 0.1}
