"""Landmarks as a linear function of the head's codes and of lasting displacements, with what is expected of these.

The model that `neuface.fitting.person.estimate` solves; it stands at the top of that file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import roma
import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuface.encoders.calibration import EncoderCalibration
from neuface.fitting.problem import Problem
from neuface.head.expressions import expression_moments
from neuface.head.model import HeadModel, contour_row
from neuface.landmarks.schemes import IBUG68, MEDIAPIPE478, MEDIAPIPE_TO_IBUG68, POINTS_BY_SCHEME
from neuface.structs import HeadParams, Prediction

__all__ = ["LinearLandmarks"]

# Displacements of points this far apart correlate by 1/e; this share of their variance is every point's own.
REACH_MM, OWN_SHARE = 20.0, 0.1
# Points of the contour lie on no feature of the face: their displacement is larger by as much as their noise is on
# real video (`neuface.synthetic.landmark_noise`).
CONTOUR_POINTS, CONTOUR_FACTOR = 17, 1.7
JAW_STD_RAD, JAW_STEP_RAD = 0.1, 1e-4


@dataclass(frozen=True, kw_only=True)
class LinearLandmarks:
    """What is seen, what moves it, and what is expected of all that does, for the images that are looked at.

    Lengths are millimetres on the head: those in the pictures are divided by each image's scale at the start.
    """

    observed: Float[Tensor, "views moments points 2"]
    confidence: Float[Tensor, "views moments points"]
    neighbours: Float[Tensor, "views pairs"]
    """1 where a moment and the next are of one clip, and no frame between them was left out but for evenness."""
    rest: Float[Tensor, "views moments points 3"]
    """Unposed points of the mean head."""
    by_identity: Float[Tensor, "views moments points 3 identity"]
    by_expression: Float[Tensor, "views moments points 3 expression"]
    """The jaw's rotation, where the encoder moves it, is part of the expression."""
    first_rotation: Float[Tensor, "views moments 3 3"]
    expected: Float[Tensor, " shared"]
    """Of the identity and, behind it, the displacements, view by view."""
    growth: Float[Tensor, " identity"]
    """Unit vector along which the face grows; zeros if it does not."""
    size_std: float
    """Standard deviation of the logarithm of the face's size in the population."""
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
        times: Int[Tensor, " moments"],
        expected: Float[Tensor, " identity"],
        calibration: EncoderCalibration,
    ) -> LinearLandmarks:
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
        size_std = float(growth.norm())
        growth = growth / max(size_std, 1e-12)
        per_ndc = 1000 / answer.camera.scale.clamp(min=1e-6)
        confidence = problem.confidence[:, times][..., points].double()
        observed = problem.observed_ndc[:, times][:, :, points].double() * per_ndc[..., None, None]
        return LinearLandmarks(
            observed=torch.where(confidence[..., None] > 0, observed, 0.0),
            confidence=confidence,
            neighbours=_consecutive(problem, times).to(confidence).expand(problem.views, -1),
            rest=rest,
            by_identity=by_identity,
            by_expression=by_expression,
            first_rotation=roma.rotvec_to_rotmat(params.root_rotvec),
            expected=torch.nn.functional.pad(expected, (0, len(displacement))),
            growth=growth,
            size_std=size_std,
            identity_precision=torch.eye(len(expected)).to(expected)
            + (calibration.size_precision - 1) * torch.outer(growth, growth),
            displacement_precision=displacement,
            expression_mean=means,
            expression_precision=precision,
        )

    def log_density(self) -> float:
        """Logarithm of the density of displacements of zero (s = 1 mm), but for a constant."""
        return 0.5 * float(torch.logdet(self.displacement_precision))

    def grown(self, log_growth: float) -> LinearLandmarks:
        """What is expected of a head that is larger by this: its expressions and displacements are larger, too.

        Otherwise somebody who moves little would be taken for a large head far away.
        """
        shrinks = math.exp(-2 * log_growth)
        return replace(
            self,
            expression_mean=self.expression_mean * math.exp(log_growth),
            expression_precision=self.expression_precision * shrinks,
            displacement_precision=self.displacement_precision * shrinks,
        )


def _points_of(scheme: str, count: int) -> list[int]:
    """The 68 points of a face, or their counterparts: several hundred of a mesh say no more, for they move as one."""
    whole_mesh = scheme == MEDIAPIPE478 and count == POINTS_BY_SCHEME[scheme]
    return list(MEDIAPIPE_TO_IBUG68) if whole_mesh else list(range(count))


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
) -> tuple[Int[Tensor, " kinds"], Int[Tensor, " images"]]:
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


def _consecutive(problem: Problem, times: Int[Tensor, " moments"]) -> Tensor:
    starts = torch.tensor(problem.starts, device=times.device)
    clip = torch.searchsorted(starts, times, right=True)
    # Of a long clip only every second or third frame that has landmarks is looked at.
    spacing = math.ceil(int(problem.valid.any(0).sum()) / max(1, len(times)))
    return (times.diff() <= spacing) & (clip[1:] == clip[:-1])
