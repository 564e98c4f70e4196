"""What landmarks tell of a person's shape at all: the error that an ideal estimator of a clip would expect."""

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
from neuface.models import FaceModel
from neuface.pipeline import clip_for_model
from studies.common.cases import Case
from studies.neural_versus_direct.arms import encoder_answer

DRAWS = 200


def expected_shape_error_mm(case: Case, model: FaceModel, noise_px: float, *, seed: int = 0) -> float:
    """Rigid MPVE of the shape at rest that an ideal estimator expects from the landmarks of a clip with known truth.

    It knows how large the (white) noise is, how faces and expressions vary, and how far off the encoder usually is in
    size; poses, cameras, expressions and the person are unknown to it. Its codes are then normal about the true one
    with `identity_covariance`; this is the mean error over DRAWS of them, head without neck. What the pictures tell
    beyond that, it does not use. No estimator that takes no more from a clip is better on average over people;
    expressions add their own error.

    Raises:
        InputError: the clip has no exact truth.
    """
    if case.truth is None or case.true_landmarks_px is None:
        raise InputError("what landmarks tell can be computed for rendered people only, whose truth is known")
    clip = clip_for_model(case.clip, model)
    exact = replace(clip.landmarks, points_px=case.true_landmarks_px)
    inputs = case.true_landmarks_px.new_zeros(*clip.valid.shape, 0, 0, 0)
    problem = make_problem(inputs, exact, clip.crops, clip.valid)
    true = replace(encoder_answer(case, model, FitConfig()), params=case.truth)
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
