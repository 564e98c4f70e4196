"""Iterative closest points (ICP): a mesh aligned to the points of a scan."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuface.errors import InputError
from neuface.geometry.closest_points import ClosestPoints, closest_on_mesh
from neuface.geometry.meshes import face_normals
from neuface.geometry.rotations import rotvec_to_rotmat

__all__ = ["align_mesh_to_points"]

# Distances below this share of the points' extent count as contact: the direction to the surface is rounding there,
# so the residual is measured along the surface normal.
CONTACT = 1e-9
# Relative decrease of the root mean square distance that a step must reach to be accepted.
SMALLEST_GAIN = 1e-5
# Root mean square distance, as a share of the points' extent, below which the iteration stops: it is rounding.
ROUNDING = 1e-8
# Damping of the normal matrix (Levenberg and Marquardt), relative to a direction in which every point has its full
# effect: that of a first attempt, the factor after a step that was not accepted, and the largest that is tried.
LEAST_DAMPING, DAMPING_FACTOR, MOST_DAMPING = 1e-4, 100.0, 1.0
# Upper bound of the number of steps, accepted or not.
MOST_STEPS = 60
# Lower bound of the number of points: a similarity has seven parameters.
FEWEST_POINTS = 7


def align_mesh_to_points(
    vertices: Float[Tensor, "vertices 3"],
    faces: Int[Tensor, "faces 3"],
    points: Float[Tensor, "points 3"],
    *,
    with_scale: bool = False,
) -> Float[Tensor, "vertices 3"]:
    """The mesh after the rigid motion (or similarity) that minimises the squared distances of points to its surface.

    Damped Gauss-Newton steps on the distances to the exact closest points, each measured along the direction from
    the surface to the point (Chen and Medioni 1992; Fitzgibbon 2003). The minimum that is found is a local one, so
    the mesh must start near the points: align landmarks first. Every accepted step lowers the root mean square
    distance.

    Args:
        vertices, points: in one unit; the computation is in float64 on the CPU.
        with_scale: whether the mesh's size is estimated too. The points keep theirs, and with it the unit of
            distances.

    Raises:
        InputError: fewer than 7 points, no triangles, or a coordinate that is not finite.
    """
    if len(points) < FEWEST_POINTS:
        raise InputError(f"aligning a mesh needs at least {FEWEST_POINTS} points, got {len(points)}")
    target = points.detach().cpu().double()
    triangles = faces.cpu().long()
    kept = vertices.detach().cpu().double()
    nearest = closest_on_mesh(target, kept, triangles)
    enough = ROUNDING * float((target - target.mean(0)).abs().amax())
    damping = LEAST_DAMPING
    for _ in range(MOST_STEPS):
        if _rms(nearest) <= enough:
            break
        moved = _step(kept, triangles, target, nearest, with_scale, damping)
        found = closest_on_mesh(target, moved, triangles)
        if _rms(found) < _rms(nearest) * (1 - SMALLEST_GAIN):
            kept, nearest, damping = moved, found, LEAST_DAMPING
            continue
        damping *= DAMPING_FACTOR
        if damping > MOST_DAMPING:
            break
    return kept.to(vertices)


def _rms(nearest: ClosestPoints) -> float:
    return float(nearest.distance.square().mean().sqrt())


def _step(
    vertices: Float[Tensor, "vertices 3"],
    faces: Int[Tensor, "faces 3"],
    points: Float[Tensor, "points 3"],
    nearest: ClosestPoints,
    with_scale: bool,
    damping: float,
) -> Float[Tensor, "vertices 3"]:
    """The mesh after one damped Gauss-Newton step on its distances to the points."""
    origin = nearest.position.mean(0)
    lever, gap = nearest.position - origin, points - nearest.position
    extent = torch.linalg.vector_norm(lever, dim=-1).amax()
    touching = nearest.distance <= CONTACT * extent
    away = torch.where(
        touching[:, None],
        face_normals(vertices, faces)[nearest.face],
        gap / nearest.distance.clamp(min=torch.finfo(gap.dtype).tiny)[:, None],
    )
    # The unknowns are in units of the extent, so that angles, translation and scale are of one order of magnitude.
    columns = [torch.linalg.cross(lever, away) / extent, away]
    if with_scale:
        columns.append((lever * away).sum(-1, keepdim=True) / extent)
    system = torch.cat(columns, -1)
    # Damping also keeps the mesh from sliding in directions that the points do not constrain, as along a plane.
    normal_matrix = system.mT @ system + damping * len(points) * torch.eye(
        system.shape[-1], dtype=system.dtype
    )
    solution = torch.linalg.solve(normal_matrix, (system * (gap * away).sum(-1, keepdim=True)).sum(0))
    rotation = rotvec_to_rotmat(solution[:3] / extent)
    scale = torch.exp(solution[6] / extent) if with_scale else 1.0
    return scale * (vertices - origin) @ rotation.mT + origin + solution[3:6]
