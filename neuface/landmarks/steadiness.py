"""Frames whose landmarks do not fit those around them: off the smooth path in time, or squashed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from neuface.landmarks.affine_cameras import affine_cameras

LARGEST_JUMP = 0.2
"""Mean distance of the landmarks from the smooth path, in outer eye distances, above which they are another thing."""
# Number of frames on each side that determine the path, and the standard deviation of their weights, frames.
REACH, SPREAD = 6, 2.0
# Number of neighbours that a path needs.
FEWEST_NEIGHBOURS = 4
# Distance from the path, in eye distances, at which a neighbour counts half: a jump must not bend the path.
HALF_WEIGHT = 0.1
# The same for the distance from the neighbours' median, with which the search for the path begins.
MEDIAN_HALF_WEIGHT = 0.3
REWEIGHTINGS = 4
# Bounds the outer eye distance from below, in longer sides of the landmarks' box: a profile's is near 0.
LEAST_EYE_SHARE = 0.2
# Number of frames computed at a time, which bounds the memory.
FRAMES_AT_A_TIME = 64
# A face is squashed along an axis of the image if its scale there is smaller than around it by more than the first,
# and the ratio of its two scales differs by more than the second; both are logarithms. Faces that move freely (eight
# real clips) shrank along one axis by up to 0.08 where their ratio changed by 0.11 or more. Three faces that were
# squashed between glasses and a hand shrank by 0.20 to 0.37, and their ratio changed by 0.12 to 0.22.
SQUASHED_SCALE, SQUASHED_RATIO = 0.15, 0.11


@dataclass(frozen=True, kw_only=True)
class SmoothPath:
    """Where neighbours in time predict the landmarks of each frame, which itself takes no part."""

    points_px: Float[np.ndarray, "time points 2"]
    """NaN where there are too few neighbours."""
    jump: Float[np.ndarray, " time"]
    """Mean distance of the landmarks from it in outer eye distances; NaN where either is unknown."""


def smooth_path(
    points_px: Float[np.ndarray, "time points 2"],
    found: Bool[np.ndarray, " time"],
    eyes: tuple[int, int],
    starts: Sequence[int] = (0,),
) -> SmoothPath:
    """A line through the neighbours' landmarks, point by point; those far off in time or space weigh less.

    Args:
        eyes: the numbers of the outer eye corners.
        starts: the first frames of the shots, between which there is no path.

    >>> still = np.zeros((9, 3, 2)) + np.array([[0.0, 0.0], [10.0, 0.0], [5.0, 8.0]])
    >>> still[4] += 6.0
    >>> smooth_path(still, np.ones(9, bool), (0, 1)).jump.round(2).tolist()[3:6]
    [0.0, 0.85, 0.0]
    """
    time = len(points_px)
    shot = np.searchsorted(np.asarray(starts), np.arange(time), side="right")
    steps = np.array([step for step in range(-REACH, REACH + 1) if step])
    predicted = np.full_like(points_px, np.nan)
    jump = np.full(time, np.nan)
    extent = (points_px.max(1).astype(float) - points_px.min(1)).max(-1)
    eye_distance = np.linalg.norm(points_px[:, eyes[0]].astype(float) - points_px[:, eyes[1]], axis=-1)
    size = np.maximum(eye_distance, LEAST_EYE_SHARE * extent)
    for start in range(0, time, FRAMES_AT_A_TIME):
        frame = np.arange(start, min(start + FRAMES_AT_A_TIME, time))
        neighbour = frame[:, None] + steps
        inside = np.clip(neighbour, 0, time - 1)
        known = (neighbour == inside) & found[inside] & (shot[inside] == shot[frame, None])
        enough = known.sum(1) >= FEWEST_NEIGHBOURS
        sizes = np.where(known, size[inside], np.nan)
        unit = np.ones(len(frame))
        unit[enough] = np.nanmedian(sizes[enough], axis=1)
        middle = _line(points_px[inside].astype(float), known, steps, unit)
        predicted[frame[enough]] = middle[enough]
        away = np.linalg.norm(points_px[frame] - middle, axis=-1).mean(1) / unit
        jump[frame] = np.where(enough & found[frame], away, np.nan)
    return SmoothPath(points_px=predicted, jump=jump)


def _line(
    values: Float[np.ndarray, "time near points 2"],
    known: Bool[np.ndarray, "time near"],
    steps: np.ndarray,
    unit: Float[np.ndarray, " time"],
) -> Float[np.ndarray, "time points 2"]:
    """The value at step 0 of lines through the neighbours' values; neighbours off the line count less."""
    prior = known * np.exp(-((steps / SPREAD) ** 2) / 2)
    middle = np.zeros(values[:, 0].shape)
    enough = known.sum(1) >= FEWEST_NEIGHBOURS
    seen = np.where(known[enough][..., None, None], values[enough], np.nan)
    middle[enough] = np.nanmedian(seen, axis=1)
    # The median bears several jumps side by side, which a first line would follow; it lags behind motion, though.
    away = np.linalg.norm(values - middle[:, None], axis=-1).mean(-1) / unit[:, None]
    weight = prior / (1 + (away / MEDIAN_HALF_WEIGHT) ** 2)
    for _ in range(REWEIGHTINGS):
        total, first, second = (np.einsum("tn,n->t", weight, steps**power) for power in (0, 1, 2))
        # One more than nothing, so that neighbours on one side alone, or none, divide by no zero.
        determinant = total * second - first**2 + 1e-9
        of_middle = weight * (second[:, None] - first[:, None] * steps) / determinant[:, None]
        of_slope = weight * (total[:, None] * steps - first[:, None]) / determinant[:, None]
        middle = np.einsum("tn,tnpc->tpc", of_middle, values)
        slope = np.einsum("tn,tnpc->tpc", of_slope, values)
        line = middle[:, None] + slope[:, None] * steps[:, None, None]
        away = np.linalg.norm(values - line, axis=-1).mean(-1) / unit[:, None]
        weight = prior / (1 + (away / HALF_WEIGHT) ** 2)
    return middle


def squashed(
    points_px: Float[Tensor, "time 68 2"],
    found: Bool[Tensor, "time 68"],
    starts: Sequence[int] = (0,),
) -> Bool[np.ndarray, " time"]:
    """Which frames' landmarks are narrower, or lower, than those around them, as where a hand hides half of a face.

    The scales are those of the mean face along x and y, which do not depend on the angle from which it is seen.

    Args:
        points_px: iBUG-68.
        starts: the first frames of the shots, between which nothing is compared.
    """
    rows = affine_cameras(points_px, found)[0].numpy()
    scale = np.log(np.linalg.norm(rows, axis=-1))
    known, time = np.isfinite(scale).all(-1), len(scale)
    shot = np.searchsorted(np.asarray(starts), np.arange(time), side="right")
    wrong = np.zeros(time, bool)
    for frame in np.flatnonzero(known):
        around = np.arange(max(0, frame - REACH), min(time, frame + REACH + 1))
        around = around[known[around] & (shot[around] == shot[frame]) & (around != frame)]
        if len(around) >= FEWEST_NEIGHBOURS:
            change = scale[frame] - np.median(scale[around], axis=0)
            usual = np.median(scale[around, 0] - scale[around, 1])
            ratio = abs(scale[frame, 0] - scale[frame, 1] - usual)
            wrong[frame] = change.min() < -SQUASHED_SCALE and ratio > SQUASHED_RATIO
    return wrong
