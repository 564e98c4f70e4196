"""How good one prediction for one clip of the study is."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from neuface import metrics
from neuface.benchmark.cases import ALIGNING_POINTS, Case, ScanTruth
from neuface.evaluation import measure, vertices_in_chunks
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import IBUG68
from neuface.structs import HeadParams, Prediction

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
    )


def scan_error_mm(head: HeadModel, params: HeadParams, scan: ScanTruth, *, with_scale: bool) -> float:
    """Mean distance from the scan's face to the predicted mesh, mean over SCAN_IMAGES images.

    The mesh has its predicted expression: the scan is what the pictures show.
    """
    views, time = params.identity.shape[:2]
    times = torch.linspace(0, time - 1, min(time, max(1, SCAN_IMAGES // views))).round().long()
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
    scaled = metrics.mpve_mm(found, true, ~head.regions["neck"], with_scale=True)
    return float(scaled), float(metrics.mpve_mm(found, true, head.regions["face"]))
