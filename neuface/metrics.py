"""All metrics on one page, with their units.

Points are in metres unless a name contains pixels (`_px`). Only frames that are `valid` are used. A metric is NaN if
it is undefined for its input. Lower is better, except for the stability index (higher) and the kept shares (1 is
best).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuface.errors import InputError
from neuface.geometry.alignment import align_points
from neuface.geometry.closest_points import closest_on_mesh
from neuface.geometry.icp import align_mesh_to_points
from neuface.geometry.rotations import compose_rotvecs, rotation_angle_rad

Spread = Literal["variance", "std"]
LengthUnit = Literal["mm", "m"]
Alignment = Literal["none", "rigid", "similarity"]

# Lower bound of the standard deviation of acceleration, mm per frame^2; smaller values are rounding. It bounds the
# stability index from above.
MSI_FLOOR_MM = 1e-3
# Root mean square speed of the truth, in millimetres or degrees per frame, below which the kept shares are undefined.
STILL_PER_FRAME = 1e-3

# Points of the inner upper lip in iBUG-68, from the subject's right to left, and those of the lower lip below them.
UPPER_LIP_IBUG68 = (61, 62, 63)
LOWER_LIP_IBUG68 = (67, 66, 65)


# --- In the image


def nme_percent(
    points_px: Float[Tensor, "*batch points 2"],
    observed_px: Float[Tensor, "*batch points 2"],
    confidence: Float[Tensor, "*batch points"],
    normaliser_px: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch"]:
    """Normalised mean error (NME) of each image, in percent of a length in that image.

    The mean is over points with positive confidence. NaN if there is no such point or no length.

    Args:
        normaliser_px: the distance of the outer eye corners (Sagonas et al., 2016, cited in the paper), or
            `box_length_px`, which does not vanish in profiles. 0 where it is unknown.

    Example:
        >>> points = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
        >>> nme_percent(points, torch.zeros(2, 2), torch.ones(2), torch.tensor(50.0))  # distances 5 and 0 px
        tensor(5.)
    """
    distance = torch.linalg.vector_norm(points_px - observed_px, dim=-1)
    seen = (confidence > 0).to(distance.dtype)
    mean = (distance * seen).sum(-1) / seen.sum(-1)
    return torch.where(normaliser_px > 0, 100 * mean / normaliser_px, torch.nan)


def box_length_px(
    observed_px: Float[Tensor, "*batch points 2"], confidence: Float[Tensor, "*batch points"]
) -> Float[Tensor, "*batch"]:
    """sqrt(width * height) of the bounding box of the points with positive confidence; 0 if there is none.

    This is the other common normaliser of `nme_percent` (Bulat & Tzimiropoulos, ICCV 2017).
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
    starts: Sequence[int] = (0,),
    frame_times: Sequence[float] | None = None,
) -> Float[Tensor, ""]:
    """Motion stability index MSI3D (paper, Sec. 4): the mean over points of 1 / spread of acceleration over time.

    Accelerations are second differences. The variance is that of the vector (summed over its axes), the standard
    deviation its root. The standard deviation of a motionless point is taken as MSI_FLOOR_MM per frame^2, whatever
    the unit. The index is averaged over views; it is NaN for fewer than two accelerations. The paper does not state a
    unit, so that its values cannot be compared with these.

    | spread                            | unit="mm"      | unit="m"      |
    |-----------------------------------|----------------|---------------|
    | "variance", as the paper calls it | frame^4 / mm^2 | frame^4 / m^2 |
    | "std"                             | frame^2 / mm   | frame^2 / m   |

    Args:
        fps: frames per second. If given, accelerations are per s^2, and s replaces frame in every unit. Without it,
            only results on the same clip are comparable.
        starts: the first frames of the shots; there is no acceleration across a cut.
        frame_times: when each frame was taken, in units of a frame; None if they are evenly spaced. Of frames that
            are not, the acceleration is the second divided difference, doubled.

    Raises:
        InputError: another `spread` or `unit`, or `fps` is not a positive number.
    """
    _check_option("spread", spread, Spread)
    _check_option("unit", unit, LengthUnit)
    units_per_mm = (1e-3 if unit == "m" else 1.0) * _frames_per_unit(fps) ** 2
    frame = torch.arange(points.shape[-3])
    shot = torch.searchsorted(torch.tensor(starts), frame, right=True)
    within = (shot[2:] == shot[:-2]).to(points.device)
    if int(within.sum()) < 2:
        return points.new_tensor(torch.nan)
    accelerations = _second_differences(1000 * points.double())
    if frame_times is not None:
        accelerations = _accelerations(1000 * points.double(), frame_times)
    accelerations = accelerations[..., within, :, :]
    variance = accelerations.var(dim=-3, correction=0).sum(-1)
    variance = variance.clamp(min=MSI_FLOOR_MM**2) * units_per_mm**2
    return (1 / (variance if spread == "variance" else variance.sqrt())).mean().to(points.dtype)


