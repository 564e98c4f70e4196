"""The quality of one prediction for one clip of a study."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from neuface import metrics
from neuface.evaluation.figures import (
    Figures,
    finite_or_none,
    image_nme_percent,
    measure,
    vertices_in_chunks,
)
from neuface.evaluation.landmarks_3d import PER_IMAGE, PER_VIEW, landmark_3d_errors_mm
from neuface.geometry.sampling import evenly_spread_indices
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import IBUG68
from neuface.structs import HeadParams, Prediction, Track
from studies.common.cases import ALIGNING_POINTS, Case, ScanTruth

SCAN_IMAGES = 6
"""Number of images of a scan's clip that are compared with the scan, spread evenly over time."""
RANGE_SLACK = 0.05
"""Excess beyond 0..1 that an expression amount may have before it counts as outside its range."""


@dataclass(frozen=True, kw_only=True)
class Scores(Figures):
    """The clip figures of `neuface.evaluation` and what the studies measure besides; None where one does not apply.

    Less is better, except for the stability index and for shares, which are best at 1.
    """

    mpve_scaled_mm: float | None = None
    """Vertex error after alignment with scale, which a weak-perspective camera does not observe."""
    mpve_face_mm: float | None = None
    """Vertex error of the face region alone, after its rigid alignment."""
    mpve_unaligned_mm: float | None = None
    """Vertex error of the unposed mesh in the head frame, without alignment."""
    scan_mm: float | None = None
    """Mean distance from the scan's face to the mesh after rigid alignment."""
    scan_scaled_mm: float | None = None
    """The same after alignment with scale."""
    expression_outside_percent: float = 0.0
    """Share of the expression amounts that lie outside 0..1 by more than RANGE_SLACK."""
    true_nme_percent: float | None = None
    """Landmark error against the landmarks without noise, over all frames, including those with hidden landmarks."""
    jitter_mm: float | None = None
    """Mean second difference of the posed 3D landmarks, mm / frame^2."""
    identity_drift_mm: float | None = None
    """Distance of the images' neutral meshes to their mean."""
    angular_velocity_error_deg: float | None = None
    """Error of the head's angular velocity against the truth, degrees per frame."""
    turning_kept: float | None = None
    """Share of the true head rotation that the fit has: 1 is all."""
    lip_opening_error_mm: float | None = None
    """Error of the distance between the lips against the truth."""
    lip_motion_kept: float | None = None
    """Share of the true lip motion that the fit has: 1 is all."""
    landmarks_3d_median_mm: float | None = None
    """Median distance of the inner landmarks to points triangulated from calibrated cameras, after alignment by one
    scale for the clip, one rotation per camera and one translation per image."""
    landmarks_3d_per_image_median_mm: float | None = None
    """The same with one rotation per image, which judges shape and expression alone."""
    cvd_per_view_mm: tuple[float | None, ...] | None = None
    """Distance of each view's meshes to those of the others; None for a view that shares no frame with another."""


def score(case: Case, head: HeadModel, prediction: Prediction) -> Scores:
    """All figures of one prediction with batch axes `views time`."""
    track = case.clip.track
    figures = measure(head, prediction, track, track.usable, case.truth)
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
        **vars(figures),
        mpve_scaled_mm=scaled,
        mpve_face_mm=face,
        scan_mm=scan,
        scan_scaled_mm=scan_scaled,
        expression_outside_percent=100 * float(outside.float().mean()),
        **_motion_scores(case, head, prediction),
        **_shape_scores(case, head, prediction),
    )


