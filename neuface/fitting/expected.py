"""What is expected of the person of a clip before the first step, from the pretrained encoder's predictions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from jaxtyping import Int
from torch import Tensor

from neuface.encoders.calibration import EncoderCalibration
from neuface.fitting.config import FitConfig
from neuface.fitting.objective import FromLandmarks
from neuface.fitting.person.estimate import PersonEstimate, estimate_person
from neuface.fitting.problem import Problem
from neuface.fitting.shared_identity import SharedIdentity, shared_identity
from neuface.fitting.targets import Priors, expression_landmarks
from neuface.head.model import HeadModel
from neuface.head.pieces import in_pieces
from neuface.structs import HeadParams, Prediction


@dataclass(frozen=True, kw_only=True)
class Expected:
    """How images share their identity, and what is expected of the person."""

    person: SharedIdentity
    estimate: PersonEstimate | None
    """From the landmarks, where the identity's prior asks for it."""
    expressive: HeadParams | None
    """Heads with the estimated expressions, batch axis `time`; None likewise."""
    scheme: str
    """The landmarks by which expressions are compared."""

    def priors(self, head: HeadModel, frames: slice | Int[Tensor, " frames"] = slice(None)) -> Priors:
        """The priors of some frames of the clip: their landmarks take much more memory than the expressions."""
        points = None
        if self.expressive is not None:
            decode = partial(expression_landmarks, head, scheme=self.scheme)
            points = in_pieces(decode, self.expressive[frames])
        return Priors(identity=self.person.prior_mean, expression_points=points)


def expect_person(
    head: HeadModel,
    initial: Prediction,
    problem: Problem,
    config: FitConfig,
    calibration: EncoderCalibration,
) -> Expected:
    """What is expected, given the predictions for every image of the clip, batch axes `views time`."""
    prior = config.objective.identity_prior
    if not isinstance(prior, FromLandmarks):
        person = shared_identity(head, initial, problem.valid, config.identity, prior)
        return Expected(person=person, estimate=None, expressive=None, scheme=problem.scheme.name)
    estimate = estimate_person(head, initial, problem, calibration=calibration)
    person = shared_identity(head, initial, problem.valid, config.identity, prior, estimate.identity)
    expressive = replace(initial.params[0], expression=estimate.expression, jaw_rotvec=estimate.jaw_rotvec)
    return Expected(person=person, estimate=estimate, expressive=expressive, scheme=problem.scheme.name)
