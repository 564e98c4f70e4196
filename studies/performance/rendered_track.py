"""Landmarks of a talking person without pictures: what can be measured where no picture matters."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from neuface.fitting.problem import Problem
from neuface.geometry.rotations import compose_rotvecs
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import SCHEMES
from neuface.structs import Prediction, WeakPerspective
from neuface.synthetic.clips import HEAD_SCALE, head_motion, talking
from neuface.synthetic.people import open_head_identities

NOISE = 0.004
"""Standard deviation of the landmarks along x and along y, crop half-widths."""
YAW_BETWEEN_VIEWS_DEG = 25.0
ENCODER_ERROR = 0.5
"""Standard deviation of the errors of identity codes that stand in for an encoder's, in the population's."""
ENCODER_TURN_DEG = 2.0
"""Of its errors of orientation, about each axis."""


@dataclass(frozen=True, kw_only=True)
class RenderedProblem:
    """The observations of a clip, and predictions as an encoder's."""

    problem: Problem
    initial: Prediction
    """Batch axes `views time`."""


def rendered_problem(
    head: HeadModel, *, views: int, time: int, scheme: str = "mediapipe478", seed: int = 0
) -> RenderedProblem:
    """A person who talks before some cameras; all landmarks are seen, with white noise."""
    generator = torch.Generator().manual_seed(seed)
    (person,) = open_head_identities(1, seed)
    motion = head_motion(time, generator)
    cameras = torch.zeros(views, 3)
    cameras[:, 1] = (YAW_BETWEEN_VIEWS_DEG * torch.arange(views)).deg2rad()
    turns = compose_rotvecs(cameras[:, None].expand(-1, time, -1), motion.expand(views, -1, -1))
    params = replace(
        head.neutral(views, time),
        identity=person.expand(views, time, -1),
        expression=talking(head, time, generator).expand(views, -1, -1),
        root_rotvec=turns,
    )
    camera = WeakPerspective(scale=torch.full((views, time), HEAD_SCALE), offset=torch.zeros(views, time, 2))
    points = camera.project(head.landmarks(params, scheme))
    problem = Problem.in_one_crop(
        observed_ndc=points + NOISE * torch.randn(points.shape, generator=generator),
        confidence=torch.ones(points.shape[:-1]),
        valid=torch.ones(views, time, dtype=torch.bool),
        scheme=SCHEMES[scheme],
    )
    turn = torch.deg2rad(ENCODER_TURN_DEG * torch.randn(turns.shape, generator=generator))
    guessed = replace(
        params,
        # An encoder errs alike in all images of a person.
        identity=params.identity + ENCODER_ERROR * torch.randn(person.shape, generator=generator),
        expression=0.5 * params.expression,
        root_rotvec=compose_rotvecs(turn, turns),
    )
    return RenderedProblem(problem=problem, initial=Prediction(params=guessed, camera=camera))
