"""One person's identity code and expressions from all landmarks of a clip: the most probable, by least squares.

Gradient steps follow the landmarks with everything at once and cannot tell a face's shape from where a detector has
its points, or from what it gets wrong for a second. Here the code alone is asked for, and all else is unknown: for
point j of view v at time t,

    observed_vtj = camera_vt(template_j + B_j identity + E_j expression_t + displacement_vj) + noise_vtj

    identity        normal about the encoder's mean answer for the clip, one standard deviation of the population in
                    every coefficient, less along the direction in which the face grows. (On 2000 rendered people
                    the open encoder's error has 0.5 of the population's variance in the first two coefficients, 0.7
                    to 0.8 in the next three, more than 0.9 in nearly all others.)
    expression_t    normal with the moments of `neuface.head.expressions`
    displacement_vj normal, s millimetres, the same at all times, alike for neighbouring points: where a detector or a
                    scheme has this point of this face as this camera sees it
    noise_vtj       Student's t, sigma millimetres. If noise correlates by rho from frame to frame, it takes
                    (1 + rho) / (1 - rho) frames to tell what one would. Where frames are left out, rho is that of
                    the frames that are looked at.
    camera_vt       weak perspective, any pose

s, sigma and rho are estimated along with the rest, by expectation maximisation: exact landmarks of a rendered face
are followed closely, those of a detector as far as they deserve. All this for one size of the head; then the sizes
are compared, by how probable each makes what is seen. The expressions of moments that were left out are found last,
for the person that the others have told of. Not in the paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuface.encoders.calibration import EncoderCalibration
from neuface.fitting.person.gauss_newton import (
    POSE,
    ROUNDS,
    State,
    belief,
    first_state,
    followed,
    gauss_newton_step,
    inverse_variances,
    projected,
)
from neuface.fitting.person.linear_model import LinearLandmarks
from neuface.fitting.problem import Problem
from neuface.geometry.interpolation import interpolate_missing
from neuface.geometry.sampling import evenly_spread_indices
from neuface.head.model import HeadModel
from neuface.structs import HeadParams, Prediction

__all__ = ["PersonEstimate", "estimate_person", "identity_covariance"]

ROUNDS_PER_SIZE = 3
# More images tell nothing new of one person's shape, and cost memory: about half a megabyte each, times the views.
MOST_IMAGES, MOST_IMAGES_BY_VIEWS = 192, 768
# What expectation maximisation does not go below.
LEAST_MM = 0.05
LARGEST_CORRELATION = 0.95
# Coefficients of an expression that landmarks determine, at most: the others follow from these.
FREE_EXPRESSION = 20
# Of the face's size from the encoder's answer, in standard deviations of the population.
LARGEST_DEVIATION = 3.0


@dataclass(frozen=True, kw_only=True)
class PersonEstimate:
    """Most probable codes, and how far the landmarks were believed."""

    identity: Float[Tensor, " identity"]
    expression: Float[Tensor, "time expression"]
    """Between their neighbours' where no view has landmarks."""
    jaw_rotvec: Float[Tensor, "time 3"]
    """Likewise; the encoder's, mean over views, where it never moves the jaw."""
    noise_mm: float
    """Scale of a landmark's noise, in millimetres on the head (sigma)."""
    displacement_mm: float
    """Standard deviation of what is lastingly wrong with an inner point (s)."""
    correlation: float
    """Of the noise of one frame and the next (rho)."""


