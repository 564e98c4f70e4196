"""The objective (Eq. 1): its terms as values, each with its weight, its target from the E-step, and its formula.

A new term is a class here, a field of `Objective`, and a place in `Objective.terms`. It is None where a configuration
does not have it. The formulas of the paper stand on one page in `neuface.losses`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuface import losses
from neuface.errors import InputError
from neuface.fitting.appearance import EstimatedAppearance, estimate_appearance, photometric_residuals
from neuface.fitting.calibrated import CalibratedTarget, calibrated_target, face_middle, fitted_views
from neuface.fitting.merging import Merge, WeightedMean, merge_views
from neuface.fitting.problem import Problem
from neuface.fitting.targets import NO_TARGET, ClipState, Target, expression_landmarks
from neuface.fitting.visibility import AngleOrDepth, Visibility
from neuface.head.model import HeadModel
from neuface.head.pieces import MESHES_PER_CHUNK
from neuface.settings import Bounds, Count, Setting
from neuface.structs import Camera, Prediction

Weight = Annotated[float, Bounds(above=0.0, remedy="a term that shall not act is None")]
"""Factor of a term in the objective."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some images of a clip and what is predicted for them: what terms are evaluated on."""

    head: HeadModel
    prediction: Prediction
    """One batch axis, the images."""
    problem: Problem
    """The whole clip."""
    index: Int[Tensor, " images"]
    """Which images of the flattened (views, time) clip these are."""
    views_per_identity: int = 1
    """How many views share one identity code."""
    sampler: torch.Generator | None = None
    """Draws the frames of terms that use a sample of them; None evaluates every frame."""

    @property
    def images_in_clip(self) -> int:
        return self.problem.views * self.problem.time

    @cached_property
    def landmarks(self) -> Float[Tensor, "images points 3"]:
        """The landmarks of the predicted heads, head frame, metres."""
        return self.head.landmarks(self.prediction.params, self.problem.scheme.name)

    @cached_property
    def landmarks_ndc(self) -> Float[Tensor, "images points 2"]:
        """Where the predicted cameras see them, crop half-widths."""
        return self.prediction.camera.project(self.landmarks)

    @cached_property
    def expression_landmarks(self) -> Float[Tensor, "images points 3"]:
        """`expression_landmarks` of the predicted heads."""
        return expression_landmarks(self.head, self.prediction.params, self.problem.scheme.name)


@dataclass(frozen=True, kw_only=True)
class Term(Setting):
    """One term of the objective."""

    name: ClassVar[str]
    """Its name in histories and reports."""
    target_of_chunk: ClassVar[bool] = True
    """Where the clip is fitted in chunks, the target comes from the chunk; otherwise it stays the whole clip's."""
    weight: Weight
    """Factor of this term in the objective."""

    def target(self, clip: ClipState) -> Target | None:
        """The target that the E-step makes; None if the term does not apply to the clip."""
        return NO_TARGET

    @abstractmethod
    def values(self, batch: Batch, target: Any) -> Float[Tensor, " images"]:
        """The unweighted term of every image, scaled so that its sum over the clip is its mean.

        Args:
            target: the target's value for these images.
        """


@dataclass(frozen=True, kw_only=True)
class LandmarkTerm(Term):
    """Distance of projected to observed landmarks (Eq. 2), crop half-widths; mean over images with landmarks."""

    name: ClassVar[str] = "landmark"
    weight: Weight = 1.0
    penalty: Literal["l1", "saturating"] = "saturating"
    """The L1 distance of Eq. 2, or one that levels off for points that are far away."""
    use_confidence: bool = True
    """Weigh every landmark by its confidence; else all that were found count alike."""

    def values(self, batch: Batch, target: None) -> Float[Tensor, " images"]:
        """Eq. 2, image by image."""
        problem = batch.problem
        observed = problem.observed_ndc(batch.index)
        confidence = problem.confidence.flatten(0, 1)[batch.index]
        saturating = self.penalty == "saturating"
        distance = losses.landmark_loss(batch.landmarks_ndc, observed, confidence, saturating=saturating)
        return distance / problem.valid.sum()


