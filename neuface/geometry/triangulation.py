"""Points in space from where two or more calibrated cameras see them."""

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

REFINING_STEPS = 5
# Rays that meet at a smaller angle than this (about, radians) tell no depth.
SMALLEST_ANGLE_RAD = 1e-4


@dataclass(frozen=True, kw_only=True)
class Triangulation(TensorStruct):
    """Triangulated points and how well they explain what was seen."""

    points: Float[Tensor, "*batch points 3"]
    """World axes, metres; NaN where not `valid`."""
    valid: Bool[Tensor, "*batch points"]
    """Seen by at least two cameras whose rays meet before them, and not rejected."""
    error_px: Float[Tensor, "*batch points"]
    """Root mean square distance of seen and projected point, weighted by confidence; also of rejected points."""
    view_error_px: Float[Tensor, "*batch points views"]
    """The distance in each view; NaN where the view does not see the point, or there is no point."""


@torch.no_grad()
def triangulate(
    cameras: PerspectiveCamera,
    points_px: Float[Tensor, "views *batch points 2"],
    confidence: Float[Tensor, "views *batch points"],
    *,
    max_error_px: float | None = None,
) -> Triangulation:
    """The points of space that best explain what the cameras see.

    The start is linear least squares, weighted by confidence (Hartley and Zisserman, Multiple View Geometry, Sec.
    12.2, the inhomogeneous form). Gauss-Newton steps on the reprojection error follow; a step that does not
    lower the error of its point is not taken. Computed in float64, without gradient.

    Args:
        cameras: one batch axis, the views.
        points_px: pixels as the cameras saw them, distorted. Not finite counts as not seen.
        confidence: weights of the squared errors, 0 or more; 0 is not seen.
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
    seen_px = points_px.double().flatten(1, -2)
    weight = confidence.double().flatten(1)
    rays = exact.undistort(seen_px)
    weight = torch.where((weight > 0) & rays.isfinite().all(-1), weight, 0.0)
    points, determined = _linear(exact, rays, weight)
    determined &= (weight > 0).sum(0) >= 2
    points = _refined(exact, points, seen_px, weight, determined)

    gap = torch.linalg.vector_norm(_project(exact, points) - seen_px, dim=-1)
    # Before every camera that sees it: behind one of them the projection is NaN, and the error with it.
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
    """Where the rays nearly meet, and whether they determine a point at all."""
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
    seen_px: Float[Tensor, "views n 2"],
    weight: Float[Tensor, "views n"],
    determined: Bool[Tensor, " n"],
) -> Float[Tensor, "n 3"]:
    used = weight[..., None] > 0

    def misses(where: Tensor) -> Tensor:
        return torch.where(used, seen_px - _project(cameras, where), 0.0)

    def cost(miss: Tensor) -> Tensor:
        return (weight * miss.square().sum(-1)).sum(0)

    miss = misses(points)
    for _ in range(REFINING_STEPS):
        jacobian = cameras.projection_jacobian(points.expand(len(weight), -1, -1))
        jacobian = torch.where(used[..., None], jacobian, 0.0)
        normal = einsum(weight, jacobian, jacobian, "v n, v n r a, v n r b -> n a b")
        right = einsum(weight, jacobian, miss, "v n, v n r a, v n r -> n a")
        usable = determined & normal.isfinite().all(-1).all(-1)
        normal = torch.where(usable[:, None, None], normal, torch.eye(3).to(normal))
        step, _ = torch.linalg.solve_ex(normal, right[..., None])
        moved = points + step[..., 0]
        missed = misses(moved)
        # NaN, which is behind a camera, is no gain either.
        better = cost(missed) < cost(miss)
        points = torch.where(better[:, None], moved, points)
        miss = torch.where(better[:, None], missed, miss)
    return points


def _project(cameras: PerspectiveCamera, points: Float[Tensor, "n 3"]) -> Float[Tensor, "views n 2"]:
    return cameras.project(points.expand(len(cameras.K), -1, -1))
