"""Where on the face the first gradient step acts, for free parameters and for the encoder's weights (paper, Fig. 3).

For some images of a clip, one at a time, the landmark term (Eq. 2) of that image alone is lowered by the same small
amount in two ways, each a step from the encoder's prediction:

    free    on scale, offset, orientation, identity, expression, ... (Eq. 6): the parameters that the encoder
            predicts, as `FreeParameters`
    neural  on the encoder's weights (Eq. 7)

A step of size a in the direction -d changes the loss by -a <g, d> to first order, where g is the loss's gradient. The
direction is g itself (`gradient`, as in the paper's equations) or that of Adam's first step (`adam`, as in a fit: all
parameters move equally far); a is chosen such that the loss falls by the share `loss_decrease` of the image's loss.
The maps show the displacement of the unposed mesh by the step, to the same order: -a J d with the Jacobian J of the
vertices. As the decrease determines the step's size, the maps do not depend on a learning rate. The map of free
parameters depends on their units (radians, standard deviations, crop half-widths), as descent on them does.

Two images also differ in their landmarks. To isolate the dependence of the step on the image, a step along one common
pull is computed for all images as well: the mean over the images of the loss's gradient with respect to the
prediction. It gives the same displacement of free parameters in every image (where the Jacobian of the head is the
same, as of an open head at rest), so that differences between images under the common pull come from the network.

The paper draws "the absolute magnitude of the back-propagated gradients" and does not state with respect to what.
Both candidates are computed: `vertex_gradient` and `pixel_gradient`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from neuface import losses
from neuface.cropping import crop_images
from neuface.errors import InputError
from neuface.fitting.descent import freeze_normalisation
from neuface.fitting.parameterisation import FineTunedEncoder, FreeParameters, Parameterisation
from neuface.frames import Clip
from neuface.geometry.sampling import evenly_spread_indices
from neuface.head.model import HeadModel
from neuface.model_inputs import model_inputs
from neuface.models import FaceModel
from neuface.structs import Prediction, Scheme, TensorStruct
from studies.gradient_maps.figure import gradient_figure

Objective = Callable[[Prediction], Tensor]
"""A number from the prediction for one image (one batch axis of one row)."""
MM_PER_M = 1000.0
# Lower bound of divisors, which may be zero.
TINY = 1e-30
# Term that torch's Adam adds to its divisor (its `eps`), in units of the gradient.
ADAM_EPSILON = 1e-8


@dataclass(frozen=True, kw_only=True)
class GradientMapConfig:
    """The number of images, and the direction and size of the step."""

    images: int = 4
    """Images with landmarks, spread evenly over all views and frames of the clip."""
    loss_decrease: float = 0.01
    """Share by which the step reduces an image's landmark loss, to first order. The maps are proportional to it."""
    direction: Literal["gradient", "adam"] = "gradient"
    """Plain gradient descent, or Adam's first step."""

    def __post_init__(self) -> None:
        if self.images < 1:
            raise InputError(f"GradientMapConfig.images must be at least 1, got {self.images}")
        if self.direction not in ("gradient", "adam"):
            raise InputError(
                f"GradientMapConfig.direction must be 'gradient' or 'adam', got {self.direction!r}"
            )
        if not 0 < self.loss_decrease <= 1:
            raise InputError(f"GradientMapConfig.loss_decrease must be in (0, 1], got {self.loss_decrease}")


@dataclass(frozen=True, kw_only=True)
class StepMaps(TensorStruct):
    """The effect of the steps of one parameterisation on the meshes."""

    displacement_mm: Float[Tensor, "images vertices 3"]
    """Displacement of the unposed mesh by the step that lowers the image's own landmark loss."""
    shape_share: Float[Tensor, " images"]
    """Share of that decrease that comes from identity, expression and joints; the rest is root rotation and
    camera.
    """
    common_pull: Float[Tensor, "images vertices 3"]
    """Displacement of the unposed mesh by the common pull, mm for a step of size 1. Only its direction is
    evaluated.
    """


