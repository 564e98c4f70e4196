"""The EM loop: estimate targets from the whole clip, then take gradient steps on the parameters.

A copy of the parameterisation is optimised; the one given stays as it is, so that the next clip starts afresh.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from neuface.encoders.calibration import UNCALIBRATED, EncoderCalibration
from neuface.errors import InputError
from neuface.fitting.checkpoint import Checkpoints, FitState
from neuface.fitting.config import FitConfig
from neuface.fitting.descent import Descent, freeze_normalisation
from neuface.fitting.objective import FromLandmarks
from neuface.fitting.parameterisation import Parameterisation, predict_clip
from neuface.fitting.person.estimate import PersonEstimate, estimate_person
from neuface.fitting.problem import Problem
from neuface.fitting.shared_identity import shared_identity
from neuface.fitting.stopping import History, Progress
from neuface.fitting.targets import Priors, expression_landmarks
from neuface.fitting.terms import clip_parts, estimate_targets
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
    parameterisation: Parameterisation,
    head: HeadModel,
    problem: Problem,
    config: FitConfig,
    report: Report | None = None,
    *,
    calibration: EncoderCalibration = UNCALIBRATED,
    checkpoints: Checkpoints | None = None,
    stage: str = "fit",
    keep_interrupted: bool = False,
) -> FitOutcome:
    """Optimise a copy of `parameterisation` on one clip (paper, Sec. 3.2, "Overall process").

    Args:
        report: called after every pass with its number and the loss and parts.
        calibration: how wrong the initial predictions are, for the estimate of the person from the landmarks.
        checkpoints: where the state is kept between passes, and from where the fit goes on if one is there.
        stage: name of this fit among those that share the checkpoints.
        keep_interrupted: whether Ctrl-C ends the fit with its best pass so far, in place of a KeyboardInterrupt.

    Raises:
        InputError: no image has a landmark, or there is nothing to optimise.
    """
    if not bool(problem.valid.any()):
        raise InputError("no frame of the clip has the six landmarks that a fit needs")
    tuned = parameterisation.copy()
    trainable = freeze_normalisation(tuned)
    if not trainable:
        raise InputError(
            "the parameterisation has no parameters to optimise, other than those of normalisation layers"
        )
    stop, images_at_once = config.m_step.stop, config.m_step.batches.images_at_once

    def predicted() -> Prediction:
        return predict_clip(tuned, (problem.views, problem.time), images_at_once, problem.valid.device)

    initial = predicted()
    state = FitState(
        tuned=tuned,
        descent=Descent(trainable, config),
        progress=Progress(stop=stop),
        best=copy.deepcopy(tuned.state_dict()),
        identity_spread=[],
    )
    prior = config.objective.identity_prior
    estimate = (
        estimate_person(head, initial, problem, calibration=calibration)
        if isinstance(prior, FromLandmarks)
        else None
    )
    expected = None if estimate is None else estimate.identity
    person = shared_identity(head, initial, problem.valid, config.identity, prior, expected)
    priors = Priors(
        identity=person.prior_mean, expression_points=_expression_points(head, initial, problem, estimate)
    )
    prediction = initial
    stored = None if checkpoints is None else checkpoints.read(stage)
    if stored is not None:
        state.restore(stored)
        prediction = predicted()
    progress = state.progress
    while True:
        try:
            current = person.of_clip(prediction)
            targets = estimate_targets(head, current, problem, config, priors)
            progress.record(clip_parts(head, current, problem, targets, config))
            state.identity_spread.append(
                float(prediction.params.identity[problem.valid].std(0, correction=0).mean())
            )
            if report is not None:
                report(state.passes, {name: values[-1] for name, values in progress.history.items()})
            if not progress.finite:
                outcome = Outcome.DIVERGED
                break
            if progress.improved:
                state.best = copy.deepcopy(tuned.state_dict())
            if state.passes == stop.max_passes:
                outcome = Outcome.PASS_LIMIT
                break
            if progress.stalled and not progress.starts_again(state.descent.step_size):
                outcome = Outcome.CONVERGED
                break
            state.descent.one_pass(tuned, head, problem, person, targets, prediction.params.identity)
            prediction = predicted()
            state.passes += 1
            if checkpoints is not None:
                checkpoints.offer(stage, state.stored)
        except KeyboardInterrupt:
            if not keep_interrupted or not progress.history:
                raise
            outcome = Outcome.INTERRUPTED
            break
    if config.m_step.returns == "best" or outcome in (Outcome.DIVERGED, Outcome.INTERRUPTED):
        tuned.load_state_dict(state.best)
        prediction = predicted()
    return FitOutcome(
        initial=initial,
        prediction=person.of_clip(prediction),
        history=_whole_passes(progress.history),
        identity_spread=state.identity_spread[: len(progress.history["total"])],
        outcome=outcome,
    )


def _whole_passes(history: History) -> History:
    """The history up to the last pass that was recorded in all its parts, should it have been interrupted."""
    passes = min(len(values) for values in history.values())
    return {name: values[:passes] for name, values in history.items()}


def _expression_points(
    head: HeadModel, initial: Prediction, problem: Problem, estimate: PersonEstimate | None
) -> Float[Tensor, "time points 3"] | None:
    """`expression_landmarks` of the most probable expressions, if they were estimated."""
    if estimate is None:
        return None
    expressive = replace(initial.params[0], expression=estimate.expression, jaw_rotvec=estimate.jaw_rotvec)
    return expression_landmarks(head, expressive, problem.scheme.name)
