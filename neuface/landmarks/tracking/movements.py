"""What faces do, in quantities that do not depend on the camera, and whether two tracks do the same at the same time.

From the landmarks of every frame and the affine camera of the mean face (`neuface.landmarks.affine_cameras`): how far
mouth, jaw and lids are open, how wide the mouth and how high the brows are (mm along the head's own axes), and how
the head has turned and nodded from its mean orientation (degrees about its own axes). Slow changes are left out,
because a detector drifts slowly and each camera sees another constant.

Noise model. Of a signal with variance V in a track, N is noise, independent between cameras. Two tracks of one person
have the expected correlation::

    rho = LARGEST_CORRELATION sqrt((1 - N_1 / V_1) (1 - N_2 / V_2))

Fisher's z = atanh(r) of the observed correlation r is normal: about atanh(rho) if they are one person, about 0 if
not, with the variance 1 / (n - 3) + spread^2. Neighbouring frames are not independent; n is Bartlett's number of
effective samples, frames / (1 + 2 sum of the products of both autocorrelations). The evidence is the logarithm of the
ratio of both densities, summed over the signals. These are not independent of each other, either: the sum counts with
SHARE. Evidence against one person does not count: a face behind a hand seems to move, too, and so do all faces before
cameras that are not synchronised. A face that does not move has V = N and rho = 0, and tells nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from neuface.geometry.rotations import nearest_rotation, rotmat_to_rotvec
from neuface.landmarks.affine_cameras import affine_cameras

# iBUG-68 points between which distances are measured: the means of the first and of the second set, along the head's
# axis (0 to its left, 1 up).
DISTANCES = (
    ((61, 62, 63), (65, 66, 67), 1),  # mouth
    ((33,), (8,), 1),  # jaw
    ((54,), (48,), 0),  # mouth's width
    ((37, 38, 43, 44), (40, 41, 46, 47), 1),  # lids
    ((19, 24), (36, 39, 42, 45), 1),  # brows
)
# Standard deviation of their noise after filtering, mm, and of that of the three angles, degrees; and what landmarks
# that are off by a pixel, in small faces, add to them.
NOISE = np.array([0.7, 1.0, 1.2, 0.5, 0.8, 0.8, 0.8, 0.5])
NOISE_PX, DEGREES_PER_MM = 0.4, 0.5
# Reach of the filters' weights, which fall exponentially in time, seconds: what is slower than the first is left out,
# what is faster than the second is smoothed.
SLOW_S, FAST_S = 0.6, 0.03
# Correlation of one person's movements before two cameras without any noise: another angle shows others.
LARGEST_CORRELATION = 0.85
# Standard deviation of Fisher's z beyond that of the samples: of one person, and of two, who may laugh together.
SPREAD_SAME, SPREAD_OTHERS = 0.5, 0.15
# Weight of the sum over the signals.
SHARE = 0.5
# Bounds the frames that two tracks must have in common, and the effective samples, for any evidence.
FEWEST_FRAMES, FEWEST_SAMPLES = 8, 5.0
# Time up to which autocorrelations are summed, seconds.
LONGEST_LAG_S = 1.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Movements:
    """What one track's face does."""

    value: Float[np.ndarray, "time signals"]
    """Filtered; 0 where the track has no face."""
    known: Bool[np.ndarray, " time"]
    noise: Float[np.ndarray, " signals"]
    """Variance."""
    autocorrelation: Float[np.ndarray, "lags signals"]
    """From one frame on."""


def movements(points_px: Float[np.ndarray, "time 68 2"], seconds: Float[np.ndarray, " time"]) -> Movements:
    """What a face does, from iBUG-68 landmarks; NaN where there are none.

    Args:
        seconds: time stamps, rising.
    """
    points = torch.from_numpy(points_px).double()
    rows, _ = affine_cameras(points, points.isfinite().all(-1))
    axes = rows.numpy()
    posed = np.isfinite(axes.sum((1, 2)))
    raw = np.full((len(points_px), len(NOISE)), np.nan)
    raw[posed, : len(DISTANCES)] = _distances_mm(points_px[posed], axes[posed])
    raw[posed, len(DISTANCES) :] = _turns_deg(rows[torch.from_numpy(posed)])
    # Landmarks of some kinds have no contour, and no frame shows the jaw.
    measured = np.isfinite(raw).any(0)
    known = posed & np.isfinite(raw[:, measured].sum(1))
    raw[~known] = 0.0
    raw[:, ~measured] = 0.0
    px_per_mm = np.linalg.norm(axes[known], axis=-1) if known.any() else np.ones(1)
    off_mm = NOISE_PX / float(np.median(px_per_mm))
    of_a_pixel = off_mm * np.where(np.arange(len(NOISE)) < len(DISTANCES), 1.0, DEGREES_PER_MM)
    fast, slow = (_smoothed(raw, known, seconds, reach_s) for reach_s in (FAST_S, SLOW_S))
    value = (fast - slow) * known[:, None]
    step_s = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1.0
    return Movements(
        value=value,
        known=known,
        noise=NOISE**2 + of_a_pixel**2,
        autocorrelation=_autocorrelation(value, known, max(1, round(LONGEST_LAG_S / step_s))),
    )


