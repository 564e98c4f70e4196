"""One person's identity code from all landmarks of a clip: the most probable one, by linear least squares.

Gradient steps follow the landmarks with everything at once and cannot tell a face's shape from where a detector has
its points, or from what it gets wrong for a second. Here the code alone is asked for, and all else is unknown: for
point j of view v at time t,

    observed_vtj = camera_vt(template_j + B_j identity + E_j expression_t + displacement_vj) + noise_vtj

    identity        normal about the encoder's mean answer for the clip, one standard deviation of the population in
                    every coefficient. (On 2000 rendered people the open encoder's error has 0.5 of the population's
                    variance in the first two coefficients, 0.7 to 0.8 in the next three, more than 0.9 in nearly all
                    others.)
    expression_t    normal with the moments of `neuface.head.expressions`
    displacement_vj normal, s millimetres, the same at all times, alike for neighbouring points: where a detector or a
                    scheme has this point of this face as this camera sees it
    noise_vtj       Student's t, sigma millimetres. If noise correlates by rho from frame to frame, it takes
                    (1 + rho) / (1 - rho) frames to tell what one would.
    camera_vt       weak perspective, any pose

s, sigma and rho are estimated along with the rest, by expectation maximisation: exact landmarks of a rendered face
are followed closely, those of a detector as far as they deserve. Not in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import roma
import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuface.fitting.problem import Problem
from neuface.fitting.resection import pose_jacobian
from neuface.head.expressions import expression_moments
from neuface.head.model import HeadModel, contour_row
from neuface.landmarks.schemes import IBUG68, MEDIAPIPE478, MEDIAPIPE_TO_IBUG68, POINTS_BY_SCHEME
from neuface.structs import HEAD_TO_NDC_SIGNS, HeadParams, Prediction

__all__ = ["IdentityEstimate", "estimate_identity"]

ROUNDS = 10
# More images tell nothing new of one person's shape, and cost memory: about half a megabyte each, times the views.
MOST_IMAGES, MOST_IMAGES_BY_VIEWS = 192, 768
# Displacements of points this far apart correlate by 1/e; this share of their variance is every point's own.
REACH_MM, OWN_SHARE = 20.0, 0.1
# Points of the contour lie on no feature of the face: their displacement is larger by as much as their noise is on
# real video (`neuface.benchmark.corruption`).
CONTOUR_POINTS, CONTOUR_FACTOR = 17, 1.7
DEGREES_OF_FREEDOM = 4.0
# Where expectation maximisation starts, millimetres, and what it does not go below.
FIRST_NOISE_MM, FIRST_DISPLACEMENT_MM, LEAST_MM = 0.6, 1.0, 0.05
LARGEST_CORRELATION = 0.95
# Coefficients of an expression that landmarks determine, at most: the others follow from these.
FREE_EXPRESSION = 20
JAW_STD_RAD, JAW_STEP_RAD = 0.1, 1e-4
POSE = 6
# What no landmark tells (the pose of an image without any) is held by this precision, per mm^2 or rad^2.
HOLD = 1e-6
# Makes the direction of growth as good as fixed; other precisions are of order 1 to 1e5.
FIXED = 1e9
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
def estimate_identity(
    head: HeadModel, answer: Prediction, problem: Problem, *, hold_size: bool = True
) -> IdentityEstimate:
    """The most probable identity code of the person in a clip.

    Looks at no more than MOST_IMAGES images, of times that are spread over the clip. Float64 inside.

    Args:
        answer: the encoder's for every image, batch axes `views time`: the start, and the mean of what is expected.
        hold_size: keep the size of the face at the encoder's mean answer (`HeadModel.log_size`).
    """
    expected = answer.params.identity[problem.valid].mean(0)
    times = _spread_times(problem)
    known = _Known.of(
        head.to(torch.float64), answer[:, times].to(torch.float64), problem, times, expected.double()
    )
    state = known.start()
    for _ in range(ROUNDS):
        state = _round(known, state, hold_size=hold_size)
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


def _points_of(scheme: str, count: int) -> list[int]:
    """The 68 points of a face, or their counterparts: several hundred of a mesh say no more, for they move as one."""
    whole_mesh = scheme == MEDIAPIPE478 and count == POINTS_BY_SCHEME[scheme]
    return list(MEDIAPIPE_TO_IBUG68) if whole_mesh else list(range(count))


@dataclass(frozen=True, kw_only=True)
class _Known:
    """The linear model. Lengths are millimetres on the head: image lengths by each image's scale at the start."""

    observed: Float[Tensor, "views moments points 2"]
    confidence: Float[Tensor, "views moments points"]
    neighbours: Float[Tensor, "views pairs"]
    """1 where a moment and the next are consecutive frames of one clip."""
    rest: Float[Tensor, "views moments points 3"]
    """Unposed points of the mean head."""
    by_identity: Float[Tensor, "views moments points 3 identity"]
    by_expression: Float[Tensor, "views moments points 3 expression"]
    """The jaw's rotation, where the encoder moves it, is part of the expression."""
    first_rotation: Float[Tensor, "views moments 3 3"]
    expected: Float[Tensor, "shared"]
    """Of the identity and, behind it, the displacements, view by view."""
    growth: Float[Tensor, "identity"]
    """Unit vector along which the face grows; zeros if it does not."""
    identity_precision: Float[Tensor, "identity identity"]
    displacement_precision: Float[Tensor, "displacement displacement"]
    """Per s^2."""
    expression_mean: Float[Tensor, "moments expression"]
    expression_precision: Float[Tensor, "expression expression"]

    @staticmethod
    def of(
        head: HeadModel,
        answer: Prediction,
        problem: Problem,
        times: Int[Tensor, "moments"],
        expected: Float[Tensor, "identity"],
    ) -> _Known:
        scheme, params = problem.scheme, answer.params
        points = _points_of(scheme, problem.observed_ndc.shape[2])
        at_rest = head.landmarks(head.neutral(), scheme)[points] * 1000
        alike = torch.linalg.inv(_likeness(at_rest)).contiguous()
        displacement = torch.kron(alike, torch.eye(3).to(alike))
        displacement = torch.block_diag(*[displacement] * problem.views)
        by_code = _Derivatives(head, params, scheme, points)
        by_identity, by_expression = by_code.of("identity"), by_code.of("expression")
        mean, covariance = expression_moments(head.expression_names)
        size = params.expression.shape[-1]
        mean, covariance = mean[:size].to(at_rest), covariance[:size, :size].to(at_rest)
        rest = (
            by_code.at
            - torch.einsum("vtpci, vti -> vtpc", by_identity, params.identity)
            - torch.einsum("vtpce, vte -> vtpc", by_expression, params.expression)
        )
        means = mean.expand(len(times), -1)
        precision = torch.linalg.inv(covariance)
        if bool((params.jaw_rotvec != 0).any()):
            by_jaw, jaw = by_code.of("jaw_rotvec", JAW_STEP_RAD), params.jaw_rotvec
            by_expression = torch.cat((by_expression, by_jaw), -1)
            rest = rest - torch.einsum("vtpce, vte -> vtpc", by_jaw, jaw)
            means = torch.cat((means, jaw.mean(0)), -1)
            precision = torch.block_diag(precision, torch.eye(3).to(precision) / JAW_STD_RAD**2)
        growth = head.log_size(torch.eye(len(expected)).to(expected))
        per_ndc = 1000 / answer.camera.scale.clamp(min=1e-6)
        confidence = problem.confidence[:, times][..., points].double()
        observed = problem.observed_ndc[:, times][:, :, points].double() * per_ndc[..., None, None]
        return _Known(
            observed=torch.where(confidence[..., None] > 0, observed, 0.0),
            confidence=confidence,
            neighbours=_consecutive(problem, times).to(confidence).expand(problem.views, -1),
            rest=rest,
            by_identity=by_identity,
            by_expression=by_expression,
            first_rotation=roma.rotvec_to_rotmat(params.root_rotvec),
            expected=torch.nn.functional.pad(expected, (0, len(displacement))),
            growth=growth / growth.norm().clamp(min=1e-12),
            identity_precision=torch.eye(len(expected)).to(expected),
            displacement_precision=displacement,
            expression_mean=means,
            expression_precision=precision,
        )

    def start(self) -> _State:
        views, moments = self.rest.shape[:2]
        zero = self.rest.new_zeros(views, moments)
        state = _State(
            shared=self.expected,
            expression=self.expression_mean,
            rotation=self.first_rotation,
            log_scale=zero,
            shift=zero[..., None].expand(-1, -1, 2),
        )
        # Where the heads lie in the pictures follows from the rest.
        missing = (self.observed - _seen(self, state)[1]) * self.confidence[..., None]
        shift = missing.sum(2) / self.confidence.sum(-1, keepdim=True).clamp(min=1e-9)
        return replace(state, shift=shift)


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


