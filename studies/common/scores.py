"""How good one prediction for one clip of the study is."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from neuface import metrics
from neuface.evaluation.figures import image_nme_percent, measure, vertices_in_chunks
from neuface.evaluation.landmarks_3d import PER_IMAGE, PER_VIEW, landmark_3d_errors_mm
from neuface.geometry.sampling import evenly_spread_indices
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import IBUG68
from neuface.structs import HeadParams, Landmarks, Prediction
from studies.common.cases import ALIGNING_POINTS, Case, ScanTruth

SCAN_IMAGES = 6
"""About how many images of a scan's clip are compared with the scan, spread over the clip."""
# Expression units beyond 0..1 by more than this count as outside the range the head model gives them.
RANGE_SLACK = 0.05


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Figures of one prediction; None where one does not apply. Less is better, but for the stability index."""

    nme_percent: float | None
    """Landmark error against the noisy landmarks that were fitted, outer-eye distance, 68 points."""
    mpve_mm: float | None
    """Vertex error to the truth after rigid alignment, head without neck."""
    mpve_scaled_mm: float | None
    """The same after alignment with scale, which a weak-perspective camera cannot see."""
    mpve_face_mm: float | None
    """Vertex error of the face region alone, after its rigid alignment."""
    scan_mm: float | None
    """Mean distance from the scan's face to the mesh after rigid alignment."""
    scan_scaled_mm: float | None
    """The same after alignment with scale."""
    cvd_mm: float | None
    """Distance between the views' meshes; None for one view."""
    msi3d_vertices: float | None
    """Motion stability of the vertices, (mm / frame^2)^-2; more is steadier."""
    expression_outside_percent: float
    """Share of the expression amounts that lie outside 0..1 by more than RANGE_SLACK."""
    nme51_percent: float | None = None
    """As `nme_percent`, over the inner 51 points."""
    true_nme_percent: float | None = None
    """Landmark error against the landmarks without noise, over all frames, also those whose landmarks are hidden."""
    msi3d_landmarks: float | None = None
    """Motion stability of the 3D landmarks, (mm / frame^2)^-2; more is steadier."""
    jitter_mm: float | None = None
    """Mean second difference of the posed 3D landmarks, mm / frame^2."""
    identity_drift_mm: float | None = None
    """Distance of the images' neutral meshes to their mean."""
    mpve_unaligned_mm: float | None = None
    """Vertex error of the unposed mesh as it stands in the head frame."""
    angular_velocity_error_deg: float | None = None
    """Error of the head's turning against truth, degrees per frame."""
    turning_kept: float | None = None
    """Share of the true turning that is in the fit: 1 is all."""
    lip_opening_error_mm: float | None = None
    """Error of the distance between the lips against truth."""
    lip_motion_kept: float | None = None
    """Share of the true lip motion that is in the fit: 1 is all."""
    landmarks_3d_median_mm: float | None = None
    """Median distance of the inner landmarks to points triangulated from calibrated cameras, after one size for the
    clip and one rotation per camera; weak perspective leaves every image its own place."""
    landmarks_3d_turned_median_mm: float | None = None
    """The same with a rotation per image: shape and expression alone."""
    cvd_per_view_mm: tuple[float | None, ...] | None = None
    """Distance of each view's meshes to those of the others; None for a view that shares no time with another."""


def score(case: Case, head: HeadModel, prediction: Prediction) -> Scores:
    """All figures of one prediction with batch axes `views time`."""
    clip = case.clip
    figures = measure(head, prediction, clip.landmarks, clip.crops, clip.valid, case.truth)
    scaled = face = scan = scan_scaled = None
    if case.truth is not None:
        scaled, face = _truth_errors_mm(head, prediction.params, case.truth)
    if case.scan is not None:
        scan, scan_scaled = (
            scan_error_mm(head, prediction.params, case.scan, with_scale=with_scale)
            for with_scale in (False, True)
        )
    expression = prediction.params.expression
    outside = (expression < -RANGE_SLACK) | (expression > 1 + RANGE_SLACK)
    return Scores(
        nme_percent=figures.nme_percent,
        mpve_mm=figures.mpve_mm,
        mpve_scaled_mm=scaled,
        mpve_face_mm=face,
        scan_mm=scan,
        scan_scaled_mm=scan_scaled,
        cvd_mm=figures.cvd_mm,
        msi3d_vertices=figures.msi3d_vertices,
        expression_outside_percent=100 * float(outside.float().mean()),
        nme51_percent=figures.nme51_percent,
        msi3d_landmarks=figures.msi3d_landmarks,
        **_motion_scores(case, head, prediction),
        **_shape_scores(case, head, prediction),
    )