class MotionStability:
    """`msi3d` of a clip that is added piece by piece; sums are in float64."""

    def __init__(self) -> None:
        self._last: Tensor | None = None
        self._last_frame_times: tuple[float, ...] = ()
        self._sum: Tensor | None = None
        self._squares: Tensor | None = None
        self._count = 0

    def begin_shot(self) -> None:
        """The next piece is not the continuation of the last one."""
        self._last, self._last_frame_times = None, ()

    def add(
        self, points: Float[Tensor, "*views time points 3"], frame_times: Sequence[float] | None = None
    ) -> None:
        """The next frames, metres; `frame_times` as for `msi3d`."""
        joined = points if self._last is None else torch.cat((self._last, points), dim=-3)
        times = None if frame_times is None else (*self._last_frame_times, *frame_times)
        self._last, self._last_frame_times = joined[..., -2:, :, :], () if times is None else times[-2:]
        if joined.shape[-3] < 3:
            return
        points_mm = 1000 * joined.double()
        accelerations = _second_differences(points_mm) if times is None else _accelerations(points_mm, times)
        total, squares = accelerations.sum(-3), accelerations.square().sum(-3)
        self._sum = total if self._sum is None else self._sum + total
        self._squares = squares if self._squares is None else self._squares + squares
        self._count += accelerations.shape[-3]

    def msi3d(self) -> Float[Tensor, ""]:
        """The index, frame^4 / mm^2; NaN for fewer than two accelerations."""
        if self._sum is None or self._squares is None or self._count < 2:
            return torch.tensor(torch.nan)
        variance = (self._squares / self._count - (self._sum / self._count).square()).sum(-1)
        return (1 / variance.clamp(min=MSI_FLOOR_MM**2)).mean()


def jitter_mm(
    points: Float[Tensor, "*views time points 3"], valid: Bool[Tensor, "*views time"]
) -> Float[Tensor, ""]:
    """Mean length of the second difference over time of 3D points (metres), in mm per frame^2.

    The mean is over points and over the valid frames whose neighbours are valid; NaN if there is none.
    """
    return 1000 * _jitter(points, valid)


def jitter_px(
    points_px: Float[Tensor, "*views time points 2"], valid: Bool[Tensor, "*views time"]
) -> Float[Tensor, ""]:
    """`jitter_mm` for points in the image, in pixels per frame^2."""
    return _jitter(points_px, valid)


# --- Motion against truth


def angular_velocity_error_deg(
    root_rotvec: Float[Tensor, "*views time 3"],
    truth_rotvec: Float[Tensor, "*views time 3"],
    valid: Bool[Tensor, "*views time"],
    *,
    fps: float | None = None,
) -> Float[Tensor, ""]:
    """Error of the head's angular velocity, in degrees per frame, or per second if `fps` is given.

    It is the angle between the predicted and the true rotation from each frame to the next, averaged over pairs of
    valid frames. Rotations are in camera axes, so that a constant difference of the neutral pose has no effect.

    Args:
        root_rotvec, truth_rotvec: orientation of the head, radians.

    Raises:
        InputError: `fps` is not a positive number.
    """
    error = rotation_angle_rad(
        _frame_rotations_rad(root_rotvec), _frame_rotations_rad(truth_rotvec)
    ).rad2deg()
    return (error[_pairs(valid)].mean() * _frames_per_unit(fps)).to(root_rotvec.dtype)


def turning_kept_share(
    root_rotvec: Float[Tensor, "*views time 3"],
    truth_rotvec: Float[Tensor, "*views time 3"],
    valid: Bool[Tensor, "*views time"],
) -> Float[Tensor, ""]:
    """Share of the head's true rotational motion in the prediction: 1 is all of it, 0.5 half the speed, 0 none.

    It is the slope of the least-squares line through the origin of predicted against true angular velocity.
    Velocities are vectors, so that noise of the prediction increases its speed but not the share. NaN if the truth
    does not move.
    """
    found, true = _frame_rotations_rad(root_rotvec).rad2deg(), _frame_rotations_rad(truth_rotvec).rad2deg()
    return _kept_share(found, true, _pairs(valid)).to(root_rotvec.dtype)


