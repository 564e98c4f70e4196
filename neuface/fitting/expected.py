"""What is expected of the person of a clip before the first step, from the pretrained encoder's predictions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from neuface.encoders.calibration import EncoderCalibration
from neuface.fitting.config import FitConfig
from neuface.fitting.objective import FromLandmarks
from neuface.fitting.person.estimate import PersonEstimate, estimate_person
from neuface.fitting.problem import Problem
from neuface.fitting.shared_identity import SharedIdentity, shared_identity
from neuface.fitting.targets import Priors, expression_landmarks
from neuface.head.model import HeadModel
from neuface.head.pieces import in_pieces
from neuface.structs import Prediction


@dataclass(frozen=True, kw_only=True)
class Expected:
    """How images share their identity, and what is expected of the person."""

    person: SharedIdentity
    priors: Priors
    estimate: PersonEstimate | None
    """From the landmarks, where the identity's prior asks for it."""


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
        return Expected(person=person, priors=Priors(identity=person.prior_mean), estimate=None)
    estimate = estimate_person(head, initial, problem, calibration=calibration)
    person = shared_identity(head, initial, problem.valid, config.identity, prior, estimate.identity)
    expressive = replace(initial.params[0], expression=estimate.expression, jaw_rotvec=estimate.jaw_rotvec)
    points = in_pieces(partial(expression_landmarks, head, scheme=problem.scheme.name), expressive)
    priors = Priors(identity=person.prior_mean, expression_points=points)
    return Expected(person=person, priors=priors, estimate=estimate)
