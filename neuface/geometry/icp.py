"""Iterative closest points: a mesh moved onto the points of a scan."""

from __future__ import annotations

import roma
import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuface.errors import InputError
from neuface.geometry.closest_points import ClosestPoints, closest_on_mesh
from neuface.geometry.meshes import face_normals

__all__ = ["align_mesh_to_points"]

# Nearer than this share of the points' extent, the direction to the surface is rounding: its normal is used.
CONTACT = 1e-9
# A step must lower the root mean square distance by this share; less is no gain.
SMALLEST_GAIN = 1e-5
# Root mean square distances below this share of the points' extent are rounding: there is nothing left to gain.
ROUNDING = 1e-8
# Relative to a direction in which every point counts fully. A step without gain is tried again more cautiously.
LEAST_DAMPING, MORE_DAMPING, MOST_DAMPING = 1e-4, 100.0, 1.0
MOST_STEPS = 60
FEWEST_POINTS = 7


def align_mesh_to_points(
    vertices: Float[Tensor, "vertices 3"],
    faces: Int[Tensor, "faces 3"],
    points: Float[Tensor, "points 3"],
    *,
    with_scale: bool = False,
) -> Float[Tensor, "vertices 3"]:
    """The mesh turned and shifted (and scaled) so that the points' distances to its surface are least (squares).

    Damped Gauss-Newton steps on the distances to the exact closest points, each along the direction from the
    surface to the point (Chen and Medioni 1992; Fitzgibbon 2003). The mesh must start near: align landmarks first.
    Every step that is kept lowers the root mean square distance.

    Args:
        vertices, points: in one unit; computed in float64 on the CPU.
        with_scale: also find the mesh's size; the points keep theirs, and with them the unit of distances.

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
        damping *= MORE_DAMPING
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
    """One least-squares motion of the mesh that closes the distances, to first order."""
    origin = nearest.position.mean(0)
    arm, gap = nearest.position - origin, points - nearest.position
    extent = torch.linalg.vector_norm(arm, dim=-1).amax()
    touching = nearest.distance <= CONTACT * extent
    away = torch.where(
        touching[:, None],
        face_normals(vertices, faces)[nearest.face],
        gap / nearest.distance.clamp(min=torch.finfo(gap.dtype).tiny)[:, None],
    )
    # Unknowns in units of the extent, so that angles, shifts and scale are of one order.
    columns = [torch.linalg.cross(arm, away) / extent, away]
    if with_scale:
        columns.append((arm * away).sum(-1, keepdim=True) / extent)
    system = torch.cat(columns, -1)
    # Damping also keeps the mesh in place where the points leave a motion undetermined, as along a plane.
    normal_matrix = system.mT @ system + damping * len(points) * torch.eye(
        system.shape[-1], dtype=system.dtype
    )
    solution = torch.linalg.solve(normal_matrix, (system * (gap * away).sum(-1, keepdim=True)).sum(0))
    rotation = roma.rotvec_to_rotmat(solution[:3] / extent)
    scale = torch.exp(solution[6] / extent) if with_scale else 1.0
    return scale * (vertices - origin) @ rotation.mT + origin + solution[3:6]