def lip_opening_mm(points: Float[Tensor, "*batch 68 3"]) -> Float[Tensor, "*batch"]:
    """Opening of the mouth: mean distance of the three middle pairs of inner-lip points (iBUG-68), mm."""
    upper, lower = points[..., list(UPPER_LIP_IBUG68), :], points[..., list(LOWER_LIP_IBUG68), :]
    return 1000 * torch.linalg.vector_norm(upper - lower, dim=-1).mean(-1)


def lip_opening_error_mm(
    points: Float[Tensor, "*views time 68 3"],
    truth: Float[Tensor, "*views time 68 3"],
    valid: Bool[Tensor, "*views time"],
) -> Float[Tensor, ""]:
    """Mean absolute error of the lip opening over valid frames, mm."""
    return (lip_opening_mm(points) - lip_opening_mm(truth)).abs()[valid].mean()


def lip_motion_kept_share(
    points: Float[Tensor, "*views time 68 3"],
    truth: Float[Tensor, "*views time 68 3"],
    valid: Bool[Tensor, "*views time"],
) -> Float[Tensor, ""]:
    """`turning_kept_share` for the change of the lip opening from frame to frame.

    A constant error of the opening has no effect. NaN if the true lips do not move.
    """
    found, true = (lip_opening_mm(item.double()).diff(dim=-1)[..., None] for item in (points, truth))
    return _kept_share(found, true, _pairs(valid)).to(points.dtype)


# --- Between the views and images of a clip


def cvd_matrix_mm(
    vertices: Float[Tensor, "views time vertices 3"], valid: Bool[Tensor, "views time"]
) -> Float[Tensor, "views views"]:
    """Cross-view vertex distance (CVD) of every pair of views, in millimetres.

    It is the mean Euclidean distance between the unposed meshes (root rotation zeroed) of two views, over vertices
    and over the frames that are valid in both; NaN if there is none, 0 on the diagonal. (The paper uses the L1
    norm.)
    """
    totals, counts = _view_distances_mm(vertices, valid)
    return (totals / counts).fill_diagonal_(0.0).to(vertices.dtype)


class ViewDistances:
    """`cvd_mm` of a clip that is added piece by piece."""

    def __init__(self) -> None:
        self._totals: Tensor | None = None
        self._counts: Tensor | None = None

    def add(
        self, vertices: Float[Tensor, "views time vertices 3"], valid: Bool[Tensor, "views time"]
    ) -> None:
        """Some frames."""
        totals, counts = _view_distances_mm(vertices, valid)
        self._totals = totals if self._totals is None else self._totals + totals
        self._counts = counts if self._counts is None else self._counts + counts

    def cvd_mm(self) -> Float[Tensor, ""]:
        """The distance, mm; NaN if no frame is valid in two views."""
        if self._totals is None or self._counts is None:
            return torch.tensor(torch.nan)
        return self._totals.triu().sum() / self._counts.triu().sum()


def cvd_mm(
    vertices: Float[Tensor, "views time vertices 3"], valid: Bool[Tensor, "views time"]
) -> Float[Tensor, ""]:
    """Cross-view vertex distance (paper, Sec. 4), in millimetres: mean of `cvd_matrix_mm` over pairs of views.

    Pairs of views are weighted by the number of frames that are valid in both. NaN if there is none.
    """
    totals, counts = _view_distances_mm(vertices, valid)
    return (totals.triu().sum() / counts.triu().sum()).to(vertices.dtype)


def cvd_per_view_mm(
    vertices: Float[Tensor, "views time vertices 3"], valid: Bool[Tensor, "views time"]
) -> Float[Tensor, " views"]:
    """Cross-view vertex distance of each view to all others (paper, Fig. S3), in millimetres.

    The weights are those of `cvd_mm`. NaN for a view that shares no valid frame with another.
    """
    totals, counts = _view_distances_mm(vertices, valid)
    return (totals.sum(1) / counts.sum(1)).to(vertices.dtype)


def identity_drift_mm(vertices: Float[Tensor, "images vertices 3"]) -> Float[Tensor, ""]:
    """Disagreement of the images of a clip about the identity: mean distance to the mean mesh, mm, not aligned.

    Args:
        vertices: each image's neutral mesh: the head of its identity code, unposed and without expression.
    """
    away = vertices.double() - vertices.double().mean(0)
    return 1000 * torch.linalg.vector_norm(away, dim=-1).mean().to(vertices.dtype)


