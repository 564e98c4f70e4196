"""The model of `neuface.fitting.person` as tensors: landmarks that are linear in the unknowns, and the priors."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuface.encoders.calibration import EncoderCalibration
from neuface.fitting.problem import Problem
from neuface.geometry.rotations import rotvec_to_rotmat
from neuface.head.expressions import expression_moments
from neuface.head.model import HeadModel, contour_row
from neuface.structs import Camera, HeadParams, Prediction

__all__ = ["LinearModel", "linear_model"]

MM_PER_METRE = 1000
DISPLACEMENT_LENGTH_MM = 20.0
"""Length scale of the prior of displacements, mm: those of landmarks this far apart correlate by 1/e."""
INDEPENDENT_SHARE = 0.1
"""Share of a displacement's variance that is independent of all neighbours."""
JAW_STD_RAD = 0.1
"""Standard deviation of the prior of the jaw's rotation about the encoder's prediction, radians per axis."""
JAW_STEP_RAD = 1e-4
"""Step of the finite difference by the jaw's rotation, radians; landmarks are linear in the other codes."""
SMALLEST_MAGNIFICATION = 1e-6
"""Lower bound of a predicted camera's magnification, NDC per metre, which keeps divisions by it finite."""


@dataclass(frozen=True, kw_only=True)
class LinearModel:
    """The observations of the frames in use, the derivatives of the landmarks, and the priors of the unknowns.

    Lengths are millimetres on the head: image positions are divided by the magnification of each image's initial
    camera. The *shared* unknowns are the identity code and, behind it, the displacements, view by view.
    """

    camera: Camera
    """The initial cameras, crop half-widths; batch axes `views frames`."""
    observed_ndc: Float[Tensor, "views frames points 2"]
    """Image positions, crop half-widths; any where the confidence is 0."""
    observed: Float[Tensor, "views frames points 2"]
    """Image positions, mm; 0 where the confidence is 0. What a perspective camera observed is moved to where a
    weak-perspective one would observe it (`gauss_newton.without_perspective`)."""
    root_joint: Float[Tensor, "views frames 3"]
    """What the head turns about, mm."""
    confidence: Float[Tensor, "views frames points"]
    """Weights of the squared distances in `observed`. Noise is even in the image, so what lies nearer to a
    perspective camera than the head frame's origin weighs more, by the square of `nearness`."""
    nearness: Float[Tensor, "views frames points"]
    """Distance of the head frame's origin over that of the landmarks; 1 before weak-perspective cameras."""
    consecutive: Float[Tensor, "views pairs"]
    """1 where a frame in use and the next one are of one clip, and frames between them were left out for even spacing
    alone; else 0."""
    mean: Float[Tensor, "views frames points 3"]
    """Unposed landmarks of the mean head, mm."""
    by_identity: Float[Tensor, "views frames points 3 identity"]
    """Derivative of the unposed landmarks, mm per unit of the code."""
    by_expression: Float[Tensor, "views frames points 3 expression"]
    """Likewise. Where the encoder moves the jaw, its rotation vector follows the expression code, mm per radian."""
    initial_rotation: Float[Tensor, "views frames 3 3"]
    shared_mean: Float[Tensor, " shared"]
    """Prior mean of the shared unknowns."""
    size_direction: Float[Tensor, " identity"]
    """Unit vector of identity codes along which the size of the face changes; zeros if no code changes it."""
    size_std: float
    """Standard deviation of the log size of the face in the population."""
    identity_precision: Float[Tensor, "identity identity"]
    displacement_precision: Float[Tensor, "displacement displacement"]
    """For displacements with a standard deviation s of 1 mm; to be divided by s^2."""
    expression_mean: Float[Tensor, "frames expression"]
    expression_precision: Float[Tensor, "expression expression"]

    @property
    def num_identity(self) -> int:
        """How many of the shared unknowns are the identity code."""
        return self.by_identity.shape[-1]

    def log_density(self) -> float:
        """Log of the prior density of displacements of zero with s = 1 mm, up to a constant."""
        return 0.5 * float(torch.logdet(self.displacement_precision))

    def resized(self, log_change: float) -> LinearModel:
        """The priors for a head that is larger by a factor `exp(log_change)`: all its lengths are larger.

        Without this, a person who moves little would be taken for a large head far away.
        """
        shrinks = math.exp(-2 * log_change)
        return replace(
            self,
            expression_mean=self.expression_mean * math.exp(log_change),
            expression_precision=self.expression_precision * shrinks,
            displacement_precision=self.displacement_precision * shrinks,
        )


