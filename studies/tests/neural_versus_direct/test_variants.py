"""All variants start at the encoder's predictions, and their learning rates are chosen by the objective."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from neuface.errors import InputError
from neuface.fitting.config import Adam, FineTune, FitConfig, Identity, Stop
from neuface.fitting.objective import FromEncoder, Objective
from neuface.model_inputs import model_inputs
from neuface.models import FaceModel
from neuface.structs import Prediction
from studies.common.cases import Case, CaseSpec, make_case
from studies.common.variants import BoundedParameters, Parameters, encoder_prediction, fit_clip
from studies.neural_versus_direct.variants import (
    LEARNING_RATE,
    Trial,
    all_variants,
    choose_rates,
    compare,
    try_rates,
)

QUICK = FitConfig.neural({"m_step.stop.max_passes": 3})
RATES = {"free": 1e-2, "bounded": 1e-2, "neural": 2e-5}
PARAMETERS: dict[Parameters, float] = {"free": 1e-2, "bounded": 1e-2, "weights": 2e-5}


@pytest.fixture(scope="module")
def case(model: FaceModel) -> Case:
    spec = CaseSpec(kind="synthetic", role="tuning", views=3, number=1, time=4, size_px=160)
    return make_case(spec, model.head)


@pytest.fixture(scope="module")
def start(case: Case, model: FaceModel) -> Prediction:
    return encoder_prediction(case.clip, model, QUICK)


def in_crops(prediction: Prediction, case: Case, model: FaceModel) -> Prediction:
    """A result's prediction with the cameras that the encoder predicts: those of the crops."""
    crops = model_inputs(case.clip, model).crops
    return replace(prediction, camera=crops.camera_in_crop(prediction.camera))


def all_tensors(prediction: Prediction) -> torch.Tensor:
    """Every number of a prediction, one row per image."""
    gathered: list[torch.Tensor] = []
    prediction.map_tensors(
        lambda tensor: gathered.append(tensor.flatten(2) if tensor.ndim > 2 else tensor[..., None]) or tensor
    )
    return torch.cat(gathered, -1)


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_every_fit_starts_at_the_encoders_predictions(
    parameters: Parameters, case: Case, model: FaceModel, start: Prediction
) -> None:
    config = QUICK.changed({LEARNING_RATE: PARAMETERS[parameters]})
    result = fit_clip(case.clip, model, config, parameters)
    initial, fitted = (in_crops(item, case, model) for item in (result.initial, result.prediction))
    torch.testing.assert_close(all_tensors(initial), all_tensors(start), rtol=1e-4, atol=1e-4)
    assert min(result.history["total"]) < result.history["total"][0]
    assert not torch.allclose(all_tensors(fitted), all_tensors(start), atol=1e-4)


def test_one_step_moves_every_free_parameter_by_the_learning_rate(
    case: Case, model: FaceModel, start: Prediction
) -> None:
    """Adam's first step has this size for every parameter."""
    config = FitConfig(
        objective=Objective(identity_prior=FromEncoder()),
        identity=Identity(shared="image", fix_scale=False),
        m_step=FineTune(adam=Adam(learning_rate=1e-3, warm_up_steps=0), stop=Stop(max_passes=1)),
    )
    moved = in_crops(fit_clip(case.clip, model, config, "free").prediction, case, model)
    step = (all_tensors(moved) - all_tensors(start)).abs()
    assert float(step.max()) == pytest.approx(1e-3, rel=1e-2)
    for name in ("neck_rotvec", "jaw_rotvec", "eyes_rotvec"):
        assert getattr(moved.params, name).equal(getattr(start.params, name))


def test_bounded_parameters_begin_at_the_start_and_stay_in_bounds(start: Prediction) -> None:
    free = BoundedParameters(start)
    images = torch.arange(12)
    flat = start.flatten_batch(2)
    predicted = free.predict(images)
    torch.testing.assert_close(predicted.params.expression, flat.params.expression, rtol=0, atol=1.1e-4)
    torch.testing.assert_close(predicted.camera.magnification, flat.camera.magnification)
    assert free.predict(torch.tensor([3, 5])).params.identity.equal(flat.params.identity[[3, 5]])
    with torch.no_grad():
        for tensor in free.parameters():
            tensor.sub_(30.0)
    predicted = free.predict(images).detach()
    assert float(predicted.params.expression.min()) >= 0
    assert float(predicted.camera.magnification.min()) > 0


def test_a_fit_does_not_change_the_models_encoder(case: Case, model: FaceModel) -> None:
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    fit_clip(case.clip, model, QUICK)
    assert all(value.equal(before[name]) for name, value in model.encoder.state_dict().items())


def test_every_variant_is_run_with_its_rate(case: Case, model: FaceModel) -> None:
    runs = compare(case, model, QUICK, RATES, clip="a", group="synthetic_3views")
    assert [run.variant for run in runs] == [variant.name for variant in all_variants(QUICK)]
    encoder, *fitted = runs
    assert encoder.passes is encoder.seconds is encoder.stop_reason is None
    assert all(run.passes == 3 and run.stop_reason == "pass limit" for run in fitted)
    # All fits start at the encoder's loss.
    assert encoder.least_loss is not None
    for run in fitted:
        assert run.start_loss == pytest.approx(encoder.least_loss, rel=1e-4)
        assert run.least_loss is not None
        assert run.least_loss < encoder.least_loss
    assert all(run.scores.mpve_mm is not None and run.scores.cvd_mm is not None for run in runs)


def test_variants_without_a_rate_and_unknown_variants_are_refused(case: Case, model: FaceModel) -> None:
    with pytest.raises(InputError, match="no learning rate for bounded, neural"):
        compare(case, model, QUICK, {"free": 1e-2}, clip="a", group="synthetic_3views")
    with pytest.raises(InputError, match="unknown variant 'magic'"):
        try_rates(case, model, QUICK, {"magic": (1e-3,)})


def test_every_rate_is_tried(case: Case, model: FaceModel) -> None:
    trials = try_rates(case, model, QUICK, {"free": (1e-3, 1e-2), "bounded": (1e-2,)})
    assert [(trial.variant, trial.learning_rate) for trial in trials] == [
        ("free", 1e-3), ("free", 1e-2), ("bounded", 1e-2),
    ]  # fmt: skip
    start_losses = [trial.start_loss for trial in trials]
    # The encoder's images are divided into other batches for other variants, which changes the last digits.
    assert start_losses == pytest.approx([start_losses[0]] * len(trials), rel=1e-4)
    assert all(trial.final_loss < trial.start_loss for trial in trials)


def trial(variant: str, rate: float, start: float, final: float) -> Trial:
    return Trial(
        variant=variant,
        learning_rate=rate,
        start_loss=start,
        final_loss=final,
        passes=9,
        stop_reason="converged",
    )


def test_the_rate_with_the_least_objective_is_chosen() -> None:
    """By the mean of log(final / start), so that a clip with a large loss has the same weight as others."""
    trials = [
        trial("free", 0.1, 100.0, 40.0), trial("free", 0.1, 1.0, 0.9),  # log 0.4 + log 0.9 = log 0.36
        trial("free", 0.2, 100.0, 60.0), trial("free", 0.2, 1.0, 0.5),  # log 0.6 + log 0.5 = log 0.30
        trial("neural", 0.3, 1.0, 0.5), trial("neural", 0.1, 1.0, 0.5),  # a tie goes to the lower rate
    ]  # fmt: skip
    assert choose_rates(trials) == {"free": 0.2, "neural": 0.1}
