"""The E-step of calibrated cameras: one pose of the head in the world per frame, and how every camera sees it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from neuface.fitting.problem import Problem
from neuface.geometry.head_in_world import HeadPose, agreed_pose, in_world, seen_by, size_of_head
from neuface.geometry.local_view import LocalView, local_view
from neuface.geometry.perspective import PerspectiveCamera
from neuface.geometry.rotations import rotvec_to_rotmat
from neuface.head.model import HeadModel
from neuface.head.pieces import in_pieces
from neuface.landmarks.schemes import INNER51
from neuface.structs import HeadParams, Prediction, Scheme, TensorStruct


@dataclass(frozen=True, kw_only=True)
class HeadsInWorld(TensorStruct):
    """Where the views of a clip put the head, each for itself and together."""

    of_views: HeadPose
    """Batch axes `views time`."""
    agreed: HeadPose
    """Batch axis `time`; NaN in frames without a view that counts."""
    size: Float[Tensor, ""]
    """Units of the world per metre of the head model: more than 1 for a head larger than the fitted one."""
    size_known: bool
    """Whether the cameras determine the size; otherwise it is 1, the fitted head's own."""


@dataclass(frozen=True, kw_only=True)
class CalibratedTarget(TensorStruct):
    """How a calibrated camera sees the head that all views agree on, in units of each image's crop."""

    view: LocalView
    weight: Float[Tensor, "*batch"]
    """1, or 0 for an image to which the other views say nothing."""


def face_middle(head: HeadModel, params: HeadParams, scheme: Scheme) -> Float[Tensor, "*batch 3"]:
    """The middle of the inner landmarks, metres, head frame: the point whose place cameras agree on.

    A camera places the head by its face. The head frame's origin lies behind it, where perspective enlarges less.
    """
    points = head.landmarks(params, scheme.name, facing=params.unposed())
    return points[..., list(scheme.to_ibug68), :][..., INNER51, :].mean(-2)


def face_middles(head: HeadModel, params: HeadParams, scheme: Scheme) -> Float[Tensor, "*batch 3"]:
    """`face_middle` of the heads of a clip, a bounded number of them at a time, without a gradient."""
    return in_pieces(lambda piece: face_middle(head, piece, scheme), params)


def fitted_views(prediction: Prediction, middle: Float[Tensor, "*batch 3"]) -> LocalView:
    """How the predicted cameras see their heads: rotations have the unposed head's axes, image units per metre.

    Args:
        middle: `face_middle` of the predicted heads.
    """
    camera, at = prediction.camera, middle[..., None, :]
    view = local_view(camera.project(at)[..., 0, :], camera.jacobian(at)[..., 0, :, :])
    return LocalView(
        rotation=view.rotation @ rotvec_to_rotmat(prediction.params.root_rotvec),
        position=view.position,
        magnification=view.magnification,
    )


def heads_in_world(
    cameras: PerspectiveCamera,
    seen: LocalView,
    weight: Float[Tensor, "views time"],
) -> HeadsInWorld:
    """The head in the world from how calibrated cameras see it, float64.

    Args:
        cameras: batch axes `views time`.
        seen: `fitted_views` in frame pixels.
        weight: how much each view counts; 0 for images without a face.
    """
    cameras, seen, weight = cameras.to(torch.float64), seen.to(torch.float64), weight.double()
    found = size_of_head(cameras, seen, weight)
    size = seen.magnification.new_ones(()) if found is None else found
    poses = in_world(cameras, seen, size)
    weight = weight * poses.position.isfinite().all(-1)
    return HeadsInWorld(
        of_views=poses,
        agreed=agreed_pose(cameras, poses, weight),
        size=size,
        size_known=found is not None,
    )


def calibrated_target(head: HeadModel, prediction: Prediction, problem: Problem) -> CalibratedTarget | None:
    """The E-step, without a gradient; None if the clip's cameras are not calibrated, or there is only one."""
    cameras = problem.cameras
    if cameras is None or problem.views == 1:
        return None
    seen = fitted_views(prediction, face_middles(head, prediction.params, problem.scheme))
    per_px, centre = problem.ndc_per_frame_px, problem.centre_px
    in_frame = LocalView(
        rotation=seen.rotation,
        position=centre + seen.position / per_px[..., None],
        magnification=seen.magnification / per_px,
    )
    found = heads_in_world(cameras, in_frame, view_weights(problem.confidence, problem.valid))
    everywhere = found.agreed.map_tensors(lambda tensor: tensor.expand(problem.views, *tensor.shape))
    expected = seen_by(cameras.to(torch.float64), everywhere, found.size).map_tensors(
        lambda tensor: tensor.to(seen.position)
    )
    known = expected.position.isfinite().all(-1) & expected.rotation.isfinite().all(-1).all(-1)
    in_crop = LocalView(
        rotation=expected.rotation,
        position=(expected.position - centre) * per_px[..., None],
        magnification=expected.magnification * per_px,
    )
    return CalibratedTarget(
        view=in_crop.map_tensors(lambda tensor: torch.where(_like(known, tensor), tensor, 1.0)),
        weight=known.to(per_px),
    )


def view_weights(
    confidence: Float[Tensor, "views time points"], valid: Bool[Tensor, "views time"]
) -> Float[Tensor, "views time"]:
    """How much a view's pose counts: the mean confidence of its landmarks, 0 for images that are not valid."""
    return confidence.mean(-1) * valid


def _like(mask: Bool[Tensor, "*batch"], tensor: Tensor) -> Tensor:
    return mask.view(*mask.shape, *[1] * (tensor.ndim - mask.ndim))