def linear_model(
    head: HeadModel,
    initial: Prediction,
    problem: Problem,
    frames: Int[Tensor, " frames"],
    identity_mean: Float[Tensor, " identity"],
    calibration: EncoderCalibration,
) -> LinearModel:
    """The model of some frames of a clip.

    Args:
        head: in float64.
        initial: the encoder's predictions of these frames, float64, batch axes `views frames`: poses and cameras to
            start from. The unposed landmarks are linearised about them.
        frames: which frames of the problem these are.
        identity_mean: prior mean of the identity code.
        calibration: how wrong this mean is.
    """
    # The 68 points of a face, or their counterparts in a mesh, whose other points move with these.
    points = list(problem.scheme.to_ibug68)
    mean, by_identity, by_expression = _linearised(head, initial.params, problem.scheme.name, points)
    at_rest = head.landmarks(head.neutral(), problem.scheme.name)[points] * MM_PER_METRE
    noise = torch.ones_like(at_rest[:, 0])
    noise[[point in problem.scheme.contour for point in points]] = problem.scheme.contour_noise
    displacement_precision = _displacement_precision(at_rest, problem.views, noise)
    expression_mean, expression_precision = _expression_prior(head, initial.params)
    size_direction, size_std = _size_direction(head, identity_mean)
    observed_ndc = problem.observed_ndc[:, frames][:, :, points].double()
    confidence = problem.confidence[:, frames][..., points].double()
    camera = initial.camera.placed(
        initial.camera.position, initial.camera.magnification.clamp(min=SMALLEST_MAGNIFICATION)
    )
    posed = head.landmarks(initial.params, problem.scheme.name)[..., points, :]
    return LinearModel(
        camera=camera,
        observed_ndc=observed_ndc,
        observed=observed_mm(camera, camera.without_perspective(observed_ndc, posed), confidence),
        confidence=confidence,
        nearness=torch.ones_like(confidence),
        root_joint=head.joints(initial.params)[..., 0, :] * MM_PER_METRE,
        consecutive=_consecutive(problem, frames).to(confidence).expand(problem.views, -1),
        mean=mean,
        by_identity=by_identity,
        by_expression=by_expression,
        initial_rotation=rotvec_to_rotmat(initial.params.root_rotvec),
        shared_mean=torch.nn.functional.pad(identity_mean, (0, len(displacement_precision))),
        size_direction=size_direction,
        size_std=size_std,
        identity_precision=torch.eye(len(identity_mean)).to(identity_mean)
        + (calibration.size_precision - 1) * torch.outer(size_direction, size_direction),
        displacement_precision=displacement_precision,
        expression_mean=expression_mean,
        expression_precision=expression_precision,
    )


def observed_mm(
    initial: Camera,
    observed_ndc: Float[Tensor, "views frames points 2"],
    confidence: Float[Tensor, "views frames points"],
) -> Float[Tensor, "views frames points 2"]:
    """Image positions in millimetres on the head as the initial cameras magnify it, 0 where nothing was observed."""
    mm_per_ndc = MM_PER_METRE / initial.magnification[..., None, None]
    return torch.where(confidence[..., None] > 0, observed_ndc * mm_per_ndc, 0.0)


def _consecutive(problem: Problem, frames: Int[Tensor, " frames"]) -> Bool[Tensor, " pairs"]:
    starts = torch.tensor(problem.starts, device=frames.device)
    clip = torch.searchsorted(starts, frames, right=True)
    # Of a long clip only every second or third frame with landmarks is in use.
    spacing = math.ceil(int(problem.valid.any(0).sum()) / max(1, len(frames)))
    return (frames.diff() <= spacing) & (clip[1:] == clip[:-1])


# --- Derivatives of the unposed landmarks


def _moves_jaw(params: HeadParams) -> bool:
    return bool((params.jaw_rotvec != 0).any())


def _linearised(
    head: HeadModel, params: HeadParams, scheme: str, points: list[int]
) -> tuple[
    Float[Tensor, "views frames points 3"],
    Float[Tensor, "views frames points 3 identity"],
    Float[Tensor, "views frames points 3 expression"],
]:
    """Unposed landmarks of the mean head (mm), and their derivatives by identity and expression (with jaw)."""
    derivatives = _Derivatives(head, params, scheme, points)
    by_identity, by_expression = derivatives.by("identity"), derivatives.by("expression")
    mean = (
        derivatives.landmarks
        - torch.einsum("vtpci, vti -> vtpc", by_identity, params.identity)
        - torch.einsum("vtpce, vte -> vtpc", by_expression, params.expression)
    )
    if _moves_jaw(params):
        by_jaw = derivatives.by("jaw_rotvec", JAW_STEP_RAD)
        by_expression = torch.cat((by_expression, by_jaw), -1)
        mean = mean - torch.einsum("vtpce, vte -> vtpc", by_jaw, params.jaw_rotvec)
    return mean, by_identity, by_expression


