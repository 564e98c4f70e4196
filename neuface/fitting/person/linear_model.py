"""The model of `neuface.fitting.person` as tensors: landmarks that are linear in the unknowns, and the priors."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuface.encoders.calibration import EncoderCalibration
from neuface.fitting.landmark_derivatives import landmark_derivatives, moves_jaw
from neuface.fitting.person.code_columns import CodeColumns
from neuface.fitting.problem import Problem
from neuface.geometry.rotations import rotvec_to_rotmat
from neuface.head.expressions import expression_moments
from neuface.head.model import HeadModel
from neuface.structs import Camera, HeadParams, Prediction

__all__ = ["LinearModel", "linear_model"]

MM_PER_METRE = 1000
DISPLACEMENT_LENGTH_MM = 20.0
"""Length scale of the prior of displacements, mm: those of landmarks this far apart correlate by 1/e."""
INDEPENDENT_SHARE = 0.1
"""Share of a displacement's variance that is independent of all neighbours."""
JAW_STD_RAD = 0.1
"""Standard deviation of the prior of the jaw's rotation about the encoder's prediction, radians per axis."""
SMALLEST_MAGNIFICATION = 1e-6
"""Lower bound of a predicted camera's magnification, NDC per metre, which keeps divisions by it finite."""


@dataclass(frozen=True, kw_only=True)
class LinearModel:
    """The observations of the frames in use, the derivatives of the landmarks, and the priors of the unknowns.

    Lengths are millimetres on the head: image positions are divided by the magnification of each image's initial
    camera. The *shared* unknowns are the identity code and, behind it, the displacements, view by view, in each view
    axis by axis (all x, all y, all z).
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
    kind: Int[Tensor, "views frames"]
    """Which derivatives an image has (`LandmarkDerivatives`)."""
    by_identity: CodeColumns
    """Derivatives of the unposed landmarks by the identity code."""
    by_expression: CodeColumns
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
        return self.by_identity.size

    def unposed(
        self, identity: Float[Tensor, " identity"], expression: Float[Tensor, "frames expression"]
    ) -> Float[Tensor, "views frames points 3"]:
        """The unposed landmarks of a person with these expressions, without displacements, mm."""
        views, frames = self.kind.shape
        kind = self.kind.flatten()
        moved = self.by_expression.moved(kind, expression.repeat(views, 1))
        moved = moved + self.by_identity.moved_alike(kind, identity)
        return self.mean + moved.unflatten(0, (views, frames))

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
    derivatives = landmark_derivatives(head, initial.params, problem.scheme.name)
    columns = [
        CodeColumns(table=(MM_PER_METRE * by[:, points]).transpose(1, 2).contiguous())
        for by in (derivatives.by_identity, derivatives.by_expression)
    ]
    mean = _mean_landmarks(head, initial.params, problem.scheme.name, points, derivatives.kind, *columns)
    at_rest = head.landmarks(head.neutral(), problem.scheme.name)[points] * MM_PER_METRE
    noise = torch.ones_like(at_rest[:, 0])
    noise[[point in problem.scheme.contour for point in points]] = problem.scheme.contour_noise
    displacement_precision = _displacement_precision(at_rest, problem.views, noise)
    expression_mean, expression_precision = _expression_prior(head, initial.params)
    size_direction, size_std = _size_direction(head, identity_mean)
    images = (problem.time * torch.arange(problem.views, device=frames.device)[:, None] + frames).flatten()
    observed_ndc = problem.observed_ndc(images)[:, points].double().unflatten(0, (problem.views, -1))
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
        kind=derivatives.kind,
        by_identity=columns[0],
        by_expression=columns[1],
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


def _mean_landmarks(
    head: HeadModel,
    params: HeadParams,
    scheme: str,
    points: list[int],
    kind: Int[Tensor, "views frames"],
    by_identity: CodeColumns,
    by_expression: CodeColumns,
) -> Float[Tensor, "views frames points 3"]:
    """Unposed landmarks of the mean head, from which the derivatives lead to those of the predictions, mm."""
    # Images of a kind have the same mean, so one image of each is enough.
    numbers = torch.arange(len(by_identity.table), device=kind.device)
    first = (kind.flatten() == numbers[:, None]).int().argmax(1)
    some = params.flatten_batch(2)[first]
    landmarks = head.landmarks(some.unposed(), scheme, facing=some)[..., points, :] * MM_PER_METRE
    expression = torch.cat((some.expression, some.jaw_rotvec), -1)[:, : by_expression.size]
    moved = by_identity.moved(numbers, some.identity) + by_expression.moved(numbers, expression)
    return (landmarks - moved)[kind]


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
    if moves_jaw(params):
        means = torch.cat((means, params.jaw_rotvec.mean(0)), -1)
        precision = torch.block_diag(precision, torch.eye(3).to(precision) / JAW_STD_RAD**2)
    return means, precision


def _displacement_precision(
    points_mm: Float[Tensor, "points 3"], views: int, relative_noise: Float[Tensor, " points"]
) -> Float[Tensor, "displacement displacement"]:
    """Of the displacements of all landmarks in all views, for s = 1 mm; axes and views are independent."""
    precision = torch.linalg.inv(_displacement_covariance(points_mm, relative_noise)).contiguous()
    of_view = torch.kron(torch.eye(3).to(precision), precision)
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
