"""The EM loop: estimate targets from the whole clip, then take gradient steps on the encoder's weights.

A copy of the encoder is fine-tuned; the one given stays as it is, so that the next clip starts afresh.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.encoders.calibration import UNCALIBRATED, EncoderCalibration
from neuface.encoders.predictor import Predictor
from neuface.errors import InputError
from neuface.fitting.config import FitConfig
from neuface.fitting.descent import Descent, freeze_normalisation
from neuface.fitting.person.estimate import estimate_person
from neuface.fitting.problem import Problem
from neuface.fitting.shared_identity import shared_identity
from neuface.fitting.stopping import History, Progress
from neuface.fitting.targets import estimate_targets, expression_landmarks
from neuface.fitting.terms import clip_parts
from neuface.head.model import HeadModel
from neuface.structs import Outcome, Prediction

Report = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class FitOutcome:
    """What the loop found."""

    initial: Prediction
    """The pretrained encoder's predictions, batch axes `views time`."""
    prediction: Prediction
    """The fine-tuned encoder's predictions."""
    history: History
    """Per pass: the loss (`total`) and its named parts, unweighted."""
    identity_spread: list[float]
    """Per pass: standard deviation over the valid images of the identity codes as the encoder predicts them, before
    they are shared, mean over coefficients (Table S3b)."""
    outcome: Outcome
    """Why the loop ended; after `DIVERGED` the best pass is returned."""


def fit(
    predictor: Predictor,
    head: HeadModel,
    problem: Problem,
    config: FitConfig,
    report: Report | None = None,
    *,
    calibration: EncoderCalibration = UNCALIBRATED,
) -> FitOutcome:
    """Fine-tune a copy of `predictor` on one clip (paper, Sec. 3.2, "Overall process").

    Args:
        report: called after every pass with its number and the loss and parts.
        calibration: how wrong the initial predictions are, for the estimate of the person from the landmarks.

    Raises:
        InputError: no image has a landmark, or the predictor has nothing to optimise.
    """
    if not bool(problem.valid.any()):
        raise InputError("no frame of the clip has the six landmarks that a fit needs")
    tuned = copy.deepcopy(predictor)
    trainable = freeze_normalisation(tuned)
    if not trainable:
        raise InputError(
            "the predictor has no parameters to optimise, other than those of normalisation layers"
        )
    descent = Descent(trainable, config)
    initial = predict_clip(tuned, problem.inputs, config.batch_size)
    progress = Progress(config=config)
    best_state = copy.deepcopy(tuned.state_dict())
    identity, expression = _expected(head, initial, problem, config, calibration)
    person = shared_identity(head, initial, problem.valid, config, identity)
    prediction, spread = initial, []
    number = 0
    while True:
        current = person.of_clip(prediction)
        targets = estimate_targets(head, current, problem, config, person.prior_mean, expression)
        progress.record(clip_parts(head, current, problem, targets, config))
        spread.append(float(prediction.params.identity[problem.valid].std(0, correction=0).mean()))
        if report is not None:
            report(number, {name: values[-1] for name, values in progress.history.items()})
        if not progress.finite:
            outcome = Outcome.DIVERGED
            break
        if progress.improved:
            best_state = copy.deepcopy(tuned.state_dict())
        if number == config.max_passes:
            outcome = Outcome.PASS_LIMIT
            break
        if progress.stalled and not progress.starts_again(descent.step_size):
            outcome = Outcome.CONVERGED
            break
        descent.one_pass(tuned, head, problem, person, targets, prediction.params.identity)
        prediction = predict_clip(tuned, problem.inputs, config.batch_size)
        number += 1
    if config.keep == "best" or outcome is Outcome.DIVERGED:
        tuned.load_state_dict(best_state)
        prediction = predict_clip(tuned, problem.inputs, config.batch_size)
    return FitOutcome(
        initial=initial,
        prediction=person.of_clip(prediction),
        history=progress.history,
        identity_spread=spread,
        outcome=outcome,
    )


def _expected(
    head: HeadModel,
    initial: Prediction,
    problem: Problem,
    config: FitConfig,
    calibration: EncoderCalibration,
) -> tuple[Float[Tensor, " identity"] | None, Float[Tensor, "time points 3"] | None]:
    """The most probable identity given the landmarks, and `expression_landmarks` of the most probable expressions.

    Each is None where the configuration does not use it.
    """
    if config.expected_identity != "landmarks":
        return None, None
    estimate = estimate_person(head, initial, problem, calibration=calibration)
    if config.expected_expression_weight == 0:
        return estimate.identity, None
    expressive = replace(initial.params[0], expression=estimate.expression, jaw_rotvec=estimate.jaw_rotvec)
    return estimate.identity, expression_landmarks(head, expressive, problem.scheme.name)


@torch.no_grad()
def predict_clip(
    predictor: Predictor, inputs: Float[Tensor, "views time c h w"], batch_size: int
) -> Prediction:
    """The predictions for every image, batch axes `views time`.

    Args:
        batch_size: images that are computed at once.
    """
    views, time = inputs.shape[:2]
    flat = inputs.flatten(0, 1)
    index = torch.arange(views * time, device=inputs.device)
    pieces = [predictor(flat[part], part) for part in index.split(batch_size)]
    return Prediction.cat(pieces).unflatten_batch((views, time))