class _Derivatives:
    """How unposed landmarks change with the codes, in which they are linear.

    Sliding points stay at the positions on the head that they have in the initial pose. Images with the same joint
    rotations and the same positions of sliding points have the same derivatives, which are computed once.
    """

    def __init__(self, head: HeadModel, params: HeadParams, scheme: str, points: list[int]) -> None:
        self._head, self._scheme, self._chosen = head, scheme, points
        self.landmarks = self._landmarks(params.unposed(), params)
        """Unposed, of every image, mm."""
        first, self._kind = _kinds(head, params.flatten_batch(2), scheme)
        self._facing = params.flatten_batch(2)[first]
        self._unposed = self._facing.unposed()
        self._at_kinds = self._landmarks(self._unposed, self._facing)

    def _landmarks(self, params: HeadParams, facing: HeadParams) -> Float[Tensor, "*batch points 3"]:
        points = self._head.landmarks(params, self._scheme, facing=facing)
        return points[..., self._chosen, :] * MM_PER_METRE

    def by(self, code: str, step: float = 1.0) -> Float[Tensor, "views frames points 3 code"]:
        """The derivative by the field `code` of the parameters, mm per unit, as a difference over `step`."""
        values = getattr(self._unposed, code)
        columns = []
        for change in step * torch.eye(values.shape[-1]).to(values):
            moved = self._landmarks(replace(self._unposed, **{code: values + change}), self._facing)
            columns.append((moved - self._at_kinds) / step)
        return torch.stack(columns, -1)[self._kind].unflatten(0, self.landmarks.shape[:2])


def _kinds(
    head: HeadModel, params: HeadParams, scheme: str
) -> tuple[Int[Tensor, " kinds"], Int[Tensor, " images"]]:
    """Groups of images whose landmarks change alike with the codes: the first image of each, and the group of every
    image.

    The images of a group have the same joints behind the root, and their sliding points in the same positions.
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


# --- Priors


def _size_direction(
    head: HeadModel, like: Float[Tensor, " identity"]
) -> tuple[Float[Tensor, " identity"], float]:
    """The unit vector along which the size of the face changes, and the population's deviation of log size."""
    gradient = head.log_size(torch.eye(len(like)).to(like))
    size_std = float(gradient.norm())
    return gradient / max(size_std, 1e-12), size_std


def _expression_prior(
    head: HeadModel, params: HeadParams
) -> tuple[Float[Tensor, "frames expression"], Float[Tensor, "expression expression"]]:
    """Mean in every frame, and precision, of the expression code, and of the jaw's rotation where the encoder moves
    it."""
    size = params.expression.shape[-1]
    mean, covariance = expression_moments(head.expression_names)
    mean, covariance = mean[:size].to(params.expression), covariance[:size, :size].to(params.expression)
    means = mean.expand(params.expression.shape[1], -1)
    precision = torch.linalg.inv(covariance)
    if _moves_jaw(params):
        means = torch.cat((means, params.jaw_rotvec.mean(0)), -1)
        precision = torch.block_diag(precision, torch.eye(3).to(precision) / JAW_STD_RAD**2)
    return means, precision


def _displacement_precision(
    points_mm: Float[Tensor, "points 3"], views: int, relative_noise: Float[Tensor, " points"]
) -> Float[Tensor, "displacement displacement"]:
    """Of the displacements of all landmarks in all views, for s = 1 mm; axes and views are independent."""
    precision = torch.linalg.inv(_displacement_covariance(points_mm, relative_noise)).contiguous()
    of_view = torch.kron(precision, torch.eye(3).to(precision))
    return torch.block_diag(*[of_view] * views)


def _displacement_covariance(
    points_mm: Float[Tensor, "points 3"], relative_noise: Float[Tensor, " points"]
) -> Float[Tensor, "points points"]:
    """Of one coordinate of the displacements of landmarks, for s = 1 mm: exponential in their distance.

    Points of the contour lie on no feature of the face; their bias is larger by the factor of their noise,
    `relative_noise`, which is 1 for the other points.
    """
    near = torch.exp(-torch.cdist(points_mm, points_mm) / DISPLACEMENT_LENGTH_MM)
    covariance = (1 - INDEPENDENT_SHARE) * near + INDEPENDENT_SHARE * torch.eye(len(points_mm)).to(near)
    return covariance * relative_noise * relative_noise[:, None]