def _motion_scores(case: Case, head: HeadModel, prediction: Prediction) -> dict[str, float | None]:
    """How steady the head is, and how much of the true motion is in it."""
    params, everything = prediction.params, torch.ones_like(case.clip.valid)
    scores = {"jitter_mm": _number(metrics.jitter_mm(head.landmarks(params, IBUG68), everything))}
    if case.true_landmarks_px is not None:
        exact = Landmarks(
            points_px=case.true_landmarks_px,
            confidence=torch.ones_like(case.true_landmarks_px[..., 0]),
            scheme=IBUG68,
        )
        scores["true_nme_percent"] = _number(
            image_nme_percent(head, prediction, exact, case.clip.crops).nanmean()
        )
    if case.truth is None:
        return scores
    turns = (params.root_rotvec, case.truth.root_rotvec, everything)
    # Lips are compared without the head's motion.
    lips = (
        head.landmarks(params.unposed(), IBUG68),
        head.landmarks(case.truth.unposed(), IBUG68),
        everything,
    )
    return {
        **scores,
        "angular_velocity_error_deg": _number(metrics.angular_velocity_error_deg(*turns)),
        "turning_kept": _number(metrics.turning_kept_share(*turns)),
        "lip_opening_error_mm": _number(metrics.lip_opening_error_mm(*lips)),
        "lip_motion_kept": _number(metrics.lip_motion_kept_share(*lips)),
    }


def _shape_scores(case: Case, head: HeadModel, prediction: Prediction) -> dict[str, Any]:
    """How much the images agree about the face, and how far it is from what is known of it."""
    params, valid = prediction.params, case.clip.valid
    neutral = replace(head.neutral(*valid.shape), identity=params.identity)
    drift = metrics.identity_drift_mm(vertices_in_chunks(head, neutral)[valid])
    scores: dict[str, Any] = {"identity_drift_mm": _number(drift)}
    unposed = vertices_in_chunks(head, params.unposed())
    if len(valid) > 1:
        scores["cvd_per_view_mm"] = tuple(map(_number, metrics.cvd_per_view_mm(unposed, valid)))
    if case.truth is not None:
        true = vertices_in_chunks(head, case.truth.unposed())
        scores["mpve_unaligned_mm"] = _number(
            metrics.mpve_mm(unposed, true, ~head.regions["neck"], alignment="none")
        )
    if case.triangulated is not None:
        for name, per in (
            ("landmarks_3d_median_mm", PER_VIEW),
            ("landmarks_3d_turned_median_mm", PER_IMAGE),
        ):
            errors = landmark_3d_errors_mm(
                head, params, valid, case.clip.landmarks.scheme, case.triangulated, rotation_per=per
            )
            scores[name] = _number(errors.nanmedian())
    return scores


def _number(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def scan_error_mm(head: HeadModel, params: HeadParams, scan: ScanTruth, *, with_scale: bool) -> float:
    """Mean distance from the scan's face to the predicted mesh, mean over SCAN_IMAGES images.

    The mesh has its predicted expression: the scan is what the pictures show.
    """
    views, time = params.identity.shape[:2]
    times = evenly_spread_indices(time, max(1, SCAN_IMAGES // views))
    chosen = params[:, times].unposed().flatten_batch(2)
    vertices, marks = head.vertices(chosen), head.landmarks(chosen, IBUG68)[:, list(ALIGNING_POINTS)]
    means = [
        metrics.scan_to_mesh_mm(
            scan.face_points, scan.landmarks, mesh, head.faces, points, with_scale=with_scale
        ).mean()
        for mesh, points in zip(vertices, marks, strict=True)
    ]
    return float(torch.stack(means).mean())


def true_stability(case: Case, head: HeadModel) -> float | None:
    """Motion stability of the true vertices: what a perfect fit has; None where the truth is a scan."""
    if case.truth is None:
        return None
    return float(metrics.msi3d(vertices_in_chunks(head, case.truth)))


def _truth_errors_mm(head: HeadModel, params: HeadParams, truth: HeadParams) -> tuple[float, float]:
    """With scale over the head without neck, and rigid over the face."""
    found, true = (vertices_in_chunks(head, item.unposed()) for item in (params, truth))
    scaled = metrics.mpve_mm(found, true, ~head.regions["neck"], alignment="similarity")
    return float(scaled), float(metrics.mpve_mm(found, true, head.regions["face"]))
