"""One person's identity code from all landmarks of a clip: the most probable one, by linear least squares.

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
are compared, by how probable each makes what is seen. Not in the paper.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import roma
import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuface.fitting.linear_landmarks import LinearLandmarks
from neuface.fitting.problem import Problem
from neuface.fitting.resection import pose_jacobian
from neuface.head.model import HeadModel
from neuface.structs import HEAD_TO_NDC_SIGNS, Prediction

__all__ = ["IdentityEstimate", "estimate_identity"]

ROUNDS, ROUNDS_PER_SIZE = 10, 3
# More images tell nothing new of one person's shape, and cost memory: about half a megabyte each, times the views.
MOST_IMAGES, MOST_IMAGES_BY_VIEWS = 192, 768
DEGREES_OF_FREEDOM = 4.0
# Where expectation maximisation starts, millimetres, and what it does not go below.
FIRST_NOISE_MM, FIRST_DISPLACEMENT_MM, LEAST_MM = 0.6, 1.0, 0.05
LARGEST_CORRELATION = 0.95
# Coefficients of an expression that landmarks determine, at most: the others follow from these.
FREE_EXPRESSION = 20
POSE = 6
# What no landmark tells (the pose of an image without any) is held by this precision, per mm^2 or rad^2.
HOLD = 1e-6
# Makes the direction of growth as good as fixed; other precisions are of order 1 to 1e5.
FIXED = 1e9
# Of the face's size from the encoder's answer, in standard deviations of the population.
LARGEST_DEVIATION = 3.0
# Of one round, radians and logarithm of the scale: further away, the linear model is none.
LARGEST_STEP = 0.3
SIGNS = HEAD_TO_NDC_SIGNS[:2]


@dataclass(frozen=True, kw_only=True)
class IdentityEstimate:
    """A code, and how far the landmarks were believed."""

    identity: Float[Tensor, "identity"]
    noise_mm: float
    """Scale of a landmark's noise, in millimetres on the head (sigma)."""
    displacement_mm: float
    """Standard deviation of what is lastingly wrong with an inner point (s)."""
    correlation: float
    """Of the noise of one frame and the next (rho)."""


@torch.no_grad()
def estimate_identity(head: HeadModel, answer: Prediction, problem: Problem) -> IdentityEstimate:
    """The most probable identity code of the person in a clip.

    Looks at no more than MOST_IMAGES images, of times that are spread over the clip. Float64 inside.

    Args:
        answer: the encoder's for every image, batch axes `views time`: the start, and the mean of what is expected.
    """
    expected = answer.params.identity[problem.valid].mean(0)
    times = _spread_times(problem)
    known = LinearLandmarks.of(
        head.to(torch.float64), answer[:, times].to(torch.float64), problem, times, expected.double()
    )
    state = _start(known)
    for _ in range(ROUNDS):
        state = _round(known, state)
    state = _sized(known, state)
    identity = state.shared[: len(expected)].to(expected)
    # Landmarks that belong to no face at all.
    if not bool(identity.isfinite().all()):
        identity = expected
    return IdentityEstimate(
        identity=identity,
        noise_mm=state.noise_mm,
        displacement_mm=state.displacement_mm,
        correlation=state.correlation,
    )


