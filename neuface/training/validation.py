"""Accuracy of an encoder without any fit: on rendered people with exact truth, and on real clips with landmarks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.encoders.predictor import Predictor
from neuface.geometry.alignment import align_points
from neuface.geometry.rotations import rotation_angle_rad
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import IBUG68
from neuface.metrics import mpve_mm, nme_percent
from neuface.structs import HeadParams, Prediction
from neuface.synthetic.training_pictures import TrainingPictures
from neuface.training.recordings import RecordedFrames

# Upper bound of the images that are encoded at once.
IMAGES_PER_BATCH = 100

BatchT = TypeVar("BatchT", TrainingPictures, RecordedFrames)


@dataclass(frozen=True, kw_only=True)
class SyntheticFigures:
    """Figures of an encoder on rendered people that it was not trained on."""

    nme68_percent: float
    """Mean over pictures, in percent of the outer-eye distance without foreshortening."""
    rotation_median_deg: float
    mpve_face_mm: float
    """Face vertices of the unposed heads with expression, after rigid alignment."""
    mean_face_mpve_mm: float
    """The same for the mean face at rest, the best prediction without an image."""
    identity_variance_share: float
    """Variance over people of the predicted face shape over that of the true one; see `shape_variance_mm2`."""
    identity_error_share: float
    """Mean squared error of the face shape over its true variance: 0 is perfect, 1 is the mean face."""


@dataclass(frozen=True, kw_only=True)
class ClipFigures:
    """Figures of an encoder on one real clip."""

    name: str
    nme68_percent: float
    mean_face_nme68_percent: float
    """The error with the same pose and camera and the mean face at rest."""


@torch.inference_mode()
def measure_synthetic(head: HeadModel, encoder: Predictor, held_out: TrainingPictures) -> SyntheticFigures:
    """Figures on rendered pictures, one per person."""
    angle, mpve, mean_face, shapes, true_shapes = [], [], [], [], []
    for batch in _batches(held_out):
        truth, prediction = batch.truth(head), encoder(batch.pictures.to(head.template) / 255)
        angle.append(rotation_angle_rad(prediction.params.root_rotvec, truth.params.root_rotvec).rad2deg())
        true_vertices = head.vertices(truth.params.unposed())
        vertices = head.vertices(prediction.params.unposed())
        mpve.append(mpve_mm(vertices, true_vertices, where=head.regions["face"]))
        neutral = head.template.expand_as(true_vertices)
        mean_face.append(mpve_mm(neutral, true_vertices, where=head.regions["face"]))
        shapes.append(face_shapes_mm(head, prediction.params))
        true_shapes.append(face_shapes_mm(head, truth.params))
    shape, true_shape = torch.cat(shapes), torch.cat(true_shapes)
    true_variance = shape_variance_mm2(true_shape)
    error = (shape - true_shape).square().sum(-1).mean()
    return SyntheticFigures(
        nme68_percent=float(rendered_nme_percent(head, encoder, held_out).mean()),
        rotation_median_deg=float(torch.cat(angle).median()),
        mpve_face_mm=float(torch.stack(mpve).mean()),
        mean_face_mpve_mm=float(torch.stack(mean_face).mean()),
        identity_variance_share=float(shape_variance_mm2(shape) / true_variance),
        identity_error_share=float(error / true_variance),
    )


@torch.inference_mode()
def rendered_nme_percent(
    head: HeadModel, encoder: Predictor, pictures: TrainingPictures
) -> Float[Tensor, " n"]:
    """Error of the 68 landmarks of every picture, in percent of the outer-eye distance without foreshortening."""
    errors = []
    for batch in _batches(pictures):
        truth, prediction = batch.truth(head), encoder(batch.pictures.to(head.template) / 255)
        points = head.landmarks(truth.params, IBUG68.name)
        projected = prediction.camera.project(head.landmarks(prediction.params, IBUG68.name))
        right, left = IBUG68.outer_eyes
        eyes = (
            torch.linalg.vector_norm(points[:, right] - points[:, left], dim=-1) * truth.camera.magnification
        )
        confidence = torch.ones_like(projected[..., 0])
        errors.append(nme_percent(projected, truth.camera.project(points), confidence, eyes))
    return torch.cat(errors)


def face_shapes_mm(head: HeadModel, params: HeadParams) -> Float[Tensor, "n vertices 3"]:
    """Face vertices of the identities at rest, aligned to the mean face by a similarity, millimetres.

    The alignment includes scale, because a weak-perspective image does not determine a head's size.
    """
    at_rest = replace(head.neutral(len(params.identity)), identity=params.identity)
    face = head.vertices(at_rest)[:, head.regions["face"]]
    mean = head.template[head.regions["face"]].expand_as(face)
    return 1000 * align_points(face, mean, with_scale=True)


def shape_variance_mm2(shapes_mm: Float[Tensor, "n vertices 3"]) -> Float[Tensor, ""]:
    """Variance over people, summed over the axes and averaged over vertices, mm^2."""
    return shapes_mm.var(0).sum(-1).mean()


@torch.inference_mode()
def measure_footage(
    head: HeadModel, encoder: Predictor, footage: Sequence[RecordedFrames]
) -> list[ClipFigures]:
    """Landmark errors of real clips, and those of the mean face with the same pose and camera."""
    figures = []
    for item in footage:
        for number, name in enumerate(item.clip_names):
            clip = item[item.clip == number]
            errors, mean_face_errors = [], []
            for batch in _batches(clip):
                prediction = encoder(batch.pictures.to(head.template) / 255)
                errors.append(footage_nme_percent(head, prediction, batch))
                mean_face_errors.append(footage_nme_percent(head, with_mean_face(head, prediction), batch))
            figures.append(
                ClipFigures(
                    name=name,
                    nme68_percent=float(torch.cat(errors).nanmean()),
                    mean_face_nme68_percent=float(torch.cat(mean_face_errors).nanmean()),
                )
            )
    return figures


def with_mean_face(head: HeadModel, prediction: Prediction) -> Prediction:
    """The same poses and cameras with the mean identity at rest."""
    neutral = head.neutral(len(prediction.params.identity))
    return replace(prediction, params=replace(neutral, root_rotvec=prediction.params.root_rotvec))


def footage_nme_percent(
    head: HeadModel, prediction: Prediction, frames: RecordedFrames
) -> Float[Tensor, " n"]:
    """Error of the 68 landmarks (or their counterparts), in percent of the observed outer-eye distance."""
    chosen = list(frames.scheme.to_ibug68)
    seen = prediction.camera.project(head.landmarks(prediction.params, frames.scheme.name))[:, chosen]
    observed, confidence = frames.points_ndc[:, chosen], frames.confidence[:, chosen]
    right, left = IBUG68.outer_eyes
    eyes = torch.linalg.vector_norm(observed[:, right] - observed[:, left], dim=-1)
    both = (confidence[:, right] > 0) & (confidence[:, left] > 0)
    return nme_percent(seen, observed, confidence, eyes * both)


def _batches(items: BatchT) -> Iterator[BatchT]:
    for start in range(0, len(items.pictures), IMAGES_PER_BATCH):
        yield items[start : start + IMAGES_PER_BATCH]


def figures(
    head: HeadModel, encoder: Predictor, held_out: TrainingPictures, measured_on: Sequence[RecordedFrames]
) -> dict[str, float]:
    """All figures of an encoder by name, rounded to three decimals."""
    found = asdict(measure_synthetic(head, encoder, held_out))
    for clip in measure_footage(head, encoder, measured_on):
        found[f"{clip.name} nme68_percent"] = clip.nme68_percent
        found[f"{clip.name} mean_face_nme68_percent"] = clip.mean_face_nme68_percent
    return {name: round(value, 3) for name, value in found.items()}