@dataclass(frozen=True, kw_only=True)
class GradientMaps(TensorStruct):
    """The maps of some images of a clip; all tensors have the leading axis `images`."""

    view_time: Int[Tensor, "images 2"]
    """View and frame of each image."""
    crops: UInt8[Tensor, "images size size 3"]
    """The encoder's crops, RGB."""
    prediction: Prediction
    """The encoder's predictions, from which every step starts."""
    landmark_loss: Float[Tensor, " images"]
    """Eq. 2 before the step, crop half-widths."""
    vertex_gradient: Float[Tensor, "images vertices"]
    """Length of the landmark loss's gradient with respect to each vertex of the rest mesh, crop half-widths per
    metre. It does not depend on the parameterisation and is zero except at the landmarks' triangles."""
    pixel_gradient: Float[Tensor, "images h w"]
    """Length over the channels of the landmark loss's gradient with respect to the picture as the network sees it
    (the crop as prepared), crop half-widths per unit of intensity."""
    free: StepMaps
    neural: StepMaps


@dataclass(frozen=True, kw_only=True)
class MapFigures:
    """The maps of one parameterisation in numbers; plain values, as they are written as a JSON object."""

    mean_mm: float
    """Mean displacement of the counted vertices."""
    shape_share: float
    """Mean of `StepMaps.shape_share`."""
    moved_share: float
    """Effective share of the counted vertices that move: (sum d)^2 / (n sum d^2) of their displacements d, mean over
    images. 1 where all move equally far, 1/n where a single one moves."""
    similarity: float | None
    """Mean cosine between the displacement fields of two images; None for a single image."""
    pattern_similarity: float | None
    """The same for the lengths of the displacements, which the drawn maps show."""
    common_pull_similarity: float | None
    """The same for the common pull: 1 means that the step does not depend on the picture."""


def gradient_maps(model: FaceModel, clip: Clip, config: GradientMapConfig | None = None) -> GradientMaps:
    """The maps for some images of a clip, on the device of the model.

    Raises:
        InputError: no image of the clip has landmarks, or the encoder has no weights to optimise.
    """
    settings = GradientMapConfig() if config is None else config
    head, encoder = model.head, copy.deepcopy(model.encoder)
    if not freeze_normalisation(encoder):
        raise InputError("the encoder has no weights to optimise: there is no neural step to show")
    images = _chosen_images(model, clip, settings.images)
    objectives = images.objectives(head)
    inputs = encoder.prepare(images.crops).detach().requires_grad_()
    prediction = encoder(inputs)
    loss = torch.stack([objective(prediction[row : row + 1]) for row, objective in enumerate(objectives)])
    (slopes,) = torch.autograd.grad(loss.sum(), inputs)
    parameters = FreeParameters(prediction, predicted_fields(prediction))
    pull = _common_pull(parameters, objectives)
    free, neural = (
        step_maps(parameterisation, head, objectives, pull, settings)
        for parameterisation in (parameters, FineTunedEncoder(encoder, inputs.detach()))
    )
    return GradientMaps(
        view_time=images.view_time,
        crops=(images.crops * 255).round().clamp(0, 255).to(torch.uint8).movedim(1, -1).contiguous(),
        prediction=prediction.detach(),
        landmark_loss=loss.detach(),
        vertex_gradient=_vertex_gradients(head, prediction.detach(), images),
        pixel_gradient=torch.linalg.vector_norm(slopes, dim=1),
        free=free,
        neural=neural,
    )


def step_maps(
    parameterisation: Parameterisation,
    head: HeadModel,
    objectives: list[Objective],
    pull: Objective,
    config: GradientMapConfig,
) -> StepMaps:
    """The displacement of each image's unposed mesh by one step on the trainable parameters.

    Args:
        objectives: the loss of each image, from its prediction alone.
        pull: the objective of the common pull, the same for every image.
        config: direction and size of the step; its number of images is ignored.
    """
    moves, shares, pulled = [], [], []
    for row, objective in enumerate(objectives):
        step = _Step(parameterisation, head, torch.tensor([row], device=head.template.device))
        loss, slope = step.slope(objective)
        direction = _direction(slope, config)
        decrease = _dot(slope, direction)
        size = torch.where(decrease > 0, config.loss_decrease * loss / decrease.clamp(min=TINY), 0.0)
        moves.append(MM_PER_M * step.displacement(direction, size))
        _, of_shape = step.slope(lambda prediction, of=objective: of(_pose_detached(prediction)))
        shares.append(_dot(of_shape, direction) / decrease.clamp(min=TINY))
        along = _direction(step.slope(pull)[1], config)
        pulled.append(MM_PER_M * step.displacement(along, torch.ones_like(size)))
    return StepMaps(
        displacement_mm=torch.stack(moves),
        shape_share=torch.stack(shares),
        common_pull=torch.stack(pulled),
    )