class _Derivatives:
    """How unposed landmarks change with the codes, in which they are linear. The places of sliding points are those
    of the pose at the start."""

    def __init__(self, head: HeadModel, params: HeadParams, scheme: str, points: list[int]) -> None:
        self.head, self.scheme, self.points = head, scheme, points
        self.at = self._points(params.unposed(), params)
        first, self.like = _kinds(head, params.flatten_batch(2), scheme)
        self.facing = params.flatten_batch(2)[first]
        self.kinds = self.facing.unposed()
        self.at_kinds = self._points(self.kinds, self.facing)

    def _points(self, params: HeadParams, facing: HeadParams) -> Float[Tensor, "*batch points 3"]:
        return self.head.landmarks(params, self.scheme, facing=facing)[..., self.points, :] * 1000

    def of(self, name: str, step: float = 1.0) -> Float[Tensor, "views moments points 3 code"]:
        code = getattr(self.kinds, name)
        columns = []
        for further in step * torch.eye(code.shape[-1]).to(code):
            moved = self._points(replace(self.kinds, **{name: code + further}), self.facing)
            columns.append((moved - self.at_kinds) / step)
        return torch.stack(columns, -1)[self.like].unflatten(0, self.at.shape[:2])


def _kinds(
    head: HeadModel, params: HeadParams, scheme: str
) -> tuple[Int[Tensor, "kinds"], Int[Tensor, "images"]]:
    """Images whose landmarks change alike with the codes: one of each kind, and the kind of every image.

    They have the same joints behind the root, and their sliding points in the same places.
    """
    embedding = head.embeddings[scheme]
    slides = embedding.contour_yaw_rad.numel() > 0
    row = contour_row(embedding, params) if slides else torch.zeros_like(params.root_rotvec[:, 0])
    joints = torch.cat((params.neck_rotvec, params.jaw_rotvec, params.eyes_rotvec.flatten(1)), -1)
    kind = torch.cat((row[:, None].to(joints), joints), -1).unique(dim=0, return_inverse=True)[1]
    count = int(kind.max()) + 1
    image = torch.arange(len(kind), device=kind.device)
    first = torch.full((count,), len(kind), device=kind.device).scatter_reduce(0, kind, image, "amin")
    return first, kind


