"""Place, size and shape of the faces in every frame: what the tracker knows of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from neuface.landmarks.schemes import scheme_with


@dataclass(frozen=True, kw_only=True)
class Faces:
    """The faces of one camera's frames; a frame with fewer faces than others has NaN in the remaining places."""

    centre_px: Float[np.ndarray, "time faces 2"]
    """Centre of the box around the found landmarks."""
    size_px: Float[np.ndarray, "time faces"]
    """The box's longer side."""
    shape: Float[np.ndarray, "time faces points 2"]
    """The iBUG-68 landmarks relative to the centre, in units of the size; NaN where a point is missing."""

    @property
    def present(self) -> Bool[np.ndarray, "time faces"]:
        """Where there is a face."""
        return np.isfinite(self.size_px)

    def shape_distance(self, frame: int, face: int, other: Float[np.ndarray, "points 2"]) -> float:
        """Root mean square distance between a face's shape and another one, in units of the size; 0 if unknown."""
        distance = np.linalg.norm(self.shape[frame, face] - other, axis=-1)
        known = distance[np.isfinite(distance)]
        return float(np.sqrt(np.mean(known**2))) if len(known) else 0.0


# Distance in face sizes beyond which a face is elsewhere than before.
ELSEWHERE = 1.5


def jumps_of_all_faces(observed: Faces) -> tuple[int, ...]:
    """The frames in which every face is elsewhere than all were before: cuts that pictures may not show.

    On both sides, a face must be where it was in one frame more: a single wrong frame is no jump.
    """
    apart = [_nobody_stays(observed, frame - 1, frame) for frame in range(1, len(observed.size_px))]
    return tuple(
        frame
        for frame in range(2, len(observed.size_px) - 1)
        if apart[frame - 1] and apart[frame - 2] is False and apart[frame] is False
    )


def _nobody_stays(observed: Faces, before: int, after: int) -> bool | None:
    """Whether all faces of a frame are elsewhere than those of the one before; None if one of the two has none."""
    first, second = observed.present[before], observed.present[after]
    if not first.any() or not second.any():
        return None
    way = observed.centre_px[after, second][:, None] - observed.centre_px[before, first]
    size = np.maximum(observed.size_px[after, second][:, None], observed.size_px[before, first])
    return bool((np.linalg.norm(way, axis=-1) > ELSEWHERE * size).all())


def observed_faces(points_px: Float[np.ndarray, "time faces n 2"]) -> Faces:
    """Place, size and shape of faces from their landmarks.

    Args:
        points_px: frame pixels; NaN for a missing point. A face needs two points that do not coincide.

    >>> points = np.full((1, 2, 68, 2), np.nan)
    >>> points[0, 1] = np.linspace((0.0, 0.0), (10.0, 4.0), 68)
    >>> faces = observed_faces(points)
    >>> faces.centre_px[0, 1].tolist(), faces.size_px[0].tolist()
    ([5.0, 2.0], [nan, 10.0])
    """
    missing = ~np.isfinite(points_px).all(-1, keepdims=True)
    lowest = np.where(missing, np.inf, points_px).min(-2)
    highest = np.where(missing, -np.inf, points_px).max(-2)
    extent = np.clip(highest - lowest, 0, None).max(-1)
    there = np.isfinite(extent) & (extent > 0)
    size = np.where(there, extent, np.nan)
    with np.errstate(invalid="ignore"):
        centre = np.where(there[..., None], (lowest + highest) / 2, np.nan)
    scheme = scheme_with(points_px.shape[-2])
    chosen = slice(None) if scheme is None else list(scheme.to_ibug68)
    visible = np.where(missing, np.nan, points_px)[..., chosen, :]
    shape = (visible - centre[..., None, :]) / size[..., None, None]
    return Faces(centre_px=centre, size_px=size, shape=shape)