def identity_code_std(identity: Float[Tensor, "images identity"]) -> Float[Tensor, ""]:
    """Standard deviation of each identity coefficient over the images of a clip, averaged over coefficients.

    It is in units of the head model's coefficients. The paper plots it over the iterations of a fit (Table S3b).
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
    """Mean per-vertex error (MPVE), in millimetres of the truth.

    Args:
        where: the vertices that are aligned and measured; all when None.
        alignment: least-squares alignment of each mesh to its truth. A "similarity" removes errors of size.

    Raises:
        InputError: an unknown `alignment`.

    Example:
        >>> cross = 0.1 * torch.cat((torch.eye(3), -torch.eye(3)))  # six points at 100 mm from their centre
        >>> round(float(mpve_mm(1.1 * cross, cross)), 3)
        10.0
        >>> round(float(mpve_mm(1.1 * cross, cross, alignment="similarity")), 3)
        0.0
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

    A single rotation, translation and scale, by least squares over the known points, aligns all images, so that
    neither jitter nor motion is removed. Summarise the result by the median or mean of the values that are not NaN.

    Args:
        points: in axes that are constant over the clip.
        truth: such as triangulated points, with any value where `known` is False.
        known: the points that are aligned and measured; the distances of the others are NaN.

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

    As in the NoW benchmark (Sanyal et al., CVPR 2019), the mesh is aligned to the scan by a few landmarks and then by
    all scan points (iterative closest points); the exact distance from each point to the nearest triangle follows.
    The mesh is moved and not the scan, so that the millimetres are the scan's.

    Args:
        scan_points: metres; the part of the scan that is measured, such as the face.
        scan_landmarks, mesh_landmarks: metres, the same points in the same order on both; NoW uses the corners of
            both eyes, the base of the nose and the corners of the mouth.
        vertices: metres, in any position.
        faces: corner indices.
        with_scale: whether both steps also estimate the mesh's size. Otherwise the predicted size is measured, as in
            "metrical" comparisons.

    Raises:
        InputError: fewer than 7 scan points, no triangles, or a coordinate that is not finite.
    """
    source = torch.cat((mesh_landmarks, vertices)).double()
    target = torch.cat((scan_landmarks, torch.zeros_like(vertices))).double()
    on_landmarks = (torch.arange(len(source), device=source.device) < len(mesh_landmarks)).double()
    by_landmarks = align_points(source, target, with_scale=with_scale, fit_on=on_landmarks)[
        len(mesh_landmarks) :
    ]
    aligned = align_mesh_to_points(by_landmarks, faces, scan_points.double(), with_scale=with_scale)
    return 1000 * closest_on_mesh(scan_points.double(), aligned, faces).distance.to(scan_points)


# --- Shared


def _second_differences(points: Float[Tensor, "*views time points axes"]) -> Tensor:
    return points[..., 2:, :, :] - 2 * points[..., 1:-1, :, :] + points[..., :-2, :, :]


def _accelerations(
    points: Float[Tensor, "*views time points axes"], frame_times: Sequence[float]
) -> Float[Tensor, "*views inner points axes"]:
    """Second derivatives by the real steps between frames."""
    steps = torch.tensor(frame_times, dtype=points.dtype, device=points.device).diff()[:, None, None]
    velocities = points.diff(dim=-3) / steps
    return velocities.diff(dim=-3) * 2 / (steps[1:] + steps[:-1])


def _jitter(
    points: Float[Tensor, "*views time points axes"], valid: Bool[Tensor, "*views time"]
) -> Float[Tensor, ""]:
    length = torch.linalg.vector_norm(_second_differences(points.double()), dim=-1)
    return length[_pairs(_pairs(valid))].mean().to(points.dtype)


def _pairs(valid: Bool[Tensor, "*views time"]) -> Bool[Tensor, "*views pairs"]:
    """Whether two neighbouring frames are both valid; applied twice, whether three are."""
    return valid[..., 1:] & valid[..., :-1]


def _frame_rotations_rad(rotvec: Float[Tensor, "*views time 3"]) -> Float[Tensor, "*views pairs 3"]:
    """The rotation from each frame to the next, as a rotation vector in the outer (camera) axes."""
    return compose_rotvecs(rotvec[..., 1:, :].double(), -rotvec[..., :-1, :].double())


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
    """For every two views, the sum of the mean vertex distance over their shared frames, and the number of those."""
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