@dataclass(frozen=True, kw_only=True)
class TemporalTerm(Term):
    """Distance of the head's orientation to its smoothed trajectory (Eq. 3), quaternion units: half the angle."""

    name: ClassVar[str] = "temporal"
    weight: Weight = 0.2
    penalty: Literal["norm", "squared"] = "norm"
    """The norm of Eq. 3, or the released code's square: mean over the four numbers, summed over views."""

    def target(self, clip: ClipState) -> Target:
        """Smoothed orientation of every image, quaternions."""
        return Target(value=clip.smoothed_rotations(clip.params.root_rotvec), per="image")

    def values(self, batch: Batch, target: Float[Tensor, "images 4"]) -> Float[Tensor, " images"]:
        """Eq. 3, image by image."""
        squared = self.penalty == "squared"
        distance = losses.temporal_loss(batch.prediction.params.root_rotvec, target, squared=squared)
        # The released code sums over views what Eq. 3 averages.
        return distance * (batch.problem.views if squared else 1) / batch.images_in_clip


@dataclass(frozen=True, kw_only=True)
class IdentityPrior(Term):
    """Squared deviation of the identity code from an expected one: it constrains what landmarks do not determine.

    It is divided by the number of views that share one code, each of which constrains it. Not in the paper.
    """

    name: ClassVar[str] = "identity_prior"
    target_of_chunk: ClassVar[bool] = False

    def target(self, clip: ClipState) -> Target:
        """The expected code."""
        return Target(value=clip.priors.identity, per="clip")

    def values(self, batch: Batch, target: Float[Tensor, " identity"]) -> Float[Tensor, " images"]:
        """Mean squared deviation, image by image."""
        deviation = losses.identity_prior(batch.prediction.params.identity, target)
        return deviation / (batch.images_in_clip * batch.views_per_identity)


@dataclass(frozen=True, kw_only=True)
class FromEncoder(IdentityPrior):
    """The expected code is the mean of the pretrained encoder's predictions for the clip."""

    weight: Weight = 0.3


@dataclass(frozen=True, kw_only=True)
class FromPopulation(IdentityPrior):
    """The expected code is the population's mean, as in the regularisers of direct fitting (paper, Eq. 5)."""

    weight: Weight = 1e-3


@dataclass(frozen=True, kw_only=True)
class FromLandmarks(IdentityPrior):
    """The expected code is the most probable one given the encoder's predictions and all landmarks of the clip.

    The fit starts there (docs/person_estimate.md).
    """

    weight: Weight = 0.3
    expression_weight: Weight | None = 5e-4
    """Weight of the squared distance, on the face's landmarks in mm^2, of the expression to the most probable one
    given all landmarks of the clip; None leaves the term out."""


@dataclass(frozen=True, kw_only=True)
class ExpectedExpression(Term):
    """Squared distance of the expression to the most probable one given all landmarks, on landmarks, mm^2."""

    name: ClassVar[str] = "expected_expression"
    target_of_chunk: ClassVar[bool] = False

    def target(self, clip: ClipState) -> Target | None:
        """`expression_landmarks` of the most probable expressions, if they were estimated."""
        points = clip.priors.expression_points
        return None if points is None else Target(value=points, per="frame")

    def values(self, batch: Batch, target: Float[Tensor, "images points 3"]) -> Float[Tensor, " images"]:
        """Mean squared distance, image by image."""
        return losses.expected_expression(batch.expression_landmarks, target) / batch.images_in_clip


@dataclass(frozen=True, kw_only=True)
class ExpressionPrior(Term):
    """Squared expression code. Not in the paper."""

    name: ClassVar[str] = "expression_prior"
    weight: Weight = 1e-3

    def values(self, batch: Batch, target: None) -> Float[Tensor, " images"]:
        """Mean squared coefficient, image by image."""
        return losses.expression_prior(batch.prediction.params.expression) / batch.images_in_clip


@dataclass(frozen=True, kw_only=True)
class ExpressionSmoothness(Term):
    """L1 distance of expression codes to their smoothed trajectory. Not in the paper."""

    name: ClassVar[str] = "expression_smoothness"
    weight: Weight = 0.05

    def target(self, clip: ClipState) -> Target:
        """Smoothed expression codes."""
        return Target(value=clip.smoothed_values(clip.params.expression), per="image")

    def values(self, batch: Batch, target: Float[Tensor, "images expression"]) -> Float[Tensor, " images"]:
        """Mean distance of the coefficients, image by image."""
        return losses.code_smoothness(batch.prediction.params.expression, target) / batch.images_in_clip