def _likeness(points_mm: Float[Tensor, "points 3"]) -> Float[Tensor, "points points"]:
    """Covariance of the displacements of landmarks, for s = 1."""
    near = torch.exp(-torch.cdist(points_mm, points_mm) / REACH_MM)
    likeness = (1 - OWN_SHARE) * near + OWN_SHARE * torch.eye(len(points_mm)).to(near)
    if len(points_mm) == POINTS_BY_SCHEME[IBUG68]:
        size = torch.ones_like(likeness[0])
        size[:CONTOUR_POINTS] = CONTOUR_FACTOR
        likeness = likeness * size * size[:, None]
    return likeness


def _consecutive(problem: Problem, times: Int[Tensor, "moments"]) -> Tensor:
    begins = torch.isin(times[1:], torch.tensor(problem.starts, device=times.device))
    return (times.diff() == 1) & ~begins


def _seen(known: _Known, state: _State) -> tuple[Tensor, Tensor]:
    """Turned points without the shift of their image, and where they are seen: `views moments points` x 3 and 2."""
    size = known.by_identity.shape[-1]
    body = known.rest + torch.einsum("vtpci, i -> vtpc", known.by_identity, state.shared[:size])
    body = body + torch.einsum("vtpce, te -> vtpc", known.by_expression, state.expression)
    body = body + state.shared[size:].view(len(body), 1, -1, 3)
    turned = torch.einsum("vtab, vtpb -> vtpa", state.rotation, body)
    turned = turned * state.log_scale.exp()[..., None, None]
    return turned, turned[..., :2] * turned.new_tensor(SIGNS) + state.shift[..., None, :]


