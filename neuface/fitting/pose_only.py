"""Pose alone: the orientation of given heads and the camera that sees them, from 2D landmarks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import roma
import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

from neuface.head.model import HeadModel
from neuface.structs import HEAD_TO_IMAGE_SIGNS, HeadParams, Prediction, TensorStruct, WeakPerspective

__all__ = ["Resection", "pose_jacobian", "resect"]

# Six numbers are looked for, and the start needs points that are not in one plane: four determine it, six tell
# that it is wrong.
FEWEST_POINTS = 6
MOST_STEPS = 50
# Rounds in which the places of sliding points are chosen for the pose of the round before.
ROUNDS = 3
# Radians, logarithm of the scale and crop half-widths: all unknowns are of order one.
SMALLEST_STEP = 1e-11
LEAST_DAMPING, MOST_DAMPING = 1e-9, 1e6
# Below this share of the best determined direction, a direction is not determined at all.
SMALLEST_SHARE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Resection(TensorStruct):
    """Poses found for some images."""

    prediction: Prediction
    """The given heads turned as they are seen, and their cameras; NaN in pose and camera where not `solved`."""
    solved: Bool[Tensor, " images"]
    """At least six points are seen, of those that do not slide if there are any, and they determine the pose."""


@torch.no_grad()
def resect(
    head: HeadModel,
    params: HeadParams,
    observed_ndc: Float[Tensor, "images points 2"],
    confidence: Float[Tensor, "images points"],
    scheme: str,
) -> Resection:
    """The root rotation and weak-perspective camera of each image that bring given heads nearest to 2D landmarks.

    Least squares of the distances in crop NDC, weighted by confidence; identity, expression and the other joints
    stay as given. The start is in closed form (Dementhon and Davis, 1995: the scaled orthographic camera of points
    that are not in one plane, here with its two rows made orthogonal), so `params.root_rotvec` has no say. Damped
    Gauss-Newton steps follow, all images at once, in float64. Where part of a scheme slides with the pose (iBUG's
    contour), it is left out. Where all of it does (MediaPipe's points on the open head), the steps hold the places of
    the points, for rows of places would catch them; the places are then chosen again for the pose that was found.

    Args:
        params: one batch axis, the images.
        observed_ndc: crop NDC; ignored where the confidence is 0.
        scheme: of the landmarks, one that the head has an embedding for.

    Raises:
        InputError: the head has no landmarks of this scheme, or the codes are longer than its bases.
    """
    exact = head.to(torch.float64)
    heads = params.to(torch.float64).unposed()
    upright = exact.landmarks(heads, scheme)
    slides = _slides(head, scheme)
    all_slide = bool(slides.all())
    weight = confidence.double() if all_slide else confidence.double() * ~slides
    observed = torch.where(weight[..., None] > 0, observed_ndc.double(), 0.0)
    enough = (weight > 0).sum(-1) >= FEWEST_POINTS
    # An image without enough points takes part with equal weights, so that nothing becomes infinite, and is dropped.
    weight = torch.where(enough[:, None], weight, 1.0)
    # Only ratios of confidences matter.
    weight = weight / weight.sum(-1, keepdim=True)
    pose, determined = _start(upright, observed, weight), enough
    for _ in range(ROUNDS if all_slide else 1):
        pose, determined = _refined(exact, heads, pose, observed, weight, scheme)
    solved = enough & determined

    def answer(found: Tensor, like: Tensor) -> Tensor:
        return torch.where(solved.view(-1, *[1] * (found.ndim - 1)), found, torch.nan).to(like.dtype)

    dtype = params.root_rotvec
    return Resection(
        prediction=Prediction(
            params=replace(params, root_rotvec=answer(pose.root_rotvec, dtype)),
            camera=WeakPerspective(
                scale=answer(pose.camera.scale, dtype), offset=answer(pose.camera.offset, dtype)
            ),
        ),
        solved=solved,
    )


def _slides(head: HeadModel, scheme: str) -> Bool[Tensor, " points"]:
    embedding = head.embeddings[scheme]
    sliding = embedding.contour_triangles.shape[-1] if embedding.contour_yaw_rad.numel() else 0
    return torch.arange(len(embedding.triangles), device=embedding.triangles.device) < sliding


@dataclass(frozen=True, kw_only=True)
class _Pose(TensorStruct):
    root_rotvec: Float[Tensor, "images 3"]
    camera: WeakPerspective


def _start(
    points: Float[Tensor, "images points 3"],
    observed: Float[Tensor, "images points 2"],
    weight: Float[Tensor, "images points"],
) -> _Pose:
    """The affine camera of the unposed points, made one of turn and scale."""
    signs = points.new_tensor(HEAD_TO_IMAGE_SIGNS)[:2]
    middle = einsum(weight, points, "i n, i n c -> i c")
    centre = einsum(weight, observed, "i n, i n c -> i c")
    spread, seen = points - middle[:, None], (observed - centre[:, None]) * signs
    moments = einsum(weight, spread, spread, "i n, i n a, i n b -> i a b")
    mixed = einsum(weight, seen, spread, "i n, i n a, i n b -> i a b")
    rows = mixed @ torch.linalg.pinv(moments, hermitian=True)
    left, lengths, right = torch.linalg.svd(rows, full_matrices=False)
    across, up = (left @ right).unbind(-2)
    turn = torch.stack((across, up, torch.linalg.cross(across, up)), -2)
    # Points in one place have the scale 0, which has no logarithm.
    scale = lengths.mean(-1).clamp(min=torch.finfo(points.dtype).eps)
    return _Pose(
        root_rotvec=roma.rotmat_to_rotvec(turn),
        # The offset is the origin's place; the first step finds it, whatever pivot the root turns about.
        camera=WeakPerspective(scale=scale, offset=centre),
    )


def _refined(
    head: HeadModel,
    heads: HeadParams,
    pose: _Pose,
    observed: Float[Tensor, "images points 2"],
    weight: Float[Tensor, "images points"],
    scheme: str,
) -> tuple[_Pose, Bool[Tensor, " images"]]:
    """Levenberg-Marquardt steps; a step that does not lower the error of its image is tried again, shorter."""
    pivot = head.joints(heads)[:, :1]
    facing = replace(heads, root_rotvec=pose.root_rotvec)

    def posed_points(of: _Pose) -> Tensor:
        return head.landmarks(replace(heads, root_rotvec=of.root_rotvec), scheme, facing=facing)

    points = posed_points(pose)
    pose = replace(pose, camera=_centred(pose.camera, points, observed, weight))
    miss = observed - pose.camera.project(points)
    damping = weight.new_full((len(weight),), LEAST_DAMPING)
    for _ in range(MOST_STEPS):
        step = _step(pose.camera, points, points - pivot, miss, weight, damping)
        moved = _stepped(pose, step)
        moved_points = posed_points(moved)
        missed = observed - moved.camera.project(moved_points)
        better = _cost(missed, weight) < _cost(miss, weight)
        pose = _chosen(better, moved, pose)
        points = torch.where(better[:, None, None], moved_points, points)
        miss = torch.where(better[:, None, None], missed, miss)
        damping = torch.where(better, damping / 10, damping * 10).clamp(LEAST_DAMPING, MOST_DAMPING)
        still = (step.abs().amax(-1) < SMALLEST_STEP) | (damping >= MOST_DAMPING)
        if bool(still.all()):
            break
    jacobian = pose_jacobian(pose.camera.scale, points, points - pivot)
    shares = torch.linalg.eigvalsh(einsum(weight, jacobian, jacobian, "i n, i n r a, i n r b -> i a b"))
    return pose, shares[:, 0] > SMALLEST_SHARE * shares[:, -1]


def _centred(
    camera: WeakPerspective,
    points: Float[Tensor, "images points 3"],
    observed: Float[Tensor, "images points 2"],
    weight: Float[Tensor, "images points"],
) -> WeakPerspective:
    """The camera with the best offset for this scale."""
    gap = einsum(weight, observed - camera.project(points), "i n, i n c -> i c")
    return replace(camera, offset=camera.offset + gap)


def pose_jacobian(
    scale: Float[Tensor, " images"],
    points: Float[Tensor, "images points 3"],
    arm: Float[Tensor, "images points 3"],
) -> Float[Tensor, "images points 2 6"]:
    """How projected points move with a further turn (radians), the logarithm of the scale, and the offset.

    Args:
        scale: of the weak-perspective camera.
        points: in head axes, turned; what grows with the scale.
        arm: from what the head turns about.
    """
    signs = points.new_tensor(HEAD_TO_IMAGE_SIGNS)[:2, None]
    # A small turn w moves a point by w x arm.
    x, y, z = arm.unbind(-1)
    zero = torch.zeros_like(x)
    turned = torch.stack((torch.stack((zero, z, -y), -1), torch.stack((-z, zero, x), -1)), -2)
    grown = points[..., :2, None]
    shifted = torch.eye(2).to(points).expand(*points.shape[:2], 2, 2)
    scale = scale[:, None, None, None]
    return torch.cat((scale * signs * turned, scale * signs * grown, shifted), -1)


def _step(
    camera: WeakPerspective,
    points: Float[Tensor, "images points 3"],
    arm: Float[Tensor, "images points 3"],
    miss: Float[Tensor, "images points 2"],
    weight: Float[Tensor, "images points"],
    damping: Float[Tensor, " images"],
) -> Float[Tensor, "images 6"]:
    jacobian = pose_jacobian(camera.scale, points, arm)
    normal = einsum(weight, jacobian, jacobian, "i n, i n r a, i n r b -> i a b")
    right = einsum(weight, jacobian, miss, "i n, i n r a, i n r -> i a")
    size = normal.diagonal(dim1=-2, dim2=-1).amax(-1).clamp(min=1e-30)
    normal = normal + (damping * size)[:, None, None] * torch.eye(6).to(normal)
    step, _ = torch.linalg.solve_ex(normal, right)
    return step


def _stepped(pose: _Pose, step: Float[Tensor, "images 6"]) -> _Pose:
    turn = roma.rotvec_to_rotmat(step[:, :3]) @ roma.rotvec_to_rotmat(pose.root_rotvec)
    return _Pose(
        root_rotvec=roma.rotmat_to_rotvec(turn),
        camera=WeakPerspective(
            scale=pose.camera.scale * step[:, 3].exp(), offset=pose.camera.offset + step[:, 4:]
        ),
    )


def _cost(miss: Float[Tensor, "images points 2"], weight: Float[Tensor, "images points"]) -> Tensor:
    return (weight * miss.square().sum(-1)).sum(-1)


def _chosen(where: Bool[Tensor, " images"], first: _Pose, second: _Pose) -> _Pose:
    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(where.view(-1, *[1] * (a.ndim - 1)), a, b)

    return _Pose(
        root_rotvec=pick(first.root_rotvec, second.root_rotvec),
        camera=WeakPerspective(
            scale=pick(first.camera.scale, second.camera.scale),
            offset=pick(first.camera.offset, second.camera.offset),
        ),
    )