@dataclass(frozen=True, kw_only=True)
class JawSmoothness(Term):
    """Distance of the jaw's rotation to its smoothed trajectory, quaternion units. Not in the paper."""

    name: ClassVar[str] = "jaw_smoothness"
    weight: Weight = 0.1

    def target(self, clip: ClipState) -> Target:
        """Smoothed orientation of the jaw, quaternions."""
        return Target(value=clip.smoothed_rotations(clip.params.jaw_rotvec), per="image")

    def values(self, batch: Batch, target: Float[Tensor, "images 4"]) -> Float[Tensor, " images"]:
        """The distance, image by image."""
        return losses.temporal_loss(batch.prediction.params.jaw_rotvec, target) / batch.images_in_clip


@dataclass(frozen=True, kw_only=True)
class CameraSmoothness(Term):
    """Distance of the head's position and size in the frame to their smoothed trajectories, crop half-widths.

    Not in the paper.
    """

    name: ClassVar[str] = "camera_smoothness"
    weight: Weight = 0.02

    def target(self, clip: ClipState) -> Target:
        """Smoothed cameras, in the units of each image's crop."""
        return Target(value=clip.smoothed_camera(), per="image")

    def values(self, batch: Batch, target: Camera) -> Float[Tensor, " images"]:
        """The distance, image by image."""
        camera = batch.prediction.camera
        distance = losses.camera_smoothness(
            camera.magnification, camera.position, target.magnification, target.position
        )
        return distance / batch.images_in_clip