def _round(known: _Known, state: _State, *, hold_size: bool) -> _State:
    """One Gauss-Newton step with the weights of this state, then the variances of the new one."""
    turned, seen = _seen(known, state)
    miss = known.observed - seen
    weight = _weights(known, state, miss)
    by_shared, by_own = _jacobians(known, state, turned)
    root = _rows(weight.sqrt()[..., None].expand_as(miss))
    shared, own, missed = by_shared * root[..., None], by_own * root[..., None], _rows(miss) * root

    expressions = known.expression_precision.shape[0]
    own_prior = torch.diag(own.new_full((own.shape[-1],), HOLD))
    own_prior[:expressions, :expressions] += known.expression_precision
    own_right = (own.mT @ missed[..., None])[..., 0]
    own_right[:, :expressions] -= (state.expression - known.expression_mean) @ known.expression_precision
    cross = own.mT @ shared
    solved = torch.linalg.solve(own.mT @ own + own_prior, torch.cat((cross, own_right[..., None]), -1))

    precision = _shared_precision(known, state)
    right = torch.einsum("trg, tr -> g", shared, missed) - precision @ (state.shared - known.expected)
    right = right - torch.einsum("tng, tn -> g", cross, solved[..., -1])
    identity = known.by_identity.shape[-1]
    if hold_size:
        precision[:identity, :identity] += FIXED * torch.outer(known.growth, known.growth)
    normal = torch.einsum("trg, trh -> gh", shared, shared) + precision
    normal = normal - torch.einsum("tng, tnh -> gh", cross, solved[..., :-1])
    covariance = torch.linalg.inv(normal)
    step = covariance @ right
    own_step = solved[..., -1] - solved[..., :-1] @ step
    moved = _moved(state, step, own_step, turned)
    return _with_variances(known, moved, covariance[identity:, identity:])


def _rows(values: Float[Tensor, "views moments points 2"]) -> Float[Tensor, "moments rows"]:
    """What all views see at one time, as one column."""
    return values.transpose(0, 1).flatten(1)


def _inflation(state: _State) -> float:
    """Variance of the noise as if every frame told something new."""
    return state.noise_mm**2 * (1 + state.correlation) / (1 - state.correlation)


def _weights(known: _Known, state: _State, miss: Tensor) -> Float[Tensor, "views moments points"]:
    """Inverse variance of each point's noise; Student's t trusts far-off points less."""
    return known.confidence * _trust(state, miss) / _inflation(state)


def _trust(state: _State, miss: Tensor) -> Float[Tensor, "views moments points"]:
    return (DEGREES_OF_FREEDOM + 2) / (DEGREES_OF_FREEDOM + miss.square().sum(-1) / state.noise_mm**2)


def _shared_precision(known: _Known, state: _State) -> Float[Tensor, "shared shared"]:
    return torch.block_diag(known.identity_precision, known.displacement_precision / state.displacement_mm**2)


def _jacobians(
    known: _Known, state: _State, turned: Float[Tensor, "views moments points 3"]
) -> tuple[Float[Tensor, "moments rows shared"], Float[Tensor, "moments rows own"]]:
    """How image points move with what is shared, and with each moment's expression and, view by view, pose."""
    views, moments, points = turned.shape[:3]
    signs = turned.new_tensor(SIGNS)
    camera = state.rotation[..., :2, :] * signs[:, None] * state.log_scale.exp()[..., None, None]

    def rows(jacobian: Tensor) -> Tensor:
        return jacobian.transpose(0, 1).flatten(1, 3)

    by_identity = torch.einsum("vtac, vtpci -> vtpai", camera, known.by_identity)
    by_expression = torch.einsum("vtac, vtpce -> vtpae", camera, known.by_expression)
    by_displacement = turned.new_zeros(views, moments, points, 2, views, points, 3)
    each = torch.arange(points)
    for view in range(views):
        by_displacement[view][:, each, :, view, each] = camera[view].expand(points, -1, -1, -1)
    shared = torch.cat((rows(by_identity), rows(by_displacement.flatten(-3))), -1)

    # Turns and growth leave the middle of the points where it is: otherwise they would fight with the shift.
    arm = (turned - turned.mean(2, keepdim=True)).flatten(0, 1)
    by_pose = pose_jacobian(arm.new_ones(len(arm)), arm, arm).unflatten(0, (views, moments))
    pose = turned.new_zeros(views, moments, points, 2, views, POSE)
    for view in range(views):
        pose[view, :, :, :, view] = by_pose[view]
    return shared, torch.cat((rows(by_expression), rows(pose.flatten(-2))), -1)


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
    known: _Known, state: _State, uncertainty: Float[Tensor, "displacement displacement"]
) -> _State:
    """The M-step of expectation maximisation: noise, its correlation, and displacement."""
    miss = known.observed - _seen(known, state)[1]
    views, moments = miss.shape[:2]
    trust = known.confidence * _trust(state, miss)
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
