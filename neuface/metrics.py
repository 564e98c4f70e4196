"""The yardsticks on one page, with their units. Lower is better, but for the motion stability index."""

from __future__ import annotations

from itertools import combinations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuface.geometry.alignment import align_points
from neuface.geometry.closest_points import closest_on_mesh
from neuface.geometry.icp import align_mesh_to_points

# Accelerations below a micrometre per frame^2 are rounding, not motion; they bound the stability index.
MSI_FLOOR_MM = 1e-3


def nme_percent(
    points_px: Float[Tensor, "*batch points 2"],
    observed_px: Float[Tensor, "*batch points 2"],
    confidence: Float[Tensor, "*batch points"],
    eye_distance_px: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch"]:
    """Normalised mean error of each image, in percent of the distance between the outer eye corners.

    The mean is over points with positive confidence. NaN where there is no point or no eye distance.
    """
    distance = torch.linalg.vector_norm(points_px - observed_px, dim=-1)
    seen = (confidence > 0).to(distance.dtype)
    mean = (distance * seen).sum(-1) / seen.sum(-1)
    return torch.where(eye_distance_px > 0, 100 * mean / eye_distance_px, torch.nan)


def msi3d(points: Float[Tensor, "*views time points 3"]) -> Float[Tensor, ""]:
    """Motion stability index MSI3D (paper, Sec. 4): the mean over points of 1 / variance of acceleration.

    Accelerations are second differences in mm per frame^2; the variance over time is that of the vector (summed
    over its axes), so the unit is (mm / frame^2)^-2. A motionless point counts as MSI_FLOOR_MM of noise. Mean
    over views. Depends on the frame rate: compare runs on one clip only. NaN for fewer than four frames.
    """
    if points.shape[-3] < 4:
        return points.new_tensor(torch.nan)
    millimetres = 1000 * points.double()
    acceleration = millimetres[..., 2:, :, :] - 2 * millimetres[..., 1:-1, :, :] + millimetres[..., :-2, :, :]
    variance = acceleration.var(dim=-3, correction=0).sum(-1)
    return (1 / variance.clamp(min=MSI_FLOOR_MM**2)).mean().to(points.dtype)


def cvd_mm(
    vertices: Float[Tensor, "views time vertices 3"], valid: Bool[Tensor, "views time"]
) -> Float[Tensor, ""]:
    """Cross-view vertex distance (paper, Sec. 4), in millimetres.

    Mean distance between the unposed meshes (root rotation zeroed) of two views at one time, over vertices, times
    and all pairs of views that both see the face. NaN when no pair does.
    """
    total, count = vertices.new_zeros((), dtype=torch.float64), 0
    for first, second in combinations(range(vertices.shape[0]), 2):
        both = valid[first] & valid[second]
        distance = torch.linalg.vector_norm(vertices[first, both] - vertices[second, both], dim=-1)
        total += distance.mean(-1).double().sum()
        count += int(both.sum())
    return (1000 * total / count).to(vertices.dtype) if count else vertices.new_tensor(torch.nan)


def mpve_mm(
    vertices: Float[Tensor, "*batch vertices 3"],
    truth: Float[Tensor, "*batch vertices 3"],
    where: Bool[Tensor, "vertices"] | None = None,
    *,
    with_scale: bool = False,
) -> Float[Tensor, ""]:
    """Mean per-vertex error after the best rigid alignment of each mesh, in millimetres.

    Args:
        vertices, truth: metres.
        where: the vertices that are aligned and counted; all when None.
        with_scale: align by the best similarity, so that size does not count; millimetres of the truth.
    """
    if where is not None:
        vertices, truth = vertices[..., where, :], truth[..., where, :]
    aligned = align_points(vertices, truth, with_scale=with_scale)
    return 1000 * torch.linalg.vector_norm(aligned - truth, dim=-1).mean()


def scan_to_mesh_mm(
    scan_points: Float[Tensor, "points 3"],
    scan_landmarks: Float[Tensor, "landmarks 3"],
    vertices: Float[Tensor, "vertices 3"],
    faces: Int[Tensor, "faces 3"],
    mesh_landmarks: Float[Tensor, "landmarks 3"],
    *,
    with_scale: bool = False,
) -> Float[Tensor, "points"]:
    """Distance of every scan point to the surface of a predicted mesh, in millimetres.

    As in the NoW benchmark (Sanyal et al., CVPR 2019): the mesh is aligned to the scan by a few landmarks, then by
    all scan points (iterative closest points), then the exact distance from each point to the nearest triangle
    is taken. The mesh moves, not the scan, so the millimetres are the scan's.

    Args:
        scan_points: metres; the part of the scan that counts, such as the face.
        scan_landmarks, mesh_landmarks: metres, the same points in the same order on both; NoW takes the corners of
            both eyes, the base of the nose and the corners of the mouth.
        vertices: metres, in any position.
        faces: corner indices.
        with_scale: also find the mesh's size, in both steps; else it counts as it is, as in "metrical" comparisons.

    Raises:
        InputError: fewer than 7 scan points, no triangles, or a coordinate that is not finite.
    """
    source = torch.cat((mesh_landmarks, vertices)).double()
    target = torch.cat((scan_landmarks, torch.zeros_like(vertices))).double()
    deciding = (torch.arange(len(source), device=source.device) < len(mesh_landmarks)).double()
    started = align_points(source, target, with_scale=with_scale, fit_on=deciding)[len(mesh_landmarks) :]
    near = align_mesh_to_points(started, faces, scan_points.double(), with_scale=with_scale)
    return 1000 * closest_on_mesh(scan_points.double(), near, faces).distance.to(scan_points)