@dataclass(frozen=True, kw_only=True)
class MultiviewTerm(Term):
    """Distance of every view's unposed mesh to the mesh merged from all views (Eq. 4), metres.

    A clip of one view does not have the term.
    """

    name: ClassVar[str] = "multiview"
    weight: Weight = 4.0
    visibility: Visibility = AngleOrDepth()
    """How well a view sees a vertex."""
    merge: Merge = WeightedMean()
    """How the views' meshes are merged."""
    frames_per_step: Count | None = None
    """How many frames of a step the term uses, sampled at random; None is all."""

    def target(self, clip: ClipState) -> Target | None:
        """The merged mesh of every frame."""
        views, time = clip.problem.valid.shape
        if views == 1:
            return None
        chunk = max(1, MESHES_PER_CHUNK // views)
        pieces = []
        for start in range(0, time, chunk):
            part, valid = clip.params[:, start : start + chunk], clip.problem.valid[:, start : start + chunk]
            posed = clip.prediction.camera[:, start : start + chunk].straightened(clip.head.vertices(part))
            seen = self.visibility.weights(posed, clip.head.faces)
            pieces.append(merge_views(clip.head.vertices(part.unposed()), seen, valid, self.merge))
        return Target(value=torch.cat(pieces), per="frame")

    def values(self, batch: Batch, target: Float[Tensor, "images vertices 3"]) -> Float[Tensor, " images"]:
        """Eq. 4, image by image."""
        meshes = batch.head.vertices(batch.prediction.params.unposed())
        return self._sampled(losses.multiview_loss(meshes, target) / batch.images_in_clip, batch)

    def _sampled(self, values: Float[Tensor, " images"], batch: Batch) -> Float[Tensor, " images"]:
        """The values of a few random frames of this step, scaled so that their expectation is unchanged."""
        if self.frames_per_step is None or batch.sampler is None:
            return values
        frames = batch.index % batch.problem.time
        present = frames.unique()
        count = min(self.frames_per_step, len(present))
        chosen = present[torch.randperm(len(present), generator=batch.sampler)[:count].to(present.device)]
        return values * torch.isin(frames, chosen) * (len(present) / count)


@dataclass(frozen=True, kw_only=True)
class CalibratedTerm(Term):
    """Distance of every view's head to the pose in the world that all views agree on, as its camera sees it.

    Half angles, crop half-widths and log sizes, added. A clip of one view, or of cameras that are not calibrated,
    does not have the term. Not in the paper.
    """

    name: ClassVar[str] = "calibrated"
    weight: Weight = 0.05

    def target(self, clip: ClipState) -> Target | None:
        """How every camera sees the head that the views agree on."""
        found = calibrated_target(clip.head, clip.prediction, clip.problem)
        return None if found is None else Target(value=found, per="image")

    def values(self, batch: Batch, target: CalibratedTarget) -> Float[Tensor, " images"]:
        """The distance, image by image."""
        middle = face_middle(batch.head, batch.prediction.params, batch.problem.scheme)
        seen = fitted_views(batch.prediction, middle)
        expected = target.view
        distance = losses.calibrated_views_loss(
            seen.rotation,
            seen.position,
            seen.magnification,
            expected.rotation,
            expected.position,
            expected.magnification,
        )
        return target.weight * distance / batch.images_in_clip


@dataclass(frozen=True, kw_only=True)
class PhotometricTerm(Term):
    """Colours of the picture against one texture per clip under estimated light, display RGB from 0 to 1."""

    name: ClassVar[str] = "photometric"
    target_of_chunk: ClassVar[bool] = False
    weight: Weight = 0.1
    visibility: Visibility = AngleOrDepth()
    """How well an image shows a vertex."""

    def target(self, clip: ClipState) -> Target | None:
        """The face's colours and the light of the clip; None without pictures."""
        pictures = clip.problem.pictures
        if pictures is None:
            return None
        estimated = estimate_appearance(
            clip.head, clip.prediction, pictures, clip.problem.valid, self.visibility
        )
        return Target(value=estimated, per="clip")

    def values(self, batch: Batch, target: EstimatedAppearance) -> Float[Tensor, " images"]:
        """Weighted mean distance of the colours, image by image."""
        pictures = batch.problem.pictures
        assert pictures is not None, "the target was estimated from pictures"
        colours = photometric_residuals(
            batch.head,
            batch.prediction,
            pictures.flatten(0, 1)[batch.index],
            target,
            batch.index,
            self.visibility,
        )
        return losses.photometric_loss(*colours) / batch.problem.valid.sum()


@dataclass(frozen=True, kw_only=True)
class PosePrior(Term):
    """Squared rotation of head, neck and jaw, radians^2: a regulariser of direct fitting (Eq. 5)."""

    name: ClassVar[str] = "pose_prior"
    weight: Weight = 1e-3

    def values(self, batch: Batch, target: None) -> Float[Tensor, " images"]:
        """Summed squared angles, image by image."""
        params = batch.prediction.params
        rotations = (params.root_rotvec, params.neck_rotvec, params.jaw_rotvec)
        return losses.pose_prior(*rotations) / batch.images_in_clip


@dataclass(frozen=True, kw_only=True)
class Objective(Setting):
    """The terms; None for one that does not exist."""

    landmark: LandmarkTerm | None = LandmarkTerm()
    temporal: TemporalTerm | None = TemporalTerm()
    multiview: MultiviewTerm | None = None
    calibrated: CalibratedTerm | None = CalibratedTerm()
    photometric: PhotometricTerm | None = None
    identity_prior: FromLandmarks | FromEncoder | FromPopulation | None = FromLandmarks()
    expression_prior: ExpressionPrior | None = ExpressionPrior()
    pose_prior: PosePrior | None = None
    expression_smoothness: ExpressionSmoothness | None = ExpressionSmoothness()
    jaw_smoothness: JawSmoothness | None = None
    camera_smoothness: CameraSmoothness | None = CameraSmoothness()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.terms():
            raise InputError("an objective needs a term: every field of Objective is None")

    def terms(self) -> tuple[Term, ...]:
        """The terms that exist, in the order in which they are added and reported."""
        prior = self.identity_prior
        weight = prior.expression_weight if isinstance(prior, FromLandmarks) else None
        ordered = (
            self.landmark,
            self.temporal,
            self.identity_prior,
            self.expression_prior,
            None if weight is None else ExpectedExpression(weight=weight),
            self.expression_smoothness,
            self.jaw_smoothness,
            self.camera_smoothness,
            self.multiview,
            self.calibrated,
            self.photometric,
            self.pose_prior,
        )
        return tuple(term for term in ordered if term is not None)

    def weights(self) -> dict[str, float]:
        """The weight of every term by its name."""
        return {term.name: term.weight for term in self.terms()}