def map_figures(maps: StepMaps, counted: Bool[Tensor, " vertices"]) -> MapFigures:
    """The maps in numbers, over the counted vertices (such as the head's region "face")."""
    displacement = maps.displacement_mm[:, counted]
    lengths = torch.linalg.vector_norm(displacement, dim=-1)
    return MapFigures(
        mean_mm=float(lengths.mean()),
        shape_share=float(maps.shape_share.mean()),
        moved_share=moved_share(lengths),
        similarity=mean_cosine(displacement),
        pattern_similarity=mean_cosine(lengths),
        common_pull_similarity=mean_cosine(maps.common_pull[:, counted]),
    )


def moved_share(values: Float[Tensor, "images vertices"]) -> float:
    """Effective share of vertices with a value: (sum v)^2 / (n sum v^2), mean over images; 0 for a map of zeros."""
    total, squares = values.sum(-1).square(), values.square().sum(-1)
    return float((total / (values.shape[-1] * squares).clamp(min=TINY)).mean())


def mean_cosine(fields_by_image: Float[Tensor, " images *shape"]) -> float | None:
    """Mean cosine over all pairs of images; None for a single image. A field of zeros has cosine 0 with any other."""
    count = len(fields_by_image)
    if count < 2:
        return None
    unit = nn.functional.normalize(fields_by_image.flatten(1), dim=-1)
    return float(((unit @ unit.mT).sum() - unit.square().sum()) / (count * (count - 1)))


def predicted_fields(prediction: Prediction) -> tuple[str, ...]:
    """Names of the parameters that a network predicts: those that carry a gradient."""
    return tuple(name for name, tensor in _named(prediction).items() if tensor.requires_grad)


def gradient_picture(maps: GradientMaps, head: HeadModel) -> UInt8[Tensor, "h w 3"]:
    """Rows are images; columns the crop, the two gradients, and the steps of both parameterisations on the mesh.

    Every map has a scale of its own, written into it; see `studies.gradient_maps.figure`.
    """
    side = maps.crops.shape[1]
    ndc = maps.prediction.camera.to_image(head.vertices(maps.prediction.params))
    centred = (ndc + ndc.new_tensor((1.0, 1.0, 0.0))) * (side / 2) - ndc.new_tensor((0.5, 0.5, 0.0))
    steps = {"step of free parameters": maps.free, "step of the network": maps.neural}
    return gradient_figure(
        maps.crops,
        centred,
        head.faces,
        pixel_maps={"loss by pixel": ("/intensity", maps.pixel_gradient)},
        vertex_maps={
            "loss by vertex": ("/m", maps.vertex_gradient),
            **{
                title: ("mm", torch.linalg.vector_norm(step.displacement_mm, dim=-1))
                for title, step in steps.items()
            },
        },
    )


