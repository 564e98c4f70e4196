"""Pose alone: the orientation of given heads and the weak-perspective camera that sees them, from 2D landmarks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

from neuface.geometry.pose_jacobian import POSE_SIZE, pose_jacobian
from neuface.geometry.rotations import rotmat_to_rotvec, rotvec_to_rotmat
from neuface.head.model import HeadModel
from neuface.structs import HEAD_TO_IMAGE_SIGNS, HeadParams, Prediction, TensorStruct, WeakPerspective

__all__ = ["Resection", "resect"]

FEWEST_POINTS = 6
"""Least number of points that determine a pose: the closed-form start needs four that are not in one plane, and two
more show an error."""
MOST_STEPS = 50
"""Limit of Levenberg-Marquardt steps from one start."""
SLIDING_ROUNDS = 3
"""How often the positions of sliding points are chosen anew, each time for the pose of the round before."""
SMALLEST_STEP = 1e-11
"""Largest change (radians, log magnification, crop half-widths) of a step that ends the iteration."""
LEAST_DAMPING, MOST_DAMPING = 1e-9, 1e6
"""Bounds of the damping, as a multiple of the largest diagonal entry of the normal matrix; the iteration ends at the
upper one."""
SMALLEST_EIGENVALUE = 1e-9
"""Least eigenvalue of the normal matrix, as a share of the largest, at which the pose counts as determined."""


@dataclass(frozen=True, kw_only=True)
class Resection(TensorStruct):
    """The poses of some images."""

    prediction: Prediction
    """The given heads with the estimated orientation, and their cameras; NaN in both where not `solved`."""
    solved: Bool[Tensor, " images"]
    """Whether at least six points were observed (of those that do not slide, if there are any) and determine the
    pose."""


@torch.no_grad()
def resect(
    head: HeadModel,
    params: HeadParams,
    observed_ndc: Float[Tensor, "images points 2"],
    confidence: Float[Tensor, "images points"],
    scheme: str,
) -> Resection:
    """The root rotation and weak-perspective camera of each image that bring given heads nearest to 2D landmarks.

    Minimises the squared distances in crop NDC, weighted by confidence; identity, expression and the other joints
    stay as given. The start is in closed form (DeMenthon and Davis, "Model-based object pose in 25 lines of code",
    1995: the scaled orthographic camera of points that are not in one plane, here with its two rows made orthogonal),
    so the result does not depend on `params.root_rotvec`. Levenberg-Marquardt steps follow, for all images at once,
    in float64.

    Some landmarks slide over the head with its pose. Where only a part of a scheme slides (the contour of iBUG-68),
    that part gets no weight. Where all of it slides (MediaPipe's points on the open head), the points stay where they
    are on the head during the steps, because the jumps between rows of positions would stop the iteration; they are
    then chosen again for the pose that was found.

    Args:
        params: one batch axis, the images.
        observed_ndc: ignored where the confidence is 0.
        confidence: 0 or more; only ratios within an image matter.
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
    # An image without enough points is solved with equal weights, which keeps all numbers finite, and dropped.
    weight = torch.where(enough[:, None], weight, 1.0)
    weight = weight / weight.sum(-1, keepdim=True)
    pose, determined = _closed_form(upright, observed, weight), enough
    for _ in range(SLIDING_ROUNDS if all_slide else 1):
        pose, determined = _refined(exact, heads, pose, observed, weight, scheme)
    solved = enough & determined
    return _resection(params, pose, solved)


def _resection(params: HeadParams, pose: _Pose, solved: Bool[Tensor, " images"]) -> Resection:
    """The poses in the precision of `params`, NaN where they are not solved."""

    def masked(values: Tensor) -> Tensor:
        return torch.where(_over(solved, values), values, torch.nan).to(params.root_rotvec.dtype)

    return Resection(
        prediction=Prediction(
            params=replace(params, root_rotvec=masked(pose.root_rotvec)),
            camera=pose.camera.placed(masked(pose.camera.position), masked(pose.camera.magnification)),
        ),
        solved=solved,
    )


def _slides(head: HeadModel, scheme: str) -> Bool[Tensor, " points"]:
    """Which landmarks have another position on the head for another pose."""
    embedding = head.embeddings[scheme]
    sliding = embedding.contour_triangles.shape[-1] if embedding.contour_yaw_rad.numel() else 0
    return torch.arange(len(embedding.triangles), device=embedding.triangles.device) < sliding


@dataclass(frozen=True, kw_only=True)
class _Pose(TensorStruct):
    root_rotvec: Float[Tensor, "images 3"]
    camera: WeakPerspective


def _closed_form(
    points: Float[Tensor, "images points 3"],
    observed: Float[Tensor, "images points 2"],
    weight: Float[Tensor, "images points"],
) -> _Pose:
    """The affine camera of the unposed points, reduced to the nearest rotation and magnification."""
    signs = points.new_tensor(HEAD_TO_IMAGE_SIGNS)[:2]
    mean_point = einsum(weight, points, "i n, i n c -> i c")
    mean_observed = einsum(weight, observed, "i n, i n c -> i c")
    spread, seen = points - mean_point[:, None], (observed - mean_observed[:, None]) * signs
    moments = einsum(weight, spread, spread, "i n, i n a, i n b -> i a b")
    mixed = einsum(weight, seen, spread, "i n, i n a, i n b -> i a b")
    rows = mixed @ torch.linalg.pinv(moments, hermitian=True)
    left, lengths, right = torch.linalg.svd(rows, full_matrices=False)
    across, up = (left @ right).unbind(-2)
    rotation = torch.stack((across, up, torch.linalg.cross(across, up)), -2)
    # Coinciding points give a magnification of 0, which has no logarithm.
    magnification = lengths.mean(-1).clamp(min=torch.finfo(points.dtype).eps)
    return _Pose(
        root_rotvec=rotmat_to_rotvec(rotation),
        # `_refined` replaces this position by that of the origin, which depends on the centre of the root's rotation.
        camera=WeakPerspective(scale=magnification, offset=mean_observed),
    )


def _refined(
    head: HeadModel,
    heads: HeadParams,
    pose: _Pose,
    observed: Float[Tensor, "images points 2"],
    weight: Float[Tensor, "images points"],
    scheme: str,
) -> tuple[_Pose, Bool[Tensor, " images"]]:
    """Levenberg-Marquardt: a step that does not lower the error of its image is tried again with more damping.

    Returns the poses, and whether the points determine them.
    """
    root = head.joints(heads)[:, :1]
    facing = replace(heads, root_rotvec=pose.root_rotvec)

    def posed_points(of: _Pose) -> Tensor:
        return head.landmarks(replace(heads, root_rotvec=of.root_rotvec), scheme, facing=facing)

    points = posed_points(pose)
    pose = replace(pose, camera=_centred(pose.camera, points, observed, weight))
    residual = observed - pose.camera.project(points)
    damping = weight.new_full((len(weight),), LEAST_DAMPING)
    for _ in range(MOST_STEPS):
        step = _damped_step(pose.camera, points, points - root, residual, weight, damping)
        moved = _moved(pose, step)
        moved_points = posed_points(moved)
        moved_residual = observed - moved.camera.project(moved_points)
        better = _cost(moved_residual, weight) < _cost(residual, weight)
        pose = _selected(better, moved, pose)
        points = torch.where(better[:, None, None], moved_points, points)
        residual = torch.where(better[:, None, None], moved_residual, residual)
        damping = torch.where(better, damping / 10, damping * 10).clamp(LEAST_DAMPING, MOST_DAMPING)
        finished = (step.abs().amax(-1) < SMALLEST_STEP) | (damping >= MOST_DAMPING)
        if bool(finished.all()):
            break
    jacobian = pose_jacobian(pose.camera, points, points - root)
    eigenvalues = torch.linalg.eigvalsh(_normal_matrix(jacobian, weight))
    return pose, eigenvalues[:, 0] > SMALLEST_EIGENVALUE * eigenvalues[:, -1]


def _centred(
    camera: WeakPerspective,
    points: Float[Tensor, "images points 3"],
    observed: Float[Tensor, "images points 2"],
    weight: Float[Tensor, "images points"],
) -> WeakPerspective:
    """The camera with the best position for this magnification."""
    gap = einsum(weight, observed - camera.project(points), "i n, i n c -> i c")
    return camera.placed(camera.position + gap, camera.magnification)


def _damped_step(
    camera: WeakPerspective,
    points: Float[Tensor, "images points 3"],
    lever: Float[Tensor, "images points 3"],
    residual: Float[Tensor, "images points 2"],
    weight: Float[Tensor, "images points"],
    damping: Float[Tensor, " images"],
) -> Float[Tensor, "images 6"]:
    jacobian = pose_jacobian(camera, points, lever)
    normal = _normal_matrix(jacobian, weight)
    right = einsum(weight, jacobian, residual, "i n, i n r a, i n r -> i a")
    size = normal.diagonal(dim1=-2, dim2=-1).amax(-1).clamp(min=1e-30)
    normal = normal + (damping * size)[:, None, None] * torch.eye(POSE_SIZE).to(normal)
    step, _ = torch.linalg.solve_ex(normal, right)
    return step


def _normal_matrix(
    jacobian: Float[Tensor, "images points 2 6"], weight: Float[Tensor, "images points"]
) -> Float[Tensor, "images 6 6"]:
    return einsum(weight, jacobian, jacobian, "i n, i n r a, i n r b -> i a b")


def _moved(pose: _Pose, step: Float[Tensor, "images 6"]) -> _Pose:
    rotation = rotvec_to_rotmat(step[:, :3]) @ rotvec_to_rotmat(pose.root_rotvec)
    return _Pose(
        root_rotvec=rotmat_to_rotvec(rotation),
        camera=pose.camera.placed(
            pose.camera.position + step[:, 4:], pose.camera.magnification * step[:, 3].exp()
        ),
    )


def _cost(
    residual: Float[Tensor, "images points 2"], weight: Float[Tensor, "images points"]
) -> Float[Tensor, " images"]:
    return (weight * residual.square().sum(-1)).sum(-1)


def _selected(where: Bool[Tensor, " images"], first: _Pose, second: _Pose) -> _Pose:
    """The first pose for the images that `where` names, the second for the others."""

    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(_over(where, a), a, b)

    return _Pose(
        root_rotvec=pick(first.root_rotvec, second.root_rotvec),
        camera=first.camera.placed(
            pick(first.camera.position, second.camera.position),
            pick(first.camera.magnification, second.camera.magnification),
        ),
    )


def _over(mask: Bool[Tensor, " images"], values: Tensor) -> Tensor:
    """The mask with as many axes as `values`."""
    return mask.view(-1, *[1] * (values.ndim - 1))
