"""The EM loop: estimate targets from the whole clip, then take gradient steps on the parameters.

A copy of the parameterisation is optimised; the one given stays as it is, so that the next clip starts afresh.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

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
Parameters = dict[str, Tensor]


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
        best=_parameters(tuned),
        identity_spread=[],
    )
    loop = _Loop(
        head=head,
        problem=problem,
        config=config,
        person=expected.person,
        priors=expected.priors(head),
        state=state,
        report=report,
    )
    stored = None if checkpoints is None else checkpoints.read(stage)
    if stored is not None:
        state.restore(stored)
    outcome = None
    prediction = None
    try:
        while outcome is None:
            loop.one_pass()
            outcome = loop.reason_to_stop()
            if checkpoints is not None and outcome is None:
                checkpoints.offer(stage, state.stored)
        if outcome is not Outcome.DIVERGED:
            prediction, _ = loop.evaluated()
            outcome = outcome if state.progress.finite else Outcome.DIVERGED
    except KeyboardInterrupt:
        if not keep_interrupted or not state.progress.history:
            raise
        outcome = Outcome.INTERRUPTED
    returns_best = config.gradient_steps.returns == "best" and not state.progress.improved
    if prediction is None or outcome in (Outcome.DIVERGED, Outcome.INTERRUPTED) or returns_best:
        tuned.load_state_dict(state.best)
        prediction = _predict(tuned, problem, config)
    history = _whole_passes(state.progress.history)
    return FitOutcome(
        initial=initial,
        prediction=expected.person.of_clip(prediction),
        history=history,
        identity_spread=state.identity_spread[: len(history["total"])],
        outcome=outcome,
        encoder=_personal_encoder(tuned, expected.person, prediction),
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
    report: Report | None

    def one_pass(self) -> None:
        """One E-step and a pass of gradient steps, and the loss before them.

        A pass of one step predicts no image for the targets alone. Where there are more, the parameters change within
        the pass, and with targets and loss from its own predictions some fits of several cameras became worse.
        """
        state, problem = self.state, self.problem
        run = partial(state.descent.one_pass, state.tuned, self.head, problem, self.person)
        if state.descent.steps_per_pass(problem) == 1:
            before = _parameters(state.tuned)
            current, parts = run(self._e_step, None)
            self._record(parts, current, before)
        else:
            current, targets = self.evaluated()
            run(lambda _: targets, current)
        state.passes += 1

    def evaluated(self) -> tuple[Prediction, Targets]:
        """The predictions of the current parameters, batch axes `views time`, and their targets; records the loss."""
        state = self.state
        prediction = _predict(state.tuned, self.problem, self.config)
        targets = self._e_step(prediction)
        current = self.person.of_clip(prediction)
        parts = clip_parts(self.head, current, self.problem, targets, self.config)
        self._record(parts, prediction, _parameters(state.tuned))
        return prediction, targets

    def reason_to_stop(self) -> Outcome | None:
        """Why the loop ends after this pass, if it does."""
        state, progress = self.state, self.state.progress
        if not progress.finite:
            return Outcome.DIVERGED
        if state.passes == self.config.m_step.stop.max_passes:
            return Outcome.PASS_LIMIT
        if progress.stalled and not progress.starts_again(state.descent.step_size):
            return Outcome.CONVERGED
        return None

    @torch.no_grad()
    def _e_step(self, prediction: Prediction) -> Targets:
        current = self.person.of_clip(prediction)
        return estimate_targets(self.head, current, self.problem, self.config, self.priors)

    def _record(self, parts: dict[str, float], prediction: Prediction, parameters: Parameters) -> None:
        """Note a loss and what it belongs to, and keep the parameters if it is the least."""
        state = self.state
        codes = prediction.params.identity[self.problem.valid]
        state.identity_spread.append(float(codes.std(0, correction=0).mean()))
        state.progress.record(parts)
        if state.progress.improved:
            state.best = parameters
        if self.report is not None:
            self.report(state.passes, parts)


def _parameters(tuned: Parameterisation) -> Parameters:
    """A copy of all parameters: of those before a pass, for its loss is theirs."""
    return {name: tensor.clone() for name, tensor in tuned.state_dict().items()}


def _predict(tuned: Parameterisation, problem: Problem, config: FitConfig) -> Prediction:
    """The predictions for every image of the clip."""
    images_at_once = config.m_step.images_at_once
    return predict_clip(tuned, (problem.views, problem.time), images_at_once, problem.valid.device)


def _whole_passes(history: History) -> History:
    """The history up to the last pass that was recorded in all its parts, should it have been interrupted."""
    passes = min(len(values) for values in history.values())
    return {name: values[:passes] for name, values in history.items()}
