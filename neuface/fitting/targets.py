"""The E-step: smooth trajectories, and one merged mesh per frame from all views (paper, Sec. 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from neuface.fitting.appearance import EstimatedAppearance, estimate_appearance
from neuface.fitting.config import FitConfig, Merge
from neuface.fitting.problem import Problem
from neuface.geometry.interpolation import interpolate_missing
from neuface.geometry.merging import robust_mean, softmax_weights, weighted_mean, weighted_median
from neuface.geometry.meshes import vertex_normals
from neuface.geometry.rotations import continuous_signs, rotvec_to_quaternion
from neuface.geometry.smoothing import released_window_mean, smooth, smooth_quaternions
from neuface.head.model import MESHES_PER_CHUNK, HeadModel
from neuface.losses import log_scale
from neuface.render.visibility import vertex_visible
from neuface.structs import HEAD_TO_IMAGE_SIGNS, Camera, HeadParams, Prediction, TensorStruct

# Temperature of the softmax over views, as in the released code.
SOFTMAX_TEMPERATURE = 0.1


@dataclass(frozen=True, kw_only=True)
class Targets(TensorStruct):
    """The targets of the M-step; None for those that no term of the objective uses."""

    quaternion: Float[Tensor, "views time 4"]
    """Smoothed head orientation of every view."""
    vertices: Float[Tensor, "time vertices 3"] | None = None
    """The merged unposed mesh; None for a single view."""
    identity: Float[Tensor, " identity"]
    """The mean of the identity prior."""
    expected_expression: Float[Tensor, "time points 3"] | None = None
    """`expression_landmarks` of the most probable expressions."""
    expression: Float[Tensor, "views time expression"] | None = None
    """Smoothed expression codes."""
    jaw_quaternion: Float[Tensor, "views time 4"] | None = None
    """Smoothed orientation of the jaw."""
    camera: Camera | None = None
    """Smoothed position and size in the frame, in the units of each image's crop."""
    appearance: EstimatedAppearance | None = None
    """The face's colours and the light of the clip."""

    def of_images(self, index: Int[Tensor, " images"]) -> ImageTargets:
        """The targets of some images of the flattened (views, time) clip."""
        time = self.quaternion.shape[1]

        def rows(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.flatten(0, 1)[index]

        return ImageTargets(
            quaternion=self.quaternion.flatten(0, 1)[index],
            vertices=None if self.vertices is None else self.vertices[index % time],
            identity=self.identity,
            expected_expression=None
            if self.expected_expression is None
            else self.expected_expression[index % time],
            expression=rows(self.expression),
            jaw_quaternion=rows(self.jaw_quaternion),
            camera=None if self.camera is None else self.camera.flatten_batch(2)[index],
            appearance=self.appearance,
        )


@dataclass(frozen=True, kw_only=True)
class ImageTargets(TensorStruct):
    """`Targets` of a batch of images."""

    quaternion: Float[Tensor, "images 4"]
    vertices: Float[Tensor, "images vertices 3"] | None
    identity: Float[Tensor, " identity"]
    expected_expression: Float[Tensor, "images points 3"] | None
    expression: Float[Tensor, "images expression"] | None
    jaw_quaternion: Float[Tensor, "images 4"] | None
    camera: Camera | None
    appearance: EstimatedAppearance | None
    """Of the whole clip."""


def estimate_targets(
    head: HeadModel,
    prediction: Prediction,
    problem: Problem,
    config: FitConfig,
    expected_identity: Float[Tensor, " identity"] | None = None,
    expected_expression: Float[Tensor, "time points 3"] | None = None,
) -> Targets:
    """One E-step over the whole clip, or over each of its chunks.

    The targets carry a gradient where `prediction` does.

    Args:
        prediction: for the clip of `problem`, batch axes `views time`.
        expected_identity: the mean of the identity prior; None is the population's mean.
        expected_expression: `expression_landmarks` of the most probable expressions, where they are known.
    """
    params = prediction.params
    known = problem.valid if config.bridge_gaps else torch.ones_like(problem.valid)
    starts = smoothing_starts(problem.starts, problem.time, config.chunk_frames)

    def smoothed(rotvec: Tensor) -> Tensor:
        return _smooth_rotations(rotvec, known, config, starts)

    expected = torch.zeros_like(params.identity[0, 0]) if expected_identity is None else expected_identity
    smooth_expression = config.expression_smoothness_weight > 0
    return Targets(
        quaternion=smoothed(params.root_rotvec),
        vertices=_merged_meshes(head, params, problem.valid, config),
        identity=expected,
        expected_expression=expected_expression,
        expression=_smooth_values(params.expression, known, config, starts) if smooth_expression else None,
        jaw_quaternion=smoothed(params.jaw_rotvec) if config.jaw_smoothness_weight > 0 else None,
        camera=_smooth_camera(prediction.camera, problem, known, config, starts)
        if config.camera_smoothness_weight > 0
        else None,
        appearance=None
        if problem.pictures is None
        else estimate_appearance(
            head, prediction, problem.pictures, problem.valid, ConfiguredVisibility(config=config)
        ),
    )


def expression_landmarks(
    head: HeadModel, params: HeadParams, scheme: str
) -> Float[Tensor, "*batch points 3"]:
    """Landmarks of the unposed mean face with this expression and jaw, metres."""
    zero = torch.zeros_like(params.root_rotvec)
    neutral_pose = replace(
        params, identity=torch.zeros_like(params.identity), root_rotvec=zero, neck_rotvec=zero
    )
    return head.landmarks(neutral_pose, scheme)


@dataclass(frozen=True, kw_only=True)
class ConfiguredVisibility:
    """The `VertexVisibility` that a configuration names."""

    config: FitConfig

    def weights(
        self, posed: Float[Tensor, "*batch vertices 3"], faces: Int[Tensor, "faces 3"]
    ) -> Float[Tensor, "*batch vertices"]:
        """`vertex_confidence` of posed meshes."""
        return vertex_confidence(posed, faces, self.config)


def smoothing_starts(starts: Sequence[int], time: int, chunk_frames: int) -> tuple[int, ...]:
    """First frames of the pieces that are smoothed alone: the clips that were joined, or chunks of them."""
    if chunk_frames == 0:
        return tuple(starts)
    ends = (*starts[1:], time)
    return tuple(
        first for start, end in zip(starts, ends, strict=True) for first in range(start, end, chunk_frames)
    )


def _smooth_rotations(
    rotvec: Float[Tensor, "views time 3"],
    known: Bool[Tensor, "views time"],
    config: FitConfig,
    starts: tuple[int, ...],
) -> Float[Tensor, "views time 4"]:
    quaternion = rotvec_to_quaternion(rotvec)
    if not bool(known.all()):
        quaternion = normalize(interpolate_missing(continuous_signs(quaternion), known, starts), dim=-1)
    if config.smoother == "released":
        return released_window_mean(quaternion, starts)
    return smooth_quaternions(quaternion, config.temporal_window, config.smoother, starts)


def _smooth_values(
    values: Float[Tensor, "views time c"],
    known: Bool[Tensor, "views time"],
    config: FitConfig,
    starts: tuple[int, ...],
) -> Float[Tensor, "views time c"]:
    # The released code smooths rotations alone; its window of four frames would shift a trajectory by half a frame.
    kind = "mean" if config.smoother == "released" else config.smoother
    return smooth(interpolate_missing(values, known, starts), config.temporal_window, kind, starts)


def _smooth_camera(
    camera: Camera,
    problem: Problem,
    known: Bool[Tensor, "views time"],
    config: FitConfig,
    starts: tuple[int, ...],
) -> Camera:
    """The camera smoothed in frame pixels, because crops move and change their size, then in each crop's units."""
    per_px, centre = problem.ndc_per_frame_px, problem.centre_px
    if per_px is None or centre is None:
        per_px, centre = torch.ones_like(camera.magnification), torch.zeros_like(camera.position)
    log_size = log_scale(camera.magnification) - per_px.log()
    position_px = centre + camera.position / per_px[..., None]
    size = _smooth_values(log_size[..., None], known, config, starts)[..., 0].exp()
    position = _smooth_values(position_px, known, config, starts)
    return camera.placed((position - centre) * per_px[..., None], size * per_px)


def _merged_meshes(
    head: HeadModel, params: HeadParams, valid: Bool[Tensor, "views time"], config: FitConfig
) -> Float[Tensor, "time vertices 3"] | None:
    views, time = valid.shape
    if views == 1 or config.multiview_weight == 0:
        return None
    chunk = max(1, MESHES_PER_CHUNK // views)
    pieces = []
    for start in range(0, time, chunk):
        part, seen = params[:, start : start + chunk], valid[:, start : start + chunk]
        confidence = vertex_confidence(head.vertices(part), head.faces, config)
        pieces.append(merge_views(head.vertices(part.unposed()), confidence, seen, config.merge))
    return torch.cat(pieces)


def vertex_confidence(
    posed: Float[Tensor, "*batch vertices 3"], faces: Int[Tensor, "faces 3"], config: FitConfig
) -> Float[Tensor, "*batch vertices"]:
    """How well a camera sees each vertex: the cosine between its normal and the ray to the camera, or 0.

    `config.visibility` names what hides a vertex. Depth is measured along the camera's axis from the mean of the
    mesh's vertices: the paper's -0.08 m refers to FLAME's origin, for which that mean stands in, because head models
    differ in their origin.
    """
    cosine = vertex_normals(posed, faces)[..., 2]
    limit = torch.cos(torch.deg2rad(cosine.new_tensor(config.visible_angle_deg)))
    turned_away = cosine < limit
    deep = posed[..., 2] - posed[..., 2].mean(-1, keepdim=True) < config.visible_depth_m
    if config.visibility == "angle_or_depth":
        hidden = turned_away | deep
    elif config.visibility == "angle_and_depth":
        hidden = turned_away & deep
    else:
        image = posed.detach() * posed.new_tensor(HEAD_TO_IMAGE_SIGNS)
        hidden = ~vertex_visible(image, faces)
        if config.visibility == "all":
            hidden = hidden | turned_away | deep
    # Under `angle_and_depth` a back-facing vertex may pass; its weight is clamped to 0.
    return torch.where(hidden, torch.zeros_like(cosine), cosine.clamp(min=0))


def merge_views(
    vertices: Float[Tensor, "views time vertices 3"],
    confidence: Float[Tensor, "views time vertices"],
    valid: Bool[Tensor, "views time"],
    merge: Merge = "mean",
) -> Float[Tensor, "time vertices 3"]:
    """The views' unposed meshes as one, weighted by confidence; `merge` as in `FitConfig.merge`.

    A vertex that no valid view sees gets the plain mean of the valid views; at a time without a valid view, every
    vertex gets the plain mean of all.
    """
    fallback = torch.where(valid.any(0), valid, True).to(confidence.dtype)[..., None]
    seen = confidence * valid[..., None]
    weights = torch.where(seen.sum(0) > 0, seen, fallback)
    if merge == "softmax":
        # The softmax gives hidden vertices a weight close to 0; views without a face get exactly 0.
        soft = softmax_weights(seen, SOFTMAX_TEMPERATURE) * fallback
        return weighted_mean(vertices, soft)
    if merge == "median":
        return weighted_median(vertices, weights)
    if merge == "robust":
        return robust_mean(vertices, weights)
    return weighted_mean(vertices, weights)