def _motion_scores(case: Case, head: HeadModel, prediction: Prediction) -> dict[str, float | None]:
    """Stability of the head, and the share of the true motion that the prediction has."""
    params, everything = prediction.params, torch.ones_like(case.clip.track.usable)
    scores = {"jitter_mm": finite_or_none(metrics.jitter_mm(head.landmarks(params, IBUG68.name), everything))}
    if case.true_landmarks_px is not None:
        exact = Track(
            points_px=case.true_landmarks_px,
            confidence=torch.ones_like(case.true_landmarks_px[..., 0]),
            scheme=IBUG68,
        )
        scores["true_nme_percent"] = finite_or_none(image_nme_percent(head, prediction, exact).nanmean())
    if case.truth is None:
        return scores
    turns = (params.root_rotvec, case.truth.root_rotvec, everything)
    # The lips are compared in unposed heads, without the head's motion.
    lips = (
        head.landmarks(params.unposed(), IBUG68.name),
        head.landmarks(case.truth.unposed(), IBUG68.name),
        everything,
    )
    return {
        **scores,
        "angular_velocity_error_deg": finite_or_none(metrics.angular_velocity_error_deg(*turns)),
        "turning_kept": finite_or_none(metrics.turning_kept_share(*turns)),
        "lip_opening_error_mm": finite_or_none(metrics.lip_opening_error_mm(*lips)),
        "lip_motion_kept": finite_or_none(metrics.lip_motion_kept_share(*lips)),
    }


def _shape_scores(case: Case, head: HeadModel, prediction: Prediction) -> dict[str, Any]:
    """Agreement of the images about the face, and its error against what is known of it."""
    params, valid = prediction.params, case.clip.track.usable
    neutral = replace(head.neutral(*valid.shape), identity=params.identity)
    drift = metrics.identity_drift_mm(vertices_in_chunks(head, neutral)[valid])
    scores: dict[str, Any] = {"identity_drift_mm": finite_or_none(drift)}
    unposed = vertices_in_chunks(head, params.unposed())
    if len(valid) > 1:
        scores["cvd_per_view_mm"] = tuple(map(finite_or_none, metrics.cvd_per_view_mm(unposed, valid)))
    if case.truth is not None:
        true = vertices_in_chunks(head, case.truth.unposed())
        scores["mpve_unaligned_mm"] = finite_or_none(
            metrics.mpve_mm(unposed, true, ~head.regions["neck"], alignment="none")
        )
    if case.triangulated is not None:
        for name, per in (
            ("landmarks_3d_median_mm", PER_VIEW),
            ("landmarks_3d_per_image_median_mm", PER_IMAGE),
        ):
            errors = landmark_3d_errors_mm(
                head, params, valid, case.clip.track.scheme, case.triangulated, rotation_per=per
            )
            scores[name] = finite_or_none(errors.nanmedian())
    return scores


def scan_error_mm(head: HeadModel, params: HeadParams, scan: ScanTruth, *, with_scale: bool) -> float:
    """Mean distance from the scan's face to the predicted mesh, mean over SCAN_IMAGES images.

    The mesh has its predicted expression, because the images show the scan.
    """
    views, time = params.identity.shape[:2]
    times = evenly_spread_indices(time, max(1, SCAN_IMAGES // views))
    chosen = params[:, times].unposed().flatten_batch(2)
    vertices, marks = head.vertices(chosen), head.landmarks(chosen, IBUG68.name)[:, list(ALIGNING_POINTS)]
    means = [
        metrics.scan_to_mesh_mm(
            scan.face_points, scan.landmarks, mesh, head.faces, points, with_scale=with_scale
        ).mean()
        for mesh, points in zip(vertices, marks, strict=True)
    ]
    return float(torch.stack(means).mean())


def true_stability(case: Case, head: HeadModel) -> float | None:
    """Motion stability of the true vertices, which a perfect fit has; None where the truth is a scan."""
    if case.truth is None:
        return None
    return float(metrics.msi3d(vertices_in_chunks(head, case.truth)))


def _truth_errors_mm(head: HeadModel, params: HeadParams, truth: HeadParams) -> tuple[float, float]:
    """Errors after similarity alignment of the head without neck, and after rigid alignment of the face."""
    found, true = (vertices_in_chunks(head, item.unposed()) for item in (params, truth))
    scaled = metrics.mpve_mm(found, true, ~head.regions["neck"], alignment="similarity")
    return float(scaled), float(metrics.mpve_mm(found, true, head.regions["face"]))
