"""Triangulation: 3D points from their pixels in two or more calibrated cameras."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

from neuface.errors import InputError
from neuface.geometry.perspective import PerspectiveCamera
from neuface.structs import TensorStruct

__all__ = ["Triangulation", "triangulate"]

# Number of Gauss-Newton steps on the reprojection error.
REFINING_STEPS = 5
# Angle between rays, radians (to first order), below which they do not determine the depth of a point.
SMALLEST_ANGLE_RAD = 1e-4


@dataclass(frozen=True, kw_only=True)
class Triangulation(TensorStruct):
    """Triangulated points and their reprojection errors."""

    points: Float[Tensor, "*batch points 3"]
    """World axes, metres; NaN where not `valid`."""
    valid: Bool[Tensor, "*batch points"]
    """Whether at least two cameras observe the point, their rays meet in front of them, and it is not rejected."""
    error_px: Float[Tensor, "*batch points"]
    """Root mean square reprojection error over the views, weighted by confidence; rejected points have it too."""
    view_error_px: Float[Tensor, "*batch points views"]
    """Reprojection error in each view; NaN where the view does not observe the point, or it is undetermined."""


@torch.no_grad()
def triangulate(
    cameras: PerspectiveCamera,
    points_px: Float[Tensor, "views *batch points 2"],
    confidence: Float[Tensor, "views *batch points"],
    *,
    max_error_px: float | None = None,
) -> Triangulation:
    """The 3D points of least weighted squared reprojection error.

    The initial estimate is linear least squares, weighted by confidence (Hartley and Zisserman, Multiple View
    Geometry, Sec. 12.2, the inhomogeneous form). Gauss-Newton steps on the reprojection error follow; a step is
    rejected if it does not lower the error of its point. The computation is in float64 and has no gradient.

    Args:
        cameras: one batch axis, the views.
        points_px: observed pixels, with lens distortion. A position that is not finite is not observed.
        confidence: weights of the squared errors, 0 or more; a point of weight 0 is not observed.
        max_error_px: points whose `error_px` is larger are rejected; None rejects none.

    Raises:
        InputError: the cameras are not one per view, or max_error_px is not positive.
    """
    if tuple(cameras.K.shape[:-2]) != (points_px.shape[0],):
        raise InputError(
            f"triangulate: landmarks of {points_px.shape[0]} view(s) but cameras of shape "
            f"{tuple(cameras.K.shape[:-2])}; expected one camera per view, in the same order"
        )
    if max_error_px is not None and not (math.isfinite(max_error_px) and max_error_px > 0):
        raise InputError(f"triangulate: max_error_px must be positive and finite, got {max_error_px}")
    exact = cameras.to(torch.float64)
    observed_px = points_px.double().flatten(1, -2)
    weight = confidence.double().flatten(1)
    rays = exact.undistort(observed_px)
    weight = torch.where((weight > 0) & rays.isfinite().all(-1), weight, 0.0)
    points, determined = _linear(exact, rays, weight)
    determined &= (weight > 0).sum(0) >= 2
    points = _refined(exact, points, observed_px, weight, determined)

    gap = torch.linalg.vector_norm(_project(exact, points) - observed_px, dim=-1)
    # A point behind a camera that observes it has a projection, and therefore an error, of NaN.
    error = (torch.where(weight > 0, weight * gap.square(), 0.0).sum(0) / weight.sum(0)).sqrt()
    found = determined & error.isfinite()
    valid = found if max_error_px is None else found & (error <= max_error_px)
    view_error = torch.where((weight > 0) & found, gap, torch.nan).T
    batch = points_px.shape[1:-1]
    return Triangulation(
        points=torch.where(valid[:, None], points, torch.nan).to(points_px.dtype).unflatten(0, batch),
        valid=valid.unflatten(0, batch),
        error_px=torch.where(found, error, torch.nan).to(points_px.dtype).unflatten(0, batch),
        view_error_px=view_error.to(points_px.dtype).unflatten(0, batch),
    )


def _linear(
    cameras: PerspectiveCamera, rays: Float[Tensor, "views n 2"], weight: Float[Tensor, "views n"]
) -> tuple[Float[Tensor, "n 3"], Bool[Tensor, " n"]]:
    """The points nearest to their rays (linear least squares), and whether the rays determine a point at all."""
    ray = torch.where(weight[..., None] > 0, rays, 0.0)[..., None]
    # x_camera = ray * z_camera: two equations per view, linear in the point of the world.
    rows = cameras.rotation[:, None, :2] - ray * cameras.rotation[:, None, 2:]
    sides = ray[..., 0] * cameras.translation[:, None, 2:] - cameras.translation[:, None, :2]
    normal = einsum(weight, rows, rows, "v n, v n r a, v n r b -> n a b")
    eigenvalues = torch.linalg.eigvalsh(normal)
    determined = eigenvalues[:, 0] > SMALLEST_ANGLE_RAD**2 * eigenvalues[:, 2]
    solvable = torch.where(determined[:, None, None], normal, torch.eye(3).to(normal))
    right = einsum(weight, rows, sides, "v n, v n r a, v n r -> n a")
    return torch.linalg.solve(solvable, right), determined


def _refined(
    cameras: PerspectiveCamera,
    points: Float[Tensor, "n 3"],
    observed_px: Float[Tensor, "views n 2"],
    weight: Float[Tensor, "views n"],
    determined: Bool[Tensor, " n"],
) -> Float[Tensor, "n 3"]:
    """The points after Gauss-Newton steps on the reprojection error."""
    used = weight[..., None] > 0

    def residuals(at: Tensor) -> Tensor:
        return torch.where(used, observed_px - _project(cameras, at), 0.0)

    def cost(residual: Tensor) -> Tensor:
        return (weight * residual.square().sum(-1)).sum(0)

    residual = residuals(points)
    for _ in range(REFINING_STEPS):
        jacobian = cameras.projection_jacobian(points.expand(len(weight), -1, -1))
        jacobian = torch.where(used[..., None], jacobian, 0.0)
        normal = einsum(weight, jacobian, jacobian, "v n, v n r a, v n r b -> n a b")
        right = einsum(weight, jacobian, residual, "v n, v n r a, v n r -> n a")
        usable = determined & normal.isfinite().all(-1).all(-1)
        normal = torch.where(usable[:, None, None], normal, torch.eye(3).to(normal))
        step, _ = torch.linalg.solve_ex(normal, right[..., None])
        moved = points + step[..., 0]
        moved_residual = residuals(moved)
        # The cost is NaN for a point behind a camera; the comparison rejects such a step too.
        better = cost(moved_residual) < cost(residual)
        points = torch.where(better[:, None], moved, points)
        residual = torch.where(better[:, None], moved_residual, residual)
    return points


def _project(cameras: PerspectiveCamera, points: Float[Tensor, "n 3"]) -> Float[Tensor, "views n 2"]:
    return cameras.project(points.expand(len(cameras.K), -1, -1))
