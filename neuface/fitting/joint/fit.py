"""`fit_jointly`: the joint solution of a clip from the predictions of an encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.encoders.calibration import UNCALIBRATED, EncoderCalibration
from neuface.errors import InputError
from neuface.fitting.checkpoint import Checkpoints, Stored
from neuface.fitting.config import FitConfig, JointSolve
from neuface.fitting.expected import Expected, expect_person
from neuface.fitting.joint.gaps import through_gaps
from neuface.fitting.joint.pieces import Piece, gaps_between, pieces_of, sample_runs
from neuface.fitting.joint.solve import Solution, solve_clip
from neuface.fitting.loop import FitOutcome, Report
from neuface.fitting.parameterisation import Parameterisation, predict_clip
from neuface.fitting.problem import Problem, join_problems
from neuface.fitting.stopping import History
from neuface.fitting.targets import Priors
from neuface.head.model import HeadModel
from neuface.structs import Outcome, Prediction

__all__ = ["fit_jointly", "mean_history", "shared_codes"]

STAGE = "joint"
"""The name of this fit among those that share a file of checkpoints."""


def fit_jointly(
    encoder: Parameterisation,
    head: HeadModel,
    problem: Problem,
    config: FitConfig,
    report: Report | None = None,
    *,
    calibration: EncoderCalibration = UNCALIBRATED,
    checkpoints: Checkpoints | None = None,
    keep_interrupted: bool = False,
) -> FitOutcome:
    """Solve for the parameters of all images of a clip, starting at the pretrained encoder's predictions.

    A clip that is longer than `JointSolve.frames_at_once` is solved in pieces. The identity is that of a sample of
    frames from the whole clip; with it, every piece is solved with some frames beyond its ends, which are dropped.

    Args:
        report: called after every pass with its number and the loss and parts.
        calibration: how wrong the initial predictions are, for the estimate of the person from the landmarks.
        checkpoints: where finished pieces are kept, and from where the fit goes on if some are there.
        keep_interrupted: whether Ctrl-C ends the fit with what is solved so far, in place of a KeyboardInterrupt;
            of a clip in pieces, nothing is solved before its identity is.

    Raises:
        InputError: no image has a landmark.
    """
    m_step = config.m_step
    assert isinstance(m_step, JointSolve), "whoever calls has chosen this M-step"
    if not bool(problem.valid.any()):
        raise InputError("no frame of the clip has the six landmarks that a fit needs")
    shape = (problem.views, problem.time)
    initial = predict_clip(encoder.eval(), shape, m_step.images_at_once, problem.valid.device)
    expected = expect_person(head, initial, problem, config, calibration)
    start = shared_codes(expected.person.of_clip(initial), problem, expected)
    stored = None if checkpoints is None else checkpoints.read(STAGE)
    run = _Run(
        head=head,
        problem=problem,
        config=config,
        expected=expected,
        start=start,
        pieces=pieces_of(problem, m_step.frames_at_once),
        done=_Done() if stored is None else _Done.restored(stored, start),
        report=report,
        keep_interrupted=keep_interrupted,
    )
    outcome = run.to_the_end(checkpoints)
    history = mean_history(run.done.solutions)
    return FitOutcome(
        initial=initial,
        prediction=run.prediction(),
        history=history,
        # The images of a clip have one code.
        identity_spread=[0.0] * len(history["total"]),
        outcome=outcome,
    )


@dataclass(kw_only=True)
class _Done:
    """What is solved already: the state that a checkpoint holds."""

    identity: Float[Tensor, " identity"] | None = None
    """Of the sample, if the clip is solved in pieces."""
    solutions: list[Solution] = field(default_factory=list)
    """Of the first pieces, without what lies beyond their ends."""

    def stored(self) -> Stored:
        """The state as plain values."""
        return {
            "identity": self.identity,
            "solutions": [
                {
                    "tensors": {
                        **found.prediction.params.named_tensors(),
                        **found.prediction.camera.named_tensors(),
                    },
                    "history": found.history,
                    "outcome": found.outcome.name,
                }
                for found in self.solutions
            ],
        }

    @classmethod
    def restored(cls, stored: Stored, start: Prediction) -> _Done:
        """The state that `stored` gave, of a fit that begins at `start`.

        Raises InputError if it is no such state.
        """
        try:
            solutions, end = [], 0
            for found in stored["solutions"]:
                tensors = {
                    name: tensor.to(start.params.identity) for name, tensor in found["tensors"].items()
                }
                like = start[:, end : end + tensors["root_rotvec"].shape[1]]
                end += tensors["root_rotvec"].shape[1]
                prediction = Prediction(
                    params=like.params.with_tensors(tensors), camera=like.camera.with_tensors(tensors)
                )
                solutions.append(
                    Solution(
                        prediction=prediction, history=found["history"], outcome=Outcome[found["outcome"]]
                    )
                )
            identity = stored["identity"]
            return cls(
                identity=None if identity is None else identity.to(start.params.identity), solutions=solutions
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise InputError(
                f"the checkpoint is damaged, or of another version ({error}); delete it to begin the fit anew"
            ) from error


@dataclass(kw_only=True)
class _Run:
    """A fit under way, piece after piece."""

    head: HeadModel
    problem: Problem
    config: FitConfig
    expected: Expected
    start: Prediction
    pieces: tuple[Piece, ...]
    done: _Done
    report: Report | None
    keep_interrupted: bool

    def to_the_end(self, checkpoints: Checkpoints | None) -> Outcome:
        """Solve the pieces that are left; why the fit ended."""
        done = self.done
        try:
            if checkpoints is not None:
                # Before anything is solved it says that a fit is under way, whose files may be replaced.
                checkpoints.offer(STAGE, done.stored)
            if len(self.pieces) > 1 and done.identity is None:
                done.identity = self._identity_of_sample()
            for piece in self.pieces[len(done.solutions) :]:
                done.solutions.append(self._solve(piece))
                if done.solutions[-1].outcome is Outcome.INTERRUPTED:
                    break
                if checkpoints is not None:
                    checkpoints.offer(STAGE, done.stored)
        except KeyboardInterrupt:
            if not self.keep_interrupted or not done.solutions:
                raise
            return Outcome.INTERRUPTED
        outcomes = {found.outcome for found in done.solutions}
        worst_first = (Outcome.INTERRUPTED, Outcome.DIVERGED, Outcome.PASS_LIMIT, Outcome.CONVERGED)
        return next(outcome for outcome in worst_first if outcome in outcomes)

    def prediction(self) -> Prediction:
        """What is solved, and behind it what the rest of the clip would have started from.

        Through gaps that pieces do not see whole, motion is interpolated.
        """
        solved = [found.prediction for found in self.done.solutions]
        end = sum(found.params.root_rotvec.shape[1] for found in solved)
        whole = Prediction.cat([*solved, self._start_of(end, self.problem.time)], dim=1)
        if self.done.identity is None:
            return whole
        unsolved = gaps_between(self.problem, self.pieces[: len(solved)])
        if self.config.e_step.interpolate_missing and bool(unsolved.any()):
            whole = through_gaps(whole, unsolved, self.problem, self.config.m_step.segments(self.problem))
        # One code for all images takes no memory of a long clip.
        identity = self.done.identity.expand_as(whole.params.identity)
        return replace(whole, params=replace(whole.params, identity=identity))

    def _start_of(self, start: int, end: int) -> Prediction:
        """Where the solution of some frames begins: at the identity of the sample, if there is one."""
        some = self.start[:, start:end]
        return some if self.done.identity is None else _with_identity(some, self.done.identity, self.head)

    def _solve(self, piece: Piece) -> Solution:
        span = (piece.wide_start, piece.wide_end)
        problem = self.problem.cut(*span)
        if not bool(problem.valid.any()):
            start = self._start_of(piece.start, piece.end)
            return Solution(prediction=start, history={}, outcome=Outcome.CONVERGED)
        found = self._solve_clip(
            problem,
            self._start_of(*span),
            self.expected.priors(self.head, slice(*span)),
            moves_identity=self.done.identity is None,
            keep_interrupted=self.keep_interrupted,
        )
        return replace(found, prediction=found.prediction[:, piece.inner])

    def _identity_of_sample(self) -> Float[Tensor, " identity"]:
        """The identity of a sample of runs from the whole clip, as many frames as a piece may have."""
        m_step = self.config.m_step
        assert isinstance(m_step, JointSolve), "whoever calls has chosen this M-step"
        runs = sample_runs(self.problem, m_step.frames_at_once)
        problem = join_problems([self.problem.cut(*run) for run in runs])
        start = Prediction.cat([self.start[:, slice(*run)] for run in runs], dim=1)
        frames = torch.cat([torch.arange(*run, device=self.problem.valid.device) for run in runs])
        priors = self.expected.priors(self.head, frames)
        # An interrupted solution of the sample is not used: with a better identity, all pieces would differ.
        found = self._solve_clip(problem, start, priors, moves_identity=True, keep_interrupted=False)
        return found.prediction.params.identity[0, 0]

    def _solve_clip(
        self,
        problem: Problem,
        start: Prediction,
        priors: Priors,
        *,
        moves_identity: bool,
        keep_interrupted: bool,
    ) -> Solution:
        return solve_clip(
            self.head,
            start,
            problem,
            self.config,
            priors,
            moves_identity=moves_identity,
            fixes_size=self.config.identity.fix_scale,
            report=self._report,
            keep_interrupted=keep_interrupted,
        )

    def _report(self, number: int, parts: dict[str, float]) -> None:
        """Report a pass over a piece as the share of all passes that it is."""
        if self.report is not None:
            whole = self.config.m_step.stop.max_passes
            before = whole * len(self.done.solutions) / len(self.pieces)
            self.report(int(before + number / len(self.pieces)), parts)


def mean_history(solutions: Sequence[Solution]) -> History:
    """The loss and its parts per pass, mean over all frames; pieces that ended earlier keep their last values.

    Pieces without any landmark have no loss.
    """
    solutions = [found for found in solutions if found.history]
    if not solutions:
        return {"total": [math.nan]}
    passes = max(len(found.history["total"]) for found in solutions)
    frames = [found.prediction.params.root_rotvec.shape[1] for found in solutions]
    mean: History = {}
    for name in solutions[0].history:
        padded = [
            values + [values[-1]] * (passes - len(values))
            for values in (found.history[name] for found in solutions)
        ]
        mean[name] = [
            sum(count * values[number] for count, values in zip(frames, padded, strict=True)) / sum(frames)
            for number in range(passes)
        ]
    return mean


def _with_identity(
    prediction: Prediction, identity: Float[Tensor, " identity"], head: HeadModel
) -> Prediction:
    """The predictions with another identity code, and cameras that keep the face as large in the image."""
    params, camera = prediction.params, prediction.camera
    growth = head.log_size(identity) - head.log_size(params.identity)
    return Prediction(
        params=replace(params, identity=identity.expand_as(params.identity)),
        camera=camera.placed(camera.position, camera.magnification * torch.exp(-growth)),
    )


def shared_codes(prediction: Prediction, problem: Problem, expected: Expected) -> Prediction:
    """The predictions with one expression, and joints of one rotation, for all views of a frame.

    The expression is the most probable one given the landmarks, where it was estimated.
    """
    params, estimate = prediction.params, expected.estimate
    weight = problem.valid.to(params.expression)
    weight = torch.where(problem.valid.any(0), weight, 1.0)
    weight = weight / weight.sum(0)

    def shared(values: Float[Tensor, "views time *c"]) -> Float[Tensor, "views time *c"]:
        mean = (values * weight.view(*weight.shape, *[1] * (values.ndim - 2))).sum(0)
        return mean.expand_as(values)

    expression, jaw_rotvec = shared(params.expression), shared(params.jaw_rotvec)
    if estimate is not None:
        expression = estimate.expression.expand_as(expression)
        jaw_rotvec = estimate.jaw_rotvec.expand_as(jaw_rotvec)
    return replace(
        prediction,
        params=replace(
            params,
            expression=expression,
            jaw_rotvec=jaw_rotvec,
            neck_rotvec=shared(params.neck_rotvec),
            eyes_rotvec=shared(params.eyes_rotvec),
        ),
    )
