"""Where a head is in the world, from how calibrated cameras see it, and the other way round."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from neuface.geometry.local_view import LocalView, local_view
from neuface.geometry.perspective import PerspectiveCamera
from neuface.geometry.rotations import nearest_rotation
from neuface.structs import TensorStruct

__all__ = ["HeadPose", "agreed_pose", "in_world", "seen_by", "size_of_head"]

# Standard deviations of where one view puts a head, as shares of its distance: across the line of sight, where
# landmarks are a few pixels off, and along it, where the distance follows from the size of the head in the image.
ACROSS_ERROR, ALONG_ERROR = 0.004, 0.05
# The same along the line of sight while the head's size is unknown: rays alone determine the position.
UNKNOWN_SIZE_ERROR = 100.0
# Smallest angle between two lines of sight, radians, from which a head's distance, and so its size, is determined.
SMALLEST_ANGLE_RAD = 0.05


@dataclass(frozen=True, kw_only=True)
class HeadPose(TensorStruct):
    """Where a head is in the world, and how it is turned."""

    rotation: Float[Tensor, "*batch 3 3"]
    """Axes of the unposed head to world axes."""
    position: Float[Tensor, "*batch 3"]
    """Of the point of the head that was looked at, in the unit of the cameras' translations."""


def seen_by(cameras: PerspectiveCamera, pose: HeadPose, size: Float[Tensor, ""] | float = 1.0) -> LocalView:
    """How calibrated cameras see a head: its `rotation` has the head's own axes, frame pixels per metre of the head.

    Args:
        cameras, pose: of the same batch axes.
        size: units of the world per metre of the head.

    NaN where the head is behind a camera.
    """
    at = pose.position[..., None, :]
    view = local_view(cameras.project(at)[..., 0, :], cameras.projection_jacobian(at)[..., 0, :, :])
    return LocalView(
        rotation=view.rotation @ pose.rotation,
        position=view.position,
        magnification=size * view.magnification,
    )


def in_world(cameras: PerspectiveCamera, seen: LocalView, size: Float[Tensor, ""] | float = 1.0) -> HeadPose:
    """Where each camera puts the head that it sees; the inverse of `seen_by`.

    The distance follows from the magnification, because the size of the head is known. NaN where the camera's lens
    shows nothing at the position.
    """
    ray = cameras.undistort(seen.position[..., None, :])[..., 0, :]
    direction = torch.nn.functional.pad(ray, (0, 1), value=1.0)
    unit = _to_world(cameras, direction)[..., None, :]
    # Along a ray the direction of view is the same everywhere, and the magnification falls with the depth.
    view = local_view(seen.position, cameras.projection_jacobian(unit)[..., 0, :, :])
    depth = size * view.magnification / seen.magnification
    return HeadPose(
        rotation=view.rotation.mT @ seen.rotation,
        position=_to_world(cameras, depth[..., None] * direction),
    )


def agreed_pose(
    cameras: PerspectiveCamera,
    poses: HeadPose,
    weight: Float[Tensor, "views *#batch"],
    *,
    along_error: float = ALONG_ERROR,
) -> HeadPose:
    """One pose of the head from where each view puts it.

    The rotation is the weighted mean (of matrices, projected to the nearest rotation). The position is the weighted
    mean with the inverse covariances of the views' errors, so that two views triangulate: each knows the direction to
    the head better than its distance.

    Args:
        cameras, poses: batch axes `views *batch`.
        weight: 0 for views that do not count.
        along_error: standard deviation along the line of sight, as a share of the distance.

    NaN where no view counts.
    """
    rotation = torch.where((weight > 0)[..., None, None], poses.rotation, 0.0)
    mixed = einsum(weight, rotation, "v ..., v ... i j -> ... i j")
    from_camera = torch.where((weight > 0)[..., None], poses.position - cameras.centre, 1.0)
    distance = torch.linalg.vector_norm(from_camera, dim=-1)
    along = from_camera / distance[..., None]
    projector = along[..., :, None] * along[..., None, :]
    certainty = (torch.eye(3).to(along) - projector) / ACROSS_ERROR**2 + projector / along_error**2
    certainty = certainty * (weight / distance.square())[..., None, None]
    position = torch.where((weight > 0)[..., None], poses.position, 0.0)
    right = einsum(certainty, position, "v ... i j, v ... j -> ... i")
    known = (weight > 0).any(0)
    one = torch.eye(3).to(mixed)
    whole = torch.where(known[..., None, None], certainty.sum(0), one)
    return HeadPose(
        rotation=torch.where(
            known[..., None, None],
            nearest_rotation(torch.where(known[..., None, None], mixed, one)),
            torch.nan,
        ),
        position=torch.where(known[..., None], torch.linalg.solve(whole, right), torch.nan),
    )


def size_of_head(
    cameras: PerspectiveCamera, seen: LocalView, weight: Float[Tensor, " views *batch"]
) -> Float[Tensor, ""] | None:
    """Units of the world per metre of the head, the median over all images that see it with another camera.

    None if no two cameras see it from different directions: one camera does not determine both size and distance.
    """
    poses = in_world(cameras, seen)
    weight = weight * poses.position.isfinite().all(-1)
    along = torch.nn.functional.normalize(poses.position - cameras.centre, dim=-1)
    counted = weight > 0
    apart = torch.linalg.cross(*torch.broadcast_tensors(along[:, None], along[None]), dim=-1).norm(dim=-1)
    pairs = counted[:, None] & counted[None] & (apart > SMALLEST_ANGLE_RAD)
    determined = pairs.any(0)
    if not bool(determined.any()):
        return None
    by_rays = agreed_pose(cameras, poses, weight, along_error=UNKNOWN_SIZE_ERROR)
    again = seen_by(
        cameras,
        HeadPose(
            rotation=by_rays.rotation.expand_as(poses.rotation),
            position=by_rays.position.expand_as(poses.position),
        ),
    )
    ratio = (seen.magnification / again.magnification)[determined]
    return ratio[ratio.isfinite()].median()


def _to_world(cameras: PerspectiveCamera, in_camera: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    return ((in_camera - cameras.translation)[..., None, :] @ cameras.rotation)[..., 0, :]