@torch.no_grad()
def estimate_person(
    head: HeadModel, answer: Prediction, problem: Problem, *, calibration: EncoderCalibration
) -> PersonEstimate:
    """The most probable identity code of the person in a clip, and their expressions.

    For the identity it looks at no more than MOST_IMAGES images, of times that are spread over the clip. Float64
    inside.

    Args:
        answer: the encoder's for every image, batch axes `views time`: the start, and the mean of what is expected.
        calibration: how wrong the encoder is.
    """
    expected = answer.params.identity[problem.valid].mean(0)
    times = _spread_times(problem)
    exact = head.to(torch.float64)

    def known_of(moments: Int[Tensor, " moments"]) -> LinearLandmarks:
        answered = answer[:, moments].to(torch.float64)
        return LinearLandmarks.of(exact, answered, problem, moments, expected.double(), calibration)

    known = known_of(times)
    state = first_state(known)
    for _ in range(ROUNDS):
        state = _round(known, state)
    state = _sized(known, state)
    identity = state.shared[: len(expected)].to(expected)
    # Landmarks that belong to no face at all.
    if not bool(identity.isfinite().all()):
        identity = expected
    found = [(times, state.expression)]
    for moments in _left_out(problem, times):
        found.append((moments, followed(known_of(moments), state).expression))
    expression, jaw_rotvec = _whole_course(answer.params, problem, found)
    return PersonEstimate(
        identity=identity,
        expression=expression,
        jaw_rotvec=jaw_rotvec,
        noise_mm=state.noise_mm,
        displacement_mm=state.displacement_mm,
        correlation=state.correlation,
    )


@torch.no_grad()
def identity_covariance(
    head: HeadModel,
    true: Prediction,
    problem: Problem,
    noise_px: float,
    *,
    calibration: EncoderCalibration,
) -> Float[Tensor, "identity identity"]:
    """How unsure of the identity code landmarks with known white noise leave whoever knows the model above, float64.

    Of the model without lasting displacements, at the true codes (Laplace). Only the person's size is expected better
    than the population tells, as `LinearLandmarks.identity_precision` has it.

    Args:
        true: batch axes `views time`, every code the true one; cameras only as a start.
        problem: exact landmarks.
        noise_px: standard deviation of each coordinate, pixels of the frames.
    """
    times = _spread_times(problem)
    code = true.params.identity[0, 0].double()
    known = LinearLandmarks.of(
        head.to(torch.float64), true[:, times].to(torch.float64), problem, times, code, calibration
    )
    per_px = (
        torch.ones_like(true.camera.scale) if problem.ndc_per_frame_px is None else problem.ndc_per_frame_px
    )
    noise_mm = float((1000 * noise_px * per_px / true.camera.scale)[:, times].mean())
    start = replace(first_state(known), noise_mm=noise_mm, displacement_mm=LEAST_MM)
    # Posed as the truth is, size and all: no direction is held.
    known = replace(known, growth=torch.zeros_like(known.growth))
    step = gauss_newton_step(known, followed(known, start), known.confidence / noise_mm**2)
    return torch.cholesky_inverse(step.factor)[: len(code), : len(code)]


