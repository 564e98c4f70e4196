"""Eq. 1 for images of a clip: the named terms, and their sum over the whole clip."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from neuface import losses
from neuface.fitting.appearance import photometric_residuals
from neuface.fitting.config import FitConfig
from neuface.fitting.problem import Problem
from neuface.fitting.targets import ConfiguredVisibility, ImageTargets, Targets, expression_landmarks
from neuface.head.model import HeadModel
from neuface.structs import Prediction


def loss_parts(
    head: HeadModel,
    prediction: Prediction,
    problem: Problem,
    targets: ImageTargets,
    index: Tensor,
    config: FitConfig,
) -> dict[str, Float[Tensor, " images"]]:
    """The named terms of Eq. 1 for some images, each unweighted and scaled so that its sum over the clip is its mean.

    Args:
        prediction: one batch axis, the images `index` of the flattened (views, time) clip.
        targets: of the same images.
    """
    params, camera = prediction.params, prediction.camera
    everything = problem.views * problem.time
    points = camera.project(head.landmarks(params, problem.scheme.name))
    observed = problem.observed_ndc.flatten(0, 1)[index]
    confidence = problem.confidence.flatten(0, 1)[index]
    saturating = config.landmark_penalty == "saturating"
    squared = config.temporal_penalty == "squared"
    # Every view constrains a code that all views share, so the prior's weight is divided by their number.
    sharing_views = problem.views if config.identity_per == "clip" else 1
    temporal = losses.temporal_loss(params.root_rotvec, targets.quaternion, squared=squared)
    parts = {
        "landmark": losses.landmark_loss(points, observed, confidence, saturating=saturating)
        / problem.valid.sum(),
        # The released code sums over views what Eq. 3 averages.
        "temporal": temporal * (problem.views if squared else 1) / everything,
        "identity_prior": losses.identity_prior(params.identity, targets.identity)
        / (everything * sharing_views),
        "expression_prior": losses.expression_prior(params.expression) / everything,
    }
    if targets.expected_expression is not None:
        shown = expression_landmarks(head, params, problem.scheme.name)
        parts["expected_expression"] = (
            losses.expected_expression(shown, targets.expected_expression) / everything
        )
    if targets.expression is not None:
        smoothness = losses.code_smoothness(params.expression, targets.expression)
        parts["expression_smoothness"] = smoothness / everything
    if targets.jaw_quaternion is not None:
        parts["jaw_smoothness"] = losses.temporal_loss(params.jaw_rotvec, targets.jaw_quaternion) / everything
    if targets.camera is not None:
        smoothness = losses.camera_smoothness(
            camera.magnification, camera.position, targets.camera.magnification, targets.camera.position
        )
        parts["camera_smoothness"] = smoothness / everything
    if targets.vertices is not None:
        parts["multiview"] = (
            losses.multiview_loss(head.vertices(params.unposed()), targets.vertices) / everything
        )
    if targets.appearance is not None and problem.pictures is not None:
        colours = photometric_residuals(
            head,
            prediction,
            problem.pictures.flatten(0, 1)[index],
            targets.appearance,
            index,
            ConfiguredVisibility(config=config),
        )
        parts["photometric"] = losses.photometric_loss(*colours) / problem.valid.sum()
    if config.pose_prior_weight > 0:
        rotations = (params.root_rotvec, params.neck_rotvec, params.jaw_rotvec)
        parts["pose_prior"] = losses.pose_prior(*rotations) / everything
    return parts


@torch.no_grad()
def clip_parts(
    head: HeadModel, prediction: Prediction, problem: Problem, targets: Targets, config: FitConfig
) -> dict[str, float]:
    """The loss of the whole clip, `total`, and its unweighted parts; batch axes of `prediction`: `views time`."""
    flat = prediction.flatten_batch(2)
    images = torch.arange(problem.views * problem.time, device=problem.inputs.device)
    sums: dict[str, float] = {}
    for index in images.split(config.batch_size):
        rows = targets.of_images(index)
        for name, values in loss_parts(head, flat[index], problem, rows, index, config).items():
            sums[name] = sums.get(name, 0.0) + float(values.sum())
    weights = config.term_weights()
    return {"total": sum(weights[name] * value for name, value in sums.items()), **sums}
