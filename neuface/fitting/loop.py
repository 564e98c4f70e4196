"""The EM loop: estimate targets from the whole clip, then take gradient steps on the parameters.

A copy of the parameterisation is optimised; the one given stays as it is, so that the next clip starts afresh.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

from neuface.encoders.calibration import UNCALIBRATED, EncoderCalibration
from neuface.encoders.personal import PersonalEncoder
from neuface.errors import InputError
from neuface.fitting.checkpoint import Checkpoints, FitState
from neuface.fitting.config import FitConfig
from neuface.fitting.descent import Descent, freeze_normalisation
from neuface.fitting.expected import expect_person
from neuface.fitting.parameterisation import FineTunedEncoder, Parameterisation, predict_clip
from neuface.fitting.problem import Problem
from neuface.fitting.shared_identity import SharedIdentity
from neuface.fitting.stopping import History, Progress
from neuface.fitting.targets import Priors, Targets
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
    encoder: PersonalEncoder | None = None
    """The fine-tuned encoder, where one was fine-tuned and all images share an identity."""


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
    initial = _predict(tuned, problem, config)
    expected = expect_person(head, initial, problem, config, calibration)
    state = FitState(
        tuned=tuned,
        descent=Descent(trainable, config),
        progress=Progress(stop=config.m_step.stop),
        best=copy.deepcopy(tuned.state_dict()),
        identity_spread=[],
    )
    loop = _Loop(
        head=head,
        problem=problem,
        config=config,
        person=expected.person,
        priors=expected.priors(head),
        state=state,
        prediction=initial,
    )
    stored = None if checkpoints is None else checkpoints.read(stage)
    if stored is not None:
        state.restore(stored)
        loop.prediction = _predict(tuned, problem, config)
    outcome = None
    try:
        while outcome is None:
            targets = loop.e_step()
            if report is not None:
                report(state.passes, {name: values[-1] for name, values in state.progress.history.items()})
            outcome = loop.reason_to_stop()
            if outcome is None:
                loop.m_step(targets)
                if checkpoints is not None:
                    checkpoints.offer(stage, state.stored)
    except KeyboardInterrupt:
        if not keep_interrupted or not state.progress.history:
            raise
        outcome = Outcome.INTERRUPTED
    if config.gradient_steps.returns == "best" or outcome in (Outcome.DIVERGED, Outcome.INTERRUPTED):
        tuned.load_state_dict(state.best)
        loop.prediction = _predict(tuned, problem, config)
    history = _whole_passes(state.progress.history)
    return FitOutcome(
        initial=initial,
        prediction=expected.person.of_clip(loop.prediction),
        history=history,
        identity_spread=state.identity_spread[: len(history["total"])],
        outcome=outcome,
        encoder=_personal_encoder(tuned, expected.person, loop.prediction),
    )


def _personal_encoder(
    tuned: Parameterisation, person: SharedIdentity, prediction: Prediction
) -> PersonalEncoder | None:
    """The fine-tuned encoder for more footage of the person; None if there is none, or no one identity."""
    if not isinstance(tuned, FineTunedEncoder) or person.shared == "image":
        return None
    identity = person.of_clip(prediction).params.identity[0, 0]
    return PersonalEncoder(tuned.encoder, identity, person.magnification)


@dataclass(kw_only=True)
class _Loop:
    """The two steps of the loop, and when it ends."""

    head: HeadModel
    problem: Problem
    config: FitConfig
    person: SharedIdentity
    priors: Priors
    state: FitState
    prediction: Prediction
    """Those of the current parameters, batch axes `views time`."""

    def e_step(self) -> Targets:
        """The targets for the current predictions, whose loss is recorded."""
        head, problem, config = self.head, self.problem, self.config
        current = self.person.of_clip(self.prediction)
        targets = estimate_targets(head, current, problem, config, self.priors)
        self.state.progress.record(clip_parts(head, current, problem, targets, config))
        codes = self.prediction.params.identity[problem.valid]
        self.state.identity_spread.append(float(codes.std(0, correction=0).mean()))
        return targets

    def reason_to_stop(self) -> Outcome | None:
        """Why the loop ends after this E-step, if it does; keeps the parameters of the best pass."""
        state, progress = self.state, self.state.progress
        if not progress.finite:
            return Outcome.DIVERGED
        if progress.improved:
            state.best = copy.deepcopy(state.tuned.state_dict())
        if state.passes == self.config.m_step.stop.max_passes:
            return Outcome.PASS_LIMIT
        if progress.stalled and not progress.starts_again(state.descent.step_size):
            return Outcome.CONVERGED
        return None

    def m_step(self, targets: Targets) -> None:
        """One pass of gradient steps, and the predictions after it."""
        state = self.state
        last_identity = self.prediction.params.identity
        state.descent.one_pass(state.tuned, self.head, self.problem, self.person, targets, last_identity)
        self.prediction = _predict(state.tuned, self.problem, self.config)
        state.passes += 1


def _predict(tuned: Parameterisation, problem: Problem, config: FitConfig) -> Prediction:
    """The predictions for every image of the clip."""
    images_at_once = config.m_step.images_at_once
    return predict_clip(tuned, (problem.views, problem.time), images_at_once, problem.valid.device)


def _whole_passes(history: History) -> History:
    """The history up to the last pass that was recorded in all its parts, should it have been interrupted."""
    passes = min(len(values) for values in history.values())
    return {name: values[:passes] for name, values in history.items()}
