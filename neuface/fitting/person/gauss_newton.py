"""Gauss-Newton steps on all that moves a clip's landmarks: codes, lasting displacements, poses and cameras.

The model stands at the top of `neuface.fitting.person.estimate`, which chooses among the sizes of a head and
estimates how far landmarks are to be believed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from neuface.fitting.person.linear_model import LinearLandmarks
from neuface.fitting.pose_only import pose_jacobian
from neuface.structs import HEAD_TO_IMAGE_SIGNS

__all__ = [
    "POSE",
    "ROUNDS",
    "State",
    "belief",
    "first_state",
    "followed",
    "gauss_newton_step",
    "inverse_variances",
    "projected",
    "shared_precision",
]

ROUNDS = 10
DEGREES_OF_FREEDOM = 4.0
# Where expectation maximisation starts, millimetres.
FIRST_NOISE_MM, FIRST_DISPLACEMENT_MM = 0.6, 1.0
# Numbers that tell the pose of an image.
POSE = 6
# What no landmark tells (the pose of an image without any) is held by this precision, per mm^2 or rad^2.
HOLD = 1e-6
# Makes the direction of growth as good as fixed; other precisions are of order 1 to 1e5.
FIXED = 1e9
# Of one round, radians and logarithm of the scale: further away, the linear model is none.
LARGEST_STEP = 0.3
SIGNS = HEAD_TO_IMAGE_SIGNS[:2]


@dataclass(frozen=True, kw_only=True)
class State:
    """What is looked for."""

    shared: Float[Tensor, " shared"]
    """Identity and displacements."""
    expression: Float[Tensor, "moments expression"]
    rotation: Float[Tensor, "views moments 3 3"]
    log_scale: Float[Tensor, "views moments"]
    """Against the scale at the start."""
    shift: Float[Tensor, "views moments 2"]
    noise_mm: float = FIRST_NOISE_MM
    displacement_mm: float = FIRST_DISPLACEMENT_MM
    correlation: float = 0.0


def first_state(known: LinearLandmarks, person: State | None = None) -> State:
    """The encoder's poses and a mean expression, of the mean answer's person or of one who has been found."""
    views, moments = known.rest.shape[:2]
    zero = known.rest.new_zeros(views, moments)
    state = State(
        shared=known.expected if person is None else person.shared,
        expression=known.expression_mean,
        rotation=known.first_rotation,
        log_scale=zero,
        shift=zero[..., None].expand(-1, -1, 2),
    )
    if person is not None:
        state = replace(
            state,
            noise_mm=person.noise_mm,
            displacement_mm=person.displacement_mm,
            correlation=person.correlation,
        )
    # Where the heads lie in the pictures follows from the rest.
    missing = (known.observed - projected(known, state)[1]) * known.confidence[..., None]
    shift = missing.sum(2) / known.confidence.sum(-1, keepdim=True).clamp(min=1e-9)
    return replace(state, shift=shift)


def projected(known: LinearLandmarks, state: State) -> tuple[Tensor, Tensor]:
    """Turned points without the shift of their image, and where they are seen: `views moments points` x 3 and 2."""
    size = known.by_identity.shape[-1]
    body = known.rest + torch.einsum("vtpci, i -> vtpc", known.by_identity, state.shared[:size])
    body = body + torch.einsum("vtpce, te -> vtpc", known.by_expression, state.expression)
    body = body + state.shared[size:].view(len(body), 1, -1, 3)
    turned = torch.einsum("vtab, vtpb -> vtpa", state.rotation, body)
    turned = turned * state.log_scale.exp()[..., None, None]
    return turned, turned[..., :2] * turned.new_tensor(SIGNS) + state.shift[..., None, :]


@dataclass(frozen=True, kw_only=True)
class Step:
    """Where a step leads, and how sure that is."""

    state: State
    """The new one."""
    factor: Float[Tensor, "shared shared"]
    """Cholesky's, of the inverse covariance of what is shared; NaN if there is none."""
    log_evidence: float
    """Of the size of the state that the step was made from, if that is the most probable state of this size: the
    logarithm of the probability of what is seen, with the most probable expressions and poses, and all that is shared
    integrated out (Laplace), but for a constant and for what the priors' factors give
    (`LinearLandmarks.log_density`). What is every moment's own is not integrated out: that would count each frame of
    a face that hardly moves as a new one, and the longer the clip the surer would a wrong size be."""


