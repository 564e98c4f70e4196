"""A clip's figures: the metrics of `neuface.metrics`, computed from predictions and observed landmarks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from neuface import metrics
from neuface.head.model import HeadModel
from neuface.head.pieces import MESHES_PER_CHUNK, in_pieces
from neuface.landmarks.schemes import INNER51, outer_eye_distance_px, to_ibug68
from neuface.structs import HeadParams, Prediction, Scheme, Track


@dataclass(frozen=True, kw_only=True)
class Figures:
    """How good one prediction for a clip is. None where a figure does not apply."""

    nme_percent: float | None
    """Normalised mean error over the 68 iBUG points (or their counterparts), outer-eye distance."""
    nme51_percent: float | None
    """The same over the inner 51 points, without the contour."""
    msi3d_landmarks: float | None
    """Motion stability of the 3D landmarks, (mm / frame^2)^-2; more is steadier."""
    msi3d_vertices: float | None
    """Motion stability of all vertices, (mm / frame^2)^-2; more is steadier."""
    cvd_mm: float | None
    """Cross-view vertex distance, mm; None for one view."""
    mpve_mm: float | None
    """Mean per-vertex error after rigid alignment, head without neck; None where truth is not known."""


def measure(
    head: HeadModel,
    prediction: Prediction,
    landmarks: Track,
    valid: Bool[Tensor, "views time"],
    truth: HeadParams | None = None,
    *,
    starts: Sequence[int] = (0,),
    frame_times: Sequence[float] | None = None,
) -> Figures:
    """All figures of one prediction with batch axes `views time`.

    Args:
        prediction: its camera projects to frame pixels (`Crop.prediction_in_frame` converts an encoder's).
        landmarks: the observed landmarks, frame pixels; NME is the mean over the images that are `valid`.
        truth: true parameters of the same head model, batch axes `views time`, where they are known.
        starts: the first frames of the shots; no motion is measured across a cut.
        frame_times: when each frame was taken, in usual steps between frames; None if they are evenly spaced.
    """
    whole = image_nme_percent(head, prediction, landmarks)
    inner = image_nme_percent(head, prediction, landmarks, inner_only=True)
    above_neck = ~head.regions["neck"] if "neck" in head.regions else None
    of_landmarks, of_vertices = metrics.MotionStability(), metrics.MotionStability()
    distances = metrics.ViewDistances()
    errors_mm: list[Tensor] = []
    views, time = valid.shape
    frames_at_once = max(1, MESHES_PER_CHUNK // views)
    shots = (*starts, time)
    # A piece of frames at a time: the meshes of a long clip would not fit in memory.
    for shot_start, shot_end in pairwise(shots):
        of_landmarks.begin_shot()
        of_vertices.begin_shot()
        for start in range(shot_start, shot_end, frames_at_once):
            piece = slice(start, min(start + frames_at_once, shot_end))
            params = prediction.params[:, piece]
            times = None if frame_times is None else frame_times[piece]
            of_landmarks.add(landmarks68(head, params, landmarks.scheme), times)
            of_vertices.add(head.vertices(params), times)
            unposed = head.vertices(params.unposed())
            distances.add(unposed, valid[:, piece])
            if truth is not None:
                true_vertices = head.vertices(truth[:, piece].unposed())
                error = metrics.mpve_mm(unposed, true_vertices, above_neck)
                errors_mm.append(error.double() * (piece.stop - piece.start))
    return Figures(
        nme_percent=finite_or_none(whole[valid].nanmean()),
        nme51_percent=finite_or_none(inner[valid].nanmean()),
        msi3d_landmarks=finite_or_none(of_landmarks.msi3d()),
        msi3d_vertices=finite_or_none(of_vertices.msi3d()),
        cvd_mm=finite_or_none(distances.cvd_mm()) if views > 1 else None,
        mpve_mm=None if truth is None else finite_or_none(torch.stack(errors_mm).sum() / time),
    )


def image_nme_percent(
    head: HeadModel,
    prediction: Prediction,
    landmarks: Track,
    *,
    inner_only: bool = False,
    of_box: bool = False,
) -> Float[Tensor, "views time"]:
    """NME of every image over the 68 points, or the inner 51; NaN without landmarks.

    The unit is percent of the distance of the outer eye corners (NaN where one of them is missing), or with `of_box`
    percent of the size of the box around the points. Camera and landmarks are in frame pixels.
    """
    points = landmarks68(head, prediction.params, landmarks.scheme)
    predicted = prediction.camera.project(points)
    observed = to_ibug68(landmarks)
    chosen = INNER51 if inner_only else slice(0, 68)
    if of_box:
        length_px = metrics.box_length_px(observed.points_px, observed.confidence)
    else:
        length_px = outer_eye_distance_px(landmarks)
    return metrics.nme_percent(
        predicted[..., chosen, :],
        observed.points_px[..., chosen, :],
        observed.confidence[..., chosen],
        length_px,
    )


def vertices_in_chunks(head: HeadModel, params: HeadParams) -> Float[Tensor, "views time vertices 3"]:
    """Vertices of a whole clip, decoded a bounded number of meshes at a time."""
    return in_pieces(head.vertices, params)


def landmarks68(head: HeadModel, params: HeadParams, scheme: Scheme) -> Float[Tensor, "*batch 68 3"]:
    """The counterparts of the 68 iBUG points on heads, metres, by the head's embedding of a scheme."""
    chosen = list(scheme.to_ibug68)
    return in_pieces(lambda piece: head.landmarks(piece, scheme.name)[..., chosen, :], params)


def finite_or_none(value: Tensor) -> float | None:
    """One number as Python's own, and None where it is undefined: reports and JSON have no NaN.

    >>> finite_or_none(torch.tensor(0.5)), finite_or_none(torch.tensor(torch.nan))
    (0.5, None)
    """
    number = float(value)
    return number if math.isfinite(number) else None