def _spread_times(problem: Problem) -> Int[Tensor, "moments"]:
    seen = problem.valid.any(0).nonzero()[:, 0]
    most = max(1, min(MOST_IMAGES // problem.views, MOST_IMAGES_BY_VIEWS // problem.views**2))
    if len(seen) <= most:
        return seen
    return seen[torch.linspace(0, len(seen) - 1, most, device=seen.device).round().long()]


@dataclass(frozen=True, kw_only=True)
class _State:
    """What is looked for."""

    shared: Float[Tensor, "shared"]
    """Identity and displacements."""
    expression: Float[Tensor, "moments expression"]
    rotation: Float[Tensor, "views moments 3 3"]
    log_scale: Float[Tensor, "views moments"]
    """Against the scale at the start."""
    shift: Float[Tensor, "views moments 2"]
    noise_mm: float = FIRST_NOISE_MM
    displacement_mm: float = FIRST_DISPLACEMENT_MM
    correlation: float = 0.0


def _start(known: LinearLandmarks) -> _State:
    views, moments = known.rest.shape[:2]
    zero = known.rest.new_zeros(views, moments)
    state = _State(
        shared=known.expected,
        expression=known.expression_mean,
        rotation=known.first_rotation,
        log_scale=zero,
        shift=zero[..., None].expand(-1, -1, 2),
    )
    # Where the heads lie in the pictures follows from the rest.
    missing = (known.observed - _seen(known, state)[1]) * known.confidence[..., None]
    shift = missing.sum(2) / known.confidence.sum(-1, keepdim=True).clamp(min=1e-9)
    return replace(state, shift=shift)


def _seen(known: LinearLandmarks, state: _State) -> tuple[Tensor, Tensor]:
    """Turned points without the shift of their image, and where they are seen: `views moments points` x 3 and 2."""
    size = known.by_identity.shape[-1]
    body = known.rest + torch.einsum("vtpci, i -> vtpc", known.by_identity, state.shared[:size])
    body = body + torch.einsum("vtpce, te -> vtpc", known.by_expression, state.expression)
    body = body + state.shared[size:].view(len(body), 1, -1, 3)
    turned = torch.einsum("vtab, vtpb -> vtpa", state.rotation, body)
    turned = turned * state.log_scale.exp()[..., None, None]
    return turned, turned[..., :2] * turned.new_tensor(SIGNS) + state.shift[..., None, :]


def _round(known: LinearLandmarks, state: _State) -> _State:
    """One step with the weights of this state, then the variances of the new one."""
    step = _step(known, state, _weights(known, state))
    identity = known.by_identity.shape[-1]
    return _with_variances(known, step.state, torch.cholesky_inverse(step.factor)[identity:, identity:])


@dataclass(frozen=True, kw_only=True)
class _Step:
    state: _State
    """The new one."""
    factor: Float[Tensor, "shared shared"]
    """Cholesky's, of the inverse covariance of what is shared; NaN if there is none."""
    log_evidence: float
    """Of the size of the state that the step was made from, if that is the most probable state of this size: the
    logarithm of the probability of what is seen, with the most probable expressions and poses, and all that is shared
    integrated out (Laplace), but for a constant and for what the priors' factors give
    (`LinearLandmarks.log_density`). What is every moment's own is not integrated out: that would count each frame of
    a face that hardly moves as a new one, and the longer the clip the surer would a wrong size be."""


def _step(known: LinearLandmarks, state: _State, weight: Float[Tensor, "views moments points"]) -> _Step:
    """One Gauss-Newton step of everything but the size."""
    turned, seen = _seen(known, state)
    miss = known.observed - seen
    weighted = _Weighted.of(known, state, turned, miss, weight)

    expressions = known.expression_precision.shape[0]
    face, common = state.expression - known.expression_mean, state.shared - known.expected
    own_normal = weighted.own_normal
    own_normal = own_normal + torch.diag(own_normal.new_full(own_normal.shape[-1:], HOLD))
    own_normal[:, :expressions, :expressions] += known.expression_precision
    own_right = weighted.own_right.clone()
    own_right[:, :expressions] -= face @ known.expression_precision
    cross = weighted.cross
    solved = torch.linalg.solve(own_normal, torch.cat((cross, own_right[..., None]), -1))

    precision = _shared_precision(known, state)
    pull = precision @ common
    right = weighted.shared_right - pull
    right = right - torch.einsum("tng, tn -> g", cross, solved[..., -1])
    identity = known.by_identity.shape[-1]
    precision[:identity, :identity] += FIXED * torch.outer(known.growth, known.growth)
    normal = weighted.shared_normal + precision - torch.einsum("tng, tnh -> gh", cross, solved[..., :-1])
    factor, failed = torch.linalg.cholesky_ex(normal)
    if bool(failed):
        factor = torch.full_like(factor, torch.nan)
    step = torch.cholesky_solve(right[:, None], factor)[:, 0]
    own_step = solved[..., -1] - solved[..., :-1] @ step

    cost = (weight * miss.square().sum(-1)).sum() + pull @ common
    cost = cost + ((face @ known.expression_precision) * face).sum()
    return _Step(
        state=_moved(state, step, own_step, turned),
        factor=factor,
        log_evidence=-0.5 * float(cost) - float(factor.diagonal().log().sum()),
    )


def _sized(known: LinearLandmarks, state: _State) -> _State:
    """The most probable state of the most probable size.

    No camera here tells size, but shape does: large heads have another one. The logarithm of the evidence is nearly
    a parabola in the logarithm of the size, so three sizes determine it.
    """
    weight = _weights(known, state)
    below, here, above = (_resized(known, state, weight, deviation)[1] for deviation in (-1.0, 0.0, 1.0))
    bend = below + above - 2 * here
    if not bend < 0:
        return state
    deviation = 0.5 * (below - above) / bend
    return _resized(known, state, weight, max(-LARGEST_DEVIATION, min(LARGEST_DEVIATION, deviation)))[0]


def _resized(
    known: LinearLandmarks, state: _State, weight: Float[Tensor, "views moments points"], deviation: float
) -> tuple[_State, float]:
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
        grown = _step(larger, grown, weight).state
        # A head that is as large as is asked for need not be larger in all its landmarks: how much is what the
        # pictures have shrunk by.
        larger = known.grown(
            float(((state.log_scale - grown.log_scale) * told).sum() / told.sum().clamp(min=1))
        )
    return grown, _step(larger, grown, weight).log_evidence + larger.log_density()


def _inflation(state: _State) -> float:
    """Variance of the noise as if every frame told something new."""
    return state.noise_mm**2 * (1 + state.correlation) / (1 - state.correlation)


def _weights(known: LinearLandmarks, state: _State) -> Float[Tensor, "views moments points"]:
    """Inverse variance of each point's noise; Student's t trusts far-off points less."""
    miss = known.observed - _seen(known, state)[1]
    return _trust(known, state, miss) / _inflation(state)


def _trust(
    known: LinearLandmarks, state: _State, miss: Float[Tensor, "views moments points 2"]
) -> Float[Tensor, "views moments points"]:
    """Confidence, and less of it for points that are far off. All confidences k-fold make sigma^2 k-fold, no more."""
    far = known.confidence * miss.square().sum(-1) / state.noise_mm**2
    return known.confidence * (DEGREES_OF_FREEDOM + 2) / (DEGREES_OF_FREEDOM + far)


def _shared_precision(known: LinearLandmarks, state: _State) -> Float[Tensor, "shared shared"]:
    return torch.block_diag(known.identity_precision, known.displacement_precision / state.displacement_mm**2)


@dataclass(frozen=True, kw_only=True)
class _Weighted:
    """The normal equations without priors, of what is shared and of every moment's own expression and poses.

    A displacement moves its own point before its own camera alone: its columns, most of all by far, are never
    written out.
    """

    shared_normal: Float[Tensor, "shared shared"]
    shared_right: Float[Tensor, "shared"]
    own_normal: Float[Tensor, "moments own own"]
    own_right: Float[Tensor, "moments own"]
    cross: Float[Tensor, "moments own shared"]

    @staticmethod
    def of(
        known: LinearLandmarks,
        state: _State,
        turned: Float[Tensor, "views moments points 3"],
        miss: Float[Tensor, "views moments points 2"],
        weight: Float[Tensor, "views moments points"],
    ) -> _Weighted:
        weight = weight[..., None]
        signs = turned.new_tensor(SIGNS)
        camera = state.rotation[..., :2, :] * signs[:, None] * state.log_scale.exp()[..., None, None]
        by_identity = torch.einsum("vtac, vtpci -> vtpai", camera, known.by_identity)
        own = _by_own(known, camera, turned)
        identity, displacement = by_identity * weight[..., None], camera[:, :, None] * weight[..., None]

        both = torch.einsum("vtpai, vtpac -> ivpc", by_identity, displacement).flatten(1)
        blocks = torch.einsum("vtac, vtpad -> vpcd", camera, displacement).flatten(0, 1)
        top = torch.cat((torch.einsum("vtpai, vtpaj -> ij", identity, by_identity), both), 1)
        return _Weighted(
            shared_normal=torch.cat((top, torch.cat((both.mT, torch.block_diag(*blocks)), 1))),
            shared_right=torch.cat(
                (
                    torch.einsum("vtpai, vtpa -> i", identity, miss),
                    torch.einsum("vtpac, vtpa -> vpc", displacement, miss).flatten(),
                )
            ),
            own_normal=torch.einsum("vtpan, vtpam -> tnm", own * weight[..., None], own),
            own_right=torch.einsum("vtpan, vtpa -> tn", own, miss * weight),
            cross=torch.cat(
                (
                    torch.einsum("vtpan, vtpai -> tni", own, identity),
                    torch.einsum("vtpan, vtpac -> tnvpc", own, displacement).flatten(2),
                ),
                -1,
            ),
        )


def _by_own(
    known: LinearLandmarks,
    camera: Float[Tensor, "views moments 2 3"],
    turned: Float[Tensor, "views moments points 3"],
) -> Float[Tensor, "views moments points 2 own"]:
    """How image points move with their moment's expression and, view by view, pose."""
    views, moments, points = turned.shape[:3]
    by_expression = torch.einsum("vtac, vtpce -> vtpae", camera, known.by_expression)
    # Turns and growth leave the middle of the points where it is: otherwise they would fight with the shift.
    arm = (turned - turned.mean(2, keepdim=True)).flatten(0, 1)
    by_pose = pose_jacobian(arm.new_ones(len(arm)), arm, arm).unflatten(0, (views, moments))
    pose = turned.new_zeros(views, moments, points, 2, views, POSE)
    for view in range(views):
        pose[view, :, :, :, view] = by_pose[view]
    return torch.cat((by_expression, pose.flatten(-2)), -1)


def _moved(
    state: _State,
    step: Float[Tensor, "shared"],
    own: Float[Tensor, "moments own"],
    turned: Float[Tensor, "views moments points 3"],
) -> _State:
    expressions = state.expression.shape[-1]
    pose = own[:, expressions:].unflatten(-1, (-1, POSE)).transpose(0, 1)
    turn, growth, shift = pose[..., :3], pose[..., 3], pose[..., 4:]
    turn = turn * (LARGEST_STEP / turn.norm(dim=-1, keepdim=True).clamp(min=LARGEST_STEP))
    growth = growth.clamp(-LARGEST_STEP, LARGEST_STEP)
    further = roma.rotvec_to_rotmat(turn)
    middle = turned.mean(2)
    grown = torch.einsum("vtab, vtb -> vta", further, middle) * growth.exp()[..., None]
    return replace(
        state,
        shared=state.shared + step,
        expression=state.expression + own[:, :expressions],
        rotation=further @ state.rotation,
        log_scale=state.log_scale + growth,
        shift=state.shift + shift + (middle - grown)[..., :2] * turned.new_tensor(SIGNS),
    )


def _with_variances(
    known: LinearLandmarks, state: _State, uncertainty: Float[Tensor, "displacement displacement"]
) -> _State:
    """The M-step of expectation maximisation: noise, its correlation, and displacement."""
    miss = known.observed - _seen(known, state)[1]
    views, moments = miss.shape[:2]
    trust = _trust(known, state, miss)
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