def _spread_times(problem: Problem) -> Int[Tensor, " moments"]:
    seen = problem.valid.any(0).nonzero()[:, 0]
    most = max(1, min(MOST_IMAGES // problem.views, MOST_IMAGES_BY_VIEWS // problem.views**2))
    return seen[evenly_spread_indices(len(seen), most, seen.device)]


def _left_out(problem: Problem, times: Int[Tensor, " looked_at"]) -> Iterator[Int[Tensor, " moments"]]:
    """The other moments with landmarks, in pieces as large as what was looked at."""
    seen = problem.valid.any(0).nonzero()[:, 0]
    left = seen[~torch.isin(seen, times)]
    yield from left.split(max(1, len(times))) if len(left) else ()


def _whole_course(
    answered: HeadParams,
    problem: Problem,
    found: Sequence[tuple[Int[Tensor, " _"], Float[Tensor, "_ _"]]],
) -> tuple[Float[Tensor, "time expression"], Float[Tensor, "time 3"]]:
    """Expressions and rotations of the jaw at all times: what was found, bridged where nothing was."""
    both = torch.cat((answered.expression, answered.jaw_rotvec), -1).mean(0)
    told = torch.zeros(problem.time, dtype=torch.bool, device=both.device)
    for moments, codes in found:
        usable = codes.isfinite().all(-1)
        # A head whose jaw never moves has no columns for it.
        both[moments[usable], : codes.shape[-1]] = codes[usable].to(both)
        told[moments[usable]] = True
    both = interpolate_missing(both[None], told[None], problem.starts)[0]
    expression, jaw_rotvec = both.split((answered.expression.shape[-1], 3), -1)
    return expression, jaw_rotvec


def _round(known: LinearLandmarks, state: State) -> State:
    """One step with the weights of this state, then the variances of the new one."""
    step = gauss_newton_step(known, state, inverse_variances(known, state))
    identity = known.by_identity.shape[-1]
    return _with_variances(known, step.state, torch.cholesky_inverse(step.factor)[identity:, identity:])


def _sized(known: LinearLandmarks, state: State) -> State:
    """The most probable state of the most probable size.

    No camera here tells size, but shape does: large heads have another one. The logarithm of the evidence is nearly
    a parabola in the logarithm of the size, so three sizes determine it.
    """
    weight = inverse_variances(known, state)
    below, here, above = (_resized(known, state, weight, deviation)[1] for deviation in (-1.0, 0.0, 1.0))
    bend = below + above - 2 * here
    if not bend < 0:
        return state
    deviation = 0.5 * (below - above) / bend
    return _resized(known, state, weight, max(-LARGEST_DEVIATION, min(LARGEST_DEVIATION, deviation)))[0]


def _resized(
    known: LinearLandmarks, state: State, weight: Float[Tensor, "views moments points"], deviation: float
) -> tuple[State, float]:
    """The most probable state of another size, and the logarithm of its evidence.

    Args:
        deviation: from the size of `state`, in the population's standard deviations.
    """
    log_growth = deviation * known.size_std
    larger = known.grown(log_growth)
    identity, displacement = state.shared.tensor_split([known.by_identity.shape[-1]])
    grown = replace(
        state,
        shared=torch.cat((identity + deviation * known.growth, displacement * math.exp(log_growth))),
        expression=state.expression * math.exp(log_growth),
        log_scale=state.log_scale - log_growth,
    )
    told = (known.confidence > 0).any(-1)
    for _ in range(ROUNDS_PER_SIZE):
        grown = gauss_newton_step(larger, grown, weight).state
        # A head that is as large as is asked for need not be larger in all its landmarks: how much is what the
        # pictures have shrunk by.
        larger = known.grown(
            float(((state.log_scale - grown.log_scale) * told).sum() / told.sum().clamp(min=1))
        )
    return grown, gauss_newton_step(larger, grown, weight).log_evidence + larger.log_density()


def _with_variances(
    known: LinearLandmarks, state: State, uncertainty: Float[Tensor, "displacement displacement"]
) -> State:
    """The M-step of expectation maximisation: noise, its correlation, and displacement."""
    miss = known.observed - projected(known, state)[1]
    views, moments = miss.shape[:2]
    trust = belief(known, state, miss)
    seen = 2 * int((known.confidence > 0).sum())
    free = moments * (POSE * views + min(FREE_EXPRESSION, state.expression.shape[-1]))
    noise = (trust * miss.square().sum(-1)).sum() / max(seen - free, seen / 4)

    far = trust.sqrt()[..., None] * miss
    both = known.neighbours[..., None] * ((trust[:, 1:] > 0) & (trust[:, :-1] > 0))
    together = (far[:, 1:] * far[:, :-1]).sum(-1) * both
    each = 0.5 * (far[:, 1:].square() + far[:, :-1].square()).sum(-1) * both
    correlation = together.sum() / each.sum().clamp(min=1e-9)

    displaced = state.shared[known.by_identity.shape[-1] :]
    square = displaced @ known.displacement_precision @ displaced
    square = square + (known.displacement_precision * uncertainty).sum()
    return replace(
        state,
        noise_mm=max(LEAST_MM, float(noise.sqrt())),
        correlation=float(correlation.clamp(0.0, LARGEST_CORRELATION)),
        displacement_mm=max(LEAST_MM, float((square / len(displaced)).sqrt())),
    )