def movement_evidence(one: Movements, other: Movements) -> float:
    """The logarithm of how much more probable both tracks are if they are one person's; at least 0."""
    both = one.known & other.known
    if both.sum() < FEWEST_FRAMES:
        return 0.0
    a, b = one.value[both], other.value[both]
    a, b = a - a.mean(0), b - b.mean(0)
    variances = (a**2).mean(0), (b**2).mean(0)
    moves = [
        np.clip(1 - item.noise / np.maximum(variance, 1e-12), 0, 1)
        for item, variance in zip((one, other), variances, strict=True)
    ]
    expected = np.arctanh(LARGEST_CORRELATION * np.sqrt(moves[0] * moves[1]))
    correlation = (a * b).mean(0) / np.sqrt(np.maximum(variances[0] * variances[1], 1e-24))
    lags = min(len(one.autocorrelation), len(other.autocorrelation), int(both.sum()) - 1)
    together = (one.autocorrelation[:lags] * other.autocorrelation[:lags]).sum(0)
    samples = both.sum() / np.maximum(1 + 2 * together, 1)
    z = np.arctanh(np.clip(correlation, -0.999, 0.999))
    sampling = 1 / np.maximum(samples - 3, 0.1)
    same, others = sampling + SPREAD_SAME**2, sampling + SPREAD_OTHERS**2
    ratio = z**2 / others - (z - expected) ** 2 / same + np.log(others / same)
    # Without movement both hypotheses are the same, whatever their spread.
    tells = (samples >= FEWEST_SAMPLES) & (expected > 0)
    return max(0.0, SHARE * float((np.where(tells, ratio, 0.0) / 2).sum()))


def _distances_mm(
    points_px: Float[np.ndarray, "n 68 2"], axes: Float[np.ndarray, "n 2 3"]
) -> Float[np.ndarray, "n distances"]:
    """The differences of the means of DISTANCES, along the images of the head's axes."""
    measured = []
    for first, second, axis in DISTANCES:
        apart = points_px[:, first].mean(1) - points_px[:, second].mean(1)
        along = axes[:, :, axis]
        measured.append((apart * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-12))
    return np.stack(measured, -1)


def _turns_deg(rows: torch.Tensor) -> Float[np.ndarray, "n 3"]:
    """The head's rotation from its mean orientation, about its own axes."""
    if len(rows) == 0:
        return np.zeros((0, 3))
    unit = torch.nn.functional.normalize(rows, dim=-1)
    full = nearest_rotation(torch.cat((unit, torch.linalg.cross(unit[:, :1], unit[:, 1:])), 1))
    mean = nearest_rotation(full.mean(0))
    return np.rad2deg(rotmat_to_rotvec(mean.mT @ full).numpy())


def _smoothed(
    values: Float[np.ndarray, "time signals"],
    known: Bool[np.ndarray, " time"],
    seconds: Float[np.ndarray, " time"],
    reach_s: float,
) -> Float[np.ndarray, "time signals"]:
    """The mean of known values with weights exp(-|difference of time| / reach_s)."""
    decay = np.exp(-np.diff(seconds) / reach_s)
    weighted = np.concatenate((values, np.ones((len(values), 1))), -1) * known[:, None]
    before, after = weighted.copy(), weighted.copy()
    for frame in range(1, len(values)):
        before[frame] += decay[frame - 1] * before[frame - 1]
        after[-frame - 1] += decay[-frame] * after[-frame]
    total = before + after - weighted
    return total[:, :-1] / np.maximum(total[:, -1:], 1e-12)


def _autocorrelation(
    value: Float[np.ndarray, "time signals"], known: Bool[np.ndarray, " time"], lags: int
) -> Float[np.ndarray, "lags signals"]:
    """Mean products of values so many frames apart, over the variance."""
    variance = np.maximum((value**2).sum(0) / max(1, known.sum()), 1e-12)
    rows = []
    for lag in range(1, min(lags, len(value) - 1) + 1):
        pairs = int((known[lag:] & known[:-lag]).sum())
        rows.append((value[lag:] * value[:-lag]).sum(0) / max(1, pairs) / variance)
    return np.array(rows).reshape(-1, value.shape[1])