def gauss_newton_step(
    known: LinearLandmarks, state: State, weight: Float[Tensor, "views moments points"]
) -> Step:
    """One Gauss-Newton step of everything but the size."""
    turned, seen = projected(known, state)
    miss = known.observed - seen
    weighted = _Weighted.of(known, state, turned, miss, weight)

    face, common = state.expression - known.expression_mean, state.shared - known.expected
    own_normal, own_right = _own_equations(known, weighted, face)
    cross = weighted.cross
    solved = torch.linalg.solve(own_normal, torch.cat((cross, own_right[..., None]), -1))

    precision = shared_precision(known, state)
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
    return Step(
        state=_moved(state, step, own_step, turned),
        factor=factor,
        log_evidence=-0.5 * float(cost) - float(factor.diagonal().log().sum()),
    )


def _own_equations(
    known: LinearLandmarks, weighted: _Weighted, face: Float[Tensor, "moments expression"]
) -> tuple[Float[Tensor, "moments own own"], Float[Tensor, "moments own"]]:
    """Normal equations of every moment's expression and poses, with what is expected of them.

    Args:
        face: how far the expressions are from the expected ones.
    """
    expressions = known.expression_precision.shape[0]
    normal = weighted.own_normal
    normal = normal + torch.diag(normal.new_full(normal.shape[-1:], HOLD))
    normal[:, :expressions, :expressions] += known.expression_precision
    right = weighted.own_right.clone()
    right[:, :expressions] -= face @ known.expression_precision
    return normal, right


def followed(known: LinearLandmarks, person: State) -> State:
    """The most probable expressions and poses of other moments of a person who has been found."""
    found = (person.shared - known.expected)[: len(known.growth)]
    known = known.grown(float(found @ known.growth) * known.size_std)
    state = first_state(known, person)
    for _ in range(ROUNDS):
        turned, seen = projected(known, state)
        weight = inverse_variances(known, state)
        weighted = _Weighted.of(known, state, turned, known.observed - seen, weight)
        normal, right = _own_equations(known, weighted, state.expression - known.expression_mean)
        step = torch.linalg.solve(normal, right[..., None])[..., 0]
        state = _moved(state, torch.zeros_like(state.shared), step, turned)
    return state


def inverse_variances(known: LinearLandmarks, state: State) -> Float[Tensor, "views moments points"]:
    """Inverse variance of each point's noise; Student's t trusts far-off points less."""
    miss = known.observed - projected(known, state)[1]
    return belief(known, state, miss) / _inflation(state)


def belief(
    known: LinearLandmarks, state: State, miss: Float[Tensor, "views moments points 2"]
) -> Float[Tensor, "views moments points"]:
    """Confidence, and less of it for points that are far off. All confidences k-fold make sigma^2 k-fold, no more."""
    far = known.confidence * miss.square().sum(-1) / state.noise_mm**2
    return known.confidence * (DEGREES_OF_FREEDOM + 2) / (DEGREES_OF_FREEDOM + far)


def _inflation(state: State) -> float:
    """Variance of the noise as if every frame told something new."""
    return state.noise_mm**2 * (1 + state.correlation) / (1 - state.correlation)


def shared_precision(known: LinearLandmarks, state: State) -> Float[Tensor, "shared shared"]:
    return torch.block_diag(known.identity_precision, known.displacement_precision / state.displacement_mm**2)


@dataclass(frozen=True, kw_only=True)
class _Weighted:
    """The normal equations without priors, of what is shared and of every moment's own expression and poses.

    A displacement moves its own point before its own camera alone: its columns, most of all by far, are never
    written out.
    """

    shared_normal: Float[Tensor, "shared shared"]
    shared_right: Float[Tensor, " shared"]
    own_normal: Float[Tensor, "moments own own"]
    own_right: Float[Tensor, "moments own"]
    cross: Float[Tensor, "moments own shared"]

    @staticmethod
    def of(
        known: LinearLandmarks,
        state: State,
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
    state: State,
    step: Float[Tensor, " shared"],
    own: Float[Tensor, "moments own"],
    turned: Float[Tensor, "views moments points 3"],
) -> State:
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