class _Step:
    """A step on trainable parameters, for one image."""

    def __init__(
        self,
        parameterisation: Parameterisation,
        head: HeadModel,
        index: Int[Tensor, 1],
    ) -> None:
        self.parameterisation, self.head, self.index = parameterisation, head, index
        self.weights = {
            name: tensor.detach()
            for name, tensor in parameterisation.named_parameters()
            if tensor.requires_grad
        }

    def slope(self, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective, and its gradient with respect to the parameters."""
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in self.weights.items()}
        value = objective(self._predict(leaves))
        slopes = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
        return value.detach(), dict(zip(leaves, slopes, strict=True))

    def displacement(self, direction: dict[str, Tensor], size: Tensor) -> Float[Tensor, "vertices 3"]:
        """Displacement of the unposed mesh by the step `-size * direction`, to first order, metres."""

        def unposed(weights: dict[str, Tensor]) -> Tensor:
            return self.head.vertices(self._predict(weights).params.unposed())[0]

        change = {name: -size * tensor for name, tensor in direction.items()}
        return torch.func.jvp(unposed, (self.weights,), (change,))[1]

    def _predict(self, weights: dict[str, Tensor]) -> Prediction:
        return torch.func.functional_call(self.parameterisation, weights, (self.index,))


def _direction(slope: dict[str, Tensor], config: GradientMapConfig) -> dict[str, Tensor]:
    if config.direction == "gradient":
        return slope
    return {name: tensor / (tensor.abs() + ADAM_EPSILON) for name, tensor in slope.items()}


def _dot(a: dict[str, Tensor], b: dict[str, Tensor]) -> Float[Tensor, ""]:
    return torch.stack([(a[name] * b[name]).sum() for name in a]).sum()


def _pose_detached(prediction: Prediction) -> Prediction:
    """The prediction with root rotation and camera as constants."""
    still = replace(prediction.params, root_rotvec=prediction.params.root_rotvec.detach())
    return Prediction(params=still, camera=prediction.camera.detach())


def _named(prediction: Prediction) -> dict[str, Tensor]:
    return prediction.params.named_tensors() | prediction.camera.named_tensors()


def _common_pull(parameters: FreeParameters, objectives: list[Objective]) -> Objective:
    """A linear objective whose slope is the mean of the images' gradients with respect to their predictions."""
    rows = len(objectives)
    prediction = parameters.predict(torch.arange(rows, device=next(parameters.parameters()).device))
    total = torch.stack([of(prediction[row : row + 1]) for row, of in enumerate(objectives)]).sum()
    slopes = torch.autograd.grad(total, list(parameters.tensors.values()))
    mean = {name: slope.mean(0) for name, slope in zip(parameters.tensors, slopes, strict=True)}

    def pull(prediction: Prediction) -> Tensor:
        values = _named(prediction)
        return torch.stack([(values[name] * slope).sum() for name, slope in mean.items()]).sum()

    return pull


@dataclass(frozen=True, kw_only=True)
class _Images(TensorStruct):
    """The chosen images with their landmarks."""

    view_time: Int[Tensor, "images 2"]
    crops: Float[Tensor, "images 3 s s"]
    observed_ndc: Float[Tensor, "images points 2"]
    confidence: Float[Tensor, "images points"]
    scheme: Scheme

    def objectives(self, head: HeadModel) -> list[Objective]:
        """The landmark loss of each image."""
        return [self._objective(head, row) for row in range(len(self.crops))]

    def _objective(self, head: HeadModel, row: int) -> Objective:
        def loss(prediction: Prediction) -> Tensor:
            points = prediction.camera.project(head.landmarks(prediction.params, self.scheme.name))
            return losses.landmark_loss(points, self.observed_ndc[row][None], self.confidence[row][None])[0]

        return loss


def _chosen_images(model: FaceModel, clip: Clip, count: int) -> _Images:
    """Images with landmarks, spread evenly, as crops for the model's encoder, on the device of its head."""
    usable = clip.track.usable.nonzero()
    if not len(usable):
        raise InputError("no frame of the clip has landmarks: there is no landmark loss to lower")
    chosen = usable[evenly_spread_indices(len(usable), count)]
    seen = model_inputs(clip, model)
    marks = seen.track
    view, time = chosen.unbind(1)
    crops = [
        crop_images(
            seen.recording.frames.read(int(v), int(t), int(t) + 1),
            seen.crops.T_crop_frame[v, t][None],
            seen.crops.size_px,
            antialias=seen.rule.antialias,
        )
        for v, t in chosen
    ]
    return _Images(
        view_time=chosen,
        crops=torch.cat(crops),
        observed_ndc=seen.crops[view, time].frame_to_ndc(marks.points_px[view, time]),
        confidence=marks.confidence[view, time],
        scheme=marks.scheme,
    ).to(model.head.template.device)


def _vertex_gradients(
    head: HeadModel, prediction: Prediction, images: _Images
) -> Float[Tensor, "images vertices"]:
    """Length of the gradient of each image's loss with respect to the vertices at rest, which the template
    represents.
    """
    lengths = []
    for row in range(len(images.crops)):
        template = head.template.clone().requires_grad_()
        objective = images.objectives(replace(head, template=template))[row]
        (slope,) = torch.autograd.grad(objective(prediction[row : row + 1]), template)
        lengths.append(torch.linalg.vector_norm(slope, dim=-1))
    return torch.stack(lengths)
