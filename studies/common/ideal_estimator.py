"""How well landmarks determine a person's shape: the error that an ideal estimator expects on a clip."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from neuface import metrics
from neuface.errors import InputError
from neuface.evaluation.figures import vertices_in_chunks
from neuface.fitting.config import FitConfig
from neuface.fitting.person.estimate import identity_covariance
from neuface.fitting.problem import make_problem
from neuface.model_inputs import model_inputs
from neuface.models import FaceModel
from studies.common.cases import Case
from studies.common.variants import encoder_prediction

DRAWS = 200
"""Number of identity codes over which the expected error is averaged."""


def expected_shape_error_mm(case: Case, model: FaceModel, noise_px: float, *, seed: int = 0) -> float:
    """Rigid MPVE of the shape at rest that an ideal estimator expects from the landmarks of a clip with known truth.

    The estimator knows the variance of the (white) landmark noise, the variation of faces and expressions, and the
    variance of the encoder's size error; poses, cameras, expressions and the person are unknown to it. Its estimates
    are then normal about the true code with `identity_covariance`; this is the mean error over DRAWS of them, head
    without neck. It uses nothing else of the images. No estimator from the same observations is better on average
    over people; errors of expression come on top.

    Raises:
        InputError: the clip has no exact truth.
    """
    if case.truth is None or case.true_landmarks_px is None:
        raise InputError(
            "the expected shape error can be computed for rendered people only, whose truth is known"
        )
    seen = model_inputs(case.clip, model)
    exact = replace(seen.track, points_px=case.true_landmarks_px)
    problem = make_problem(exact, seen.crops, seen.usable)
    true = replace(encoder_prediction(case.clip, model, FitConfig()), params=case.truth)
    covariance = identity_covariance(model.head, true, problem, noise_px, calibration=model.calibration)
    code = case.truth.identity[0, 0]
    codes = code + _normal(covariance, DRAWS, seed).to(code)
    found, person = (
        vertices_in_chunks(model.head, replace(model.head.neutral(1, DRAWS), identity=item[None]))
        for item in (codes, code.expand_as(codes))
    )
    return float(metrics.mpve_mm(found, person, ~model.head.regions["neck"]))


def _normal(covariance: Float[Tensor, "code code"], count: int, seed: int) -> Float[Tensor, "{count} code"]:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(count, len(covariance), generator=generator, dtype=covariance.dtype)
    return drawn @ torch.linalg.cholesky(covariance).mT
