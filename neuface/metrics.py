"""The yardsticks on one page, with their units.

Points are metres unless a name says pixels. `valid` tells the frames that count. A figure is NaN where there is
nothing to take it from. Less is better, but for the stability index (more) and the kept shares (1 is best).
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import Literal, get_args

import roma
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuface.errors import InputError
from neuface.geometry.alignment import align_points
from neuface.geometry.closest_points import closest_on_mesh
from neuface.geometry.icp import align_mesh_to_points
from neuface.geometry.rotations import rotation_angle_rad

Spread = Literal["variance", "std"]
LengthUnit = Literal["mm", "m"]
Alignment = Literal["none", "rigid", "similarity"]

# Accelerations below a micrometre per frame^2 are rounding, not motion; they bound the stability index.
MSI_FLOOR_MM = 1e-3
# Millimetres or degrees per frame below which a truth stands still, so that there is no motion to keep.
STILL_PER_FRAME = 1e-3

# iBUG-68: the points of the inner upper lip, right to left, and those of the lower lip below them.
UPPER_LIP_IBUG68 = (61, 62, 63)
LOWER_LIP_IBUG68 = (67, 66, 65)


# --- In the image


def nme_percent(
    points_px: Float[Tensor, "*batch points 2"],
    observed_px: Float[Tensor, "*batch points 2"],
    confidence: Float[Tensor, "*batch points"],
    normaliser_px: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch"]:
    """Normalised mean error of each image, in percent of a length in that image.

    The mean is over points with positive confidence. NaN where there is no point or no length.

    Args:
        normaliser_px: the distance of the outer eye corners (Sagonas et al., 2016, whom the paper cites), or
            `box_length_px`, which does not shrink to nothing in profiles. 0 where it is not known.
    """
    distance = torch.linalg.vector_norm(points_px - observed_px, dim=-1)
    seen = (confidence > 0).to(distance.dtype)
    mean = (distance * seen).sum(-1) / seen.sum(-1)
    return torch.where(normaliser_px > 0, 100 * mean / normaliser_px, torch.nan)


def box_length_px(
    observed_px: Float[Tensor, "*batch points 2"], confidence: Float[Tensor, "*batch points"]
) -> Float[Tensor, "*batch"]:
    """sqrt(width * height) of the box around the points with positive confidence; 0 where there is none.

    The other usual length for `nme_percent` (Bulat & Tzimiropoulos, ICCV 2017).
    """
    seen = (confidence > 0)[..., None]
    lowest = torch.where(seen, observed_px, torch.inf).amin(-2)
    highest = torch.where(seen, observed_px, -torch.inf).amax(-2)
    return (highest - lowest).clamp(min=0).prod(-1).sqrt()


# --- Over time


def msi3d(
    points: Float[Tensor, "*views time points 3"],
    *,
    spread: Spread = "variance",
    unit: LengthUnit = "mm",
    fps: float | None = None,
) -> Float[Tensor, ""]:
    """Motion stability index MSI3D (paper, Sec. 4): the mean over points of 1 / spread of acceleration over time.

    Accelerations are second differences; the variance is that of the vector (summed over its axes), its root is the
    standard deviation. A motionless point counts as MSI_FLOOR_MM of noise per frame^2, in every unit. Mean over
    views. NaN for fewer than four frames. The paper tells no unit: its values compare with none of these.

    | spread                            | unit="mm"      | unit="m"      |
    |-----------------------------------|----------------|---------------|
    | "variance", as the paper calls it | frame^4 / mm^2 | frame^4 / m^2 |
    | "std"                             | frame^2 / mm   | frame^2 / m   |

    Args:
        fps: frames per second; accelerations are then per s^2, and s is in the place of frame in every unit. Without
            it, compare runs on one clip only.

    Raises:
        InputError: another `spread` or `unit`, or `fps` is not a positive number.
    """
    _check_option("spread", spread, Spread)
    _check_option("unit", unit, LengthUnit)
    units_per_mm = (1e-3 if unit == "m" else 1.0) * _frames_per_unit(fps) ** 2
    if points.shape[-3] < 4:
        return points.new_tensor(torch.nan)
    variance = _second_differences(1000 * points.double()).var(dim=-3, correction=0).sum(-1)
    variance = variance.clamp(min=MSI_FLOOR_MM**2) * units_per_mm**2
    return (1 / (variance if spread == "variance" else variance.sqrt())).mean().to(points.dtype)


def jitter_mm(
    points: Float[Tensor, "*views time points 3"], valid: Bool[Tensor, "*views time"]
) -> Float[Tensor, ""]:
    """Mean length of the second difference over time of points in space (metres), in mm per frame^2.

    Over points and over all frames that are valid and have valid neighbours. NaN when there is none.
    """
    return 1000 * _jitter(points, valid)


def jitter_px(
    points_px: Float[Tensor, "*views time points 2"], valid: Bool[Tensor, "*views time"]
) -> Float[Tensor, ""]:
    """`jitter_mm` for points in the image: pixels per frame^2."""
    return _jitter(points_px, valid)


# --- Motion against truth


def angular_velocity_error_deg(
    root_rotvec: Float[Tensor, "*views time 3"],
    truth_rotvec: Float[Tensor, "*views time 3"],
    valid: Bool[Tensor, "*views time"],
    *,
    fps: float | None = None,
) -> Float[Tensor, ""]:
    """Error of the head's turning: degrees per frame, or per second when `fps` is given.

    The angle between the predicted and the true rotation from each frame to the next, mean over pairs of valid
    frames. It is taken in camera axes: another neutral pose, the same in every frame, costs nothing.

    Args:
        root_rotvec, truth_rotvec: orientation of the head, radians.

    Raises:
        InputError: `fps` is not a positive number.
    """
    error = rotation_angle_rad(_turns_rad(root_rotvec), _turns_rad(truth_rotvec)).rad2deg()
    return (error[_pairs(valid)].mean() * _frames_per_unit(fps)).to(root_rotvec.dtype)


def turning_kept_share(
    root_rotvec: Float[Tensor, "*views time 3"],
    truth_rotvec: Float[Tensor, "*views time 3"],
    valid: Bool[Tensor, "*views time"],
) -> Float[Tensor, ""]:
    """How much of the head's true turning is in the prediction: 1 all, 0.5 half as fast, 0 none.

    The slope of the least-squares line through the origin of predicted on true angular velocity. Velocities are
    vectors: noise of the prediction adds to speeds, not to the share. NaN when the truth stands still.
    """
    found, true = _turns_rad(root_rotvec).rad2deg(), _turns_rad(truth_rotvec).rad2deg()
    return _kept_share(found, true, _pairs(valid)).to(root_rotvec.dtype)


def lip_opening_mm(points: Float[Tensor, "*batch 68 3"]) -> Float[Tensor, "*batch"]:
    """How far the mouth is open: mean distance of the three middle pairs of inner-lip points (iBUG-68), mm."""
    upper, lower = points[..., list(UPPER_LIP_IBUG68), :], points[..., list(LOWER_LIP_IBUG68), :]
    return 1000 * torch.linalg.vector_norm(upper - lower, dim=-1).mean(-1)


def lip_opening_error_mm(
    points: Float[Tensor, "*views time 68 3"],
    truth: Float[Tensor, "*views time 68 3"],
    valid: Bool[Tensor, "*views time"],
) -> Float[Tensor, ""]:
    """Mean absolute difference of the lip opening to the true one, over valid frames, mm."""
    return (lip_opening_mm(points) - lip_opening_mm(truth)).abs()[valid].mean()


def lip_motion_kept_share(
    points: Float[Tensor, "*views time 68 3"],
    truth: Float[Tensor, "*views time 68 3"],
    valid: Bool[Tensor, "*views time"],
) -> Float[Tensor, ""]:
    """`turning_kept_share` for the change of the lip opening from frame to frame.

    Lips that are always too far apart cost nothing. NaN when the true lips stand still.
    """
    found, true = (lip_opening_mm(item.double()).diff(dim=-1)[..., None] for item in (points, truth))
    return _kept_share(found, true, _pairs(valid)).to(points.dtype)


# --- Between the views and images of a clip


def cvd_matrix_mm(
    vertices: Float[Tensor, "views time vertices 3"], valid: Bool[Tensor, "views time"]
) -> Float[Tensor, "views views"]:
    """Cross-view vertex distance of every pair of views, in millimetres.

    Mean Euclidean distance between the unposed meshes (root rotation zeroed) of two views at one time, over vertices
    and the times at which both see the face; NaN when there is none. 0 on the diagonal. (The paper's norm is L1.)
    """
    totals, counts = _view_distances_mm(vertices, valid)
    return (totals / counts).fill_diagonal_(0.0).to(vertices.dtype)


def cvd_mm(
    vertices: Float[Tensor, "views time vertices 3"], valid: Bool[Tensor, "views time"]
) -> Float[Tensor, ""]:
    """Cross-view vertex distance (paper, Sec. 4), in millimetres: mean of `cvd_matrix_mm` over pairs of views.

    Pairs of views count by the number of times they share. NaN when none shares any.
    """
    totals, counts = _view_distances_mm(vertices, valid)
    return (totals.triu().sum() / counts.triu().sum()).to(vertices.dtype)


def cvd_per_view_mm(
    vertices: Float[Tensor, "views time vertices 3"], valid: Bool[Tensor, "views time"]
) -> Float[Tensor, " views"]:
    """Cross-view vertex distance of each view to all the others (paper, Fig. S3), in millimetres.

    Weighted as `cvd_mm`. NaN for a view that shares no time with another.
    """
    totals, counts = _view_distances_mm(vertices, valid)
    return (totals.sum(1) / counts.sum(1)).to(vertices.dtype)


def identity_drift_mm(vertices: Float[Tensor, "images vertices 3"]) -> Float[Tensor, ""]:
    """How far the images of one clip disagree about the person: mean distance to the mean mesh, mm, unaligned.

    Args:
        vertices: each image's neutral mesh: its identity, unposed, without expression.
    """
    away = vertices.double() - vertices.double().mean(0)
    return 1000 * torch.linalg.vector_norm(away, dim=-1).mean().to(vertices.dtype)


def identity_code_std(identity: Float[Tensor, "images identity"]) -> Float[Tensor, ""]:
    """Standard deviation over the images of one clip of each identity coefficient, mean over coefficients.

    In units of the head model's coefficients. The paper plots it over the iterations of a fit (Table S3b).
    """
    return identity.double().std(dim=0, correction=0).mean().to(identity.dtype)


# --- Shape against truth


def mpve_mm(
    vertices: Float[Tensor, "*batch vertices 3"],
    truth: Float[Tensor, "*batch vertices 3"],
    where: Bool[Tensor, " vertices"] | None = None,
    *,
    alignment: Alignment = "rigid",
) -> Float[Tensor, ""]:
    """Mean per-vertex error, in millimetres of the truth.

    Args:
        where: the vertices that are aligned and counted; all when None.
        alignment: of each mesh to its truth by least squares; after a "similarity" size does not count.

    Raises:
        InputError: an `alignment` that is not one of these.
    """
    _check_option("alignment", alignment, Alignment)
    if where is not None:
        vertices, truth = vertices[..., where, :], truth[..., where, :]
    if alignment != "none":
        vertices = align_points(vertices, truth, with_scale=alignment == "similarity")
    return 1000 * torch.linalg.vector_norm(vertices - truth, dim=-1).mean()


def landmark_distances_mm(
    points: Float[Tensor, "*images points 3"],
    truth: Float[Tensor, "*images points 3"],
    known: Bool[Tensor, "*images points"],
) -> Float[Tensor, "*images points"]:
    """Distance of every 3D landmark to the true one after one similarity for the whole clip, mm of the truth.

    One rotation, shift and scale for all images together, by least squares over the known points: neither jitter
    nor motion is aligned away. Take the median and the mean over what is not NaN.

    Args:
        points: in axes that stay the same through the clip.
        truth: such as triangulated points, with any value where `known` is False.
        known: the points that are aligned and measured; the others are NaN.

    Raises:
        InputError: fewer than 3 known points, or a known coordinate that is not finite.
    """
    found, true = points[known].double(), truth[known].double()
    if len(found) < 3:
        raise InputError(f"a similarity needs at least 3 points known in both, got {len(found)}")
    if not bool((found + true).isfinite().all()):
        raise InputError("a known landmark is not finite: mark points without a position as not known")
    errors = torch.linalg.vector_norm(align_points(found, true, with_scale=True) - true, dim=-1)
    distances = torch.full_like(points[..., 0], torch.nan)
    distances[known] = 1000 * errors.to(points.dtype)
    return distances


def scan_to_mesh_mm(
    scan_points: Float[Tensor, "points 3"],
    scan_landmarks: Float[Tensor, "landmarks 3"],
    vertices: Float[Tensor, "vertices 3"],
    faces: Int[Tensor, "faces 3"],
    mesh_landmarks: Float[Tensor, "landmarks 3"],
    *,
    with_scale: bool = False,
) -> Float[Tensor, " points"]:
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


# --- Shared


def _second_differences(points: Float[Tensor, "*views time points axes"]) -> Tensor:
    return points[..., 2:, :, :] - 2 * points[..., 1:-1, :, :] + points[..., :-2, :, :]


def _jitter(
    points: Float[Tensor, "*views time points axes"], valid: Bool[Tensor, "*views time"]
) -> Float[Tensor, ""]:
    length = torch.linalg.vector_norm(_second_differences(points.double()), dim=-1)
    return length[_pairs(_pairs(valid))].mean().to(points.dtype)


def _pairs(valid: Bool[Tensor, "*views time"]) -> Bool[Tensor, "*views pairs"]:
    """Which neighbours in time are both valid; applied twice, which three."""
    return valid[..., 1:] & valid[..., :-1]


def _turns_rad(rotvec: Float[Tensor, "*views time 3"]) -> Float[Tensor, "*views pairs 3"]:
    """The rotation from each frame to the next, as a rotation vector in the outer (camera) axes."""
    return roma.rotvec_composition((rotvec[..., 1:, :].double(), -rotvec[..., :-1, :].double()))


def _kept_share(
    found: Float[Tensor, "*steps axes"], true: Float[Tensor, "*steps axes"], counted: Bool[Tensor, "*steps"]
) -> Float[Tensor, ""]:
    found, true = found[counted], true[counted]
    speed_squared = true.square().sum(-1).mean()
    share = (found * true).sum(-1).mean() / speed_squared
    return torch.where(speed_squared > STILL_PER_FRAME**2, share, torch.nan)


def _view_distances_mm(
    vertices: Float[Tensor, "views time vertices 3"], valid: Bool[Tensor, "views time"]
) -> tuple[Float[Tensor, "views views"], Float[Tensor, "views views"]]:
    """Of every two views: the sum over shared times of the mean vertex distance, and the number of such times."""
    totals = vertices.new_zeros((len(vertices), len(vertices)), dtype=torch.float64)
    counts = torch.zeros_like(totals)
    for first, second in combinations(range(len(vertices)), 2):
        both = valid[first] & valid[second]
        distance = torch.linalg.vector_norm(vertices[first, both] - vertices[second, both], dim=-1)
        totals[first, second] = 1000 * distance.mean(-1).double().sum()
        counts[first, second] = both.sum()
    return totals + totals.mT, counts + counts.mT


def _frames_per_unit(fps: float | None) -> float:
    if fps is None:
        return 1.0
    if not (math.isfinite(fps) and fps > 0):
        raise InputError(f"fps must be a positive number of frames per second, or None, got {fps}")
    return float(fps)


def _check_option(name: str, value: str, allowed: object) -> None:
    if value not in get_args(allowed):
        raise InputError(f"{name} must be one of {', '.join(map(repr, get_args(allowed)))}, got {value!r}")
