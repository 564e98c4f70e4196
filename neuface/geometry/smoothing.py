"""Smoothing of trajectories: several filters with one window, one treatment of cuts, and one precision.

The smoothed value of frame t, where d is the distance from t in frames:

* `mean`: the mean of a window, which shrinks symmetrically towards the ends of the clip (the paper's choice).
* `median`: the median over the same frames, channel by channel (the paper's Table S2).
* `gaussian`: the mean over the same frames with weights exp(-d^2 / 2 s^2), s = window / 4.
* `local_quadratic`: the value at t of the least-squares parabola of the window (Savitzky and Golay, 1964). It leaves
  motion of constant acceleration unchanged. Near the ends, the parabola of the last full window is evaluated. Since a
  parabola passes through any three points, a window of 3 frames changes nothing.
* `adaptive`: a blend of `mean`, where the head is still, and `local_quadratic`, where it moves::

      smooth = mean + a (quadratic - mean),    a = max(0, 1 - 2 / r)
      r = mean over the window of |quadratic - mean|^2 / (noise^2 g)

  g is the sum of the squared differences of both filters' weights, so that r is 1 on average where there is only
  noise, and a is then 0. `noise` is estimated from the median of the squared third differences over the whole clip.
  First of all, single frames that agree neither with the frames before nor with those after are replaced
  (`_without_spikes`).

If a clip is shorter than the window, the longest odd window that fits is used. All kinds but `median` and `adaptive`
are linear; in `adaptive`, a, the noise and the choice of spikes are constants for gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import conv1d, normalize, pad

from neuface.errors import InputError
from neuface.geometry.rotations import continuous_signs

__all__ = ["KINDS", "moving_average", "released_window_mean", "smooth", "smooth_quaternions"]

KINDS = ("mean", "median", "gaussian", "local_quadratic", "adaptive")

# Ratio r, of the filters' difference to that of pure noise, above which it is treated as motion.
MOTION_OVER_NOISE = 2.0
# Distance from what the neighbours predict, in standard deviations, above which a frame is a spike.
SPIKE_DEVIATIONS = 3.5
# Medians of the square of a standard normal variable, and of the mean of three such squares.
MEDIAN_SQUARE, MEDIAN_SQUARE_OF_THREE = 0.4549, 0.7887
# Variance of a third difference over that of white noise: the sum of the squared weights (1, -3, 3, -1).
THIRD_DIFFERENCE_GAIN = 20.0


def smooth(
    values: Float[Tensor, "*batch time c"], window: int, kind: str, segments: tuple[int, ...] = ()
) -> Float[Tensor, "*batch time c"]:
    """A trajectory smoothed over time, every channel separately; the module's docstring defines the kinds.

    Args:
        values: in any unit; the computation is in float64.
        window: frames, odd.
        kind: one of `KINDS`.
        segments: frames at which a new segment of the clip starts (cuts, joined clips), in rising order; nothing is
            smoothed across them.

    Raises:
        InputError: the window is not odd and positive, the kind is unknown, or the segments are not rising frames
            of the clip.

    Example:
        >>> smooth(torch.tensor([[0.0], [3.0], [0.0], [0.0]]), 3, "mean")[:, 0]
        tensor([0., 1., 1., 0.])
    """
    return _smooth(values, window, kind, segments, rotations=False)


def smooth_quaternions(
    quaternion: Float[Tensor, "*batch time 4"],
    window: int,
    kind: str = "mean",
    segments: tuple[int, ...] = (),
) -> Float[Tensor, "*batch time 4"]:
    """Unit quaternions smoothed over time with consistent signs, then normalised (the target of Eq. 3 with `mean`).

    Every kind but `median` is equivariant: rotating the whole clip rotates the result (`adaptive` therefore blends
    all four components with one weight). Arguments and errors are those of `smooth`.
    """
    return normalize(_smooth(continuous_signs(quaternion), window, kind, segments, rotations=True), dim=-1)


def moving_average(values: Float[Tensor, "*batch time c"], window: int) -> Float[Tensor, "*batch time c"]:
    """Mean over a centred window of frames, which shrinks symmetrically towards the ends of the clip.

    A window that is truncated on one side only would bias the ends of a steady motion towards the middle of the clip.
    Raises InputError unless `window` is odd and positive.
    """
    _check_window(window)
    time = values.shape[-2]
    frame = torch.arange(time, device=values.device)
    half = torch.minimum(frame, time - 1 - frame).clamp(max=window // 2)
    sums = pad(values.double().cumsum(-2), (0, 0, 1, 0))
    total = sums[..., frame + half + 1, :] - sums[..., frame - half, :]
    return (total / (2 * half + 1)[:, None]).to(values.dtype)


def released_window_mean(
    quaternion: Float[Tensor, "*batch time 4"], segments: tuple[int, ...] = ()
) -> Float[Tensor, "*batch time 4"]:
    """The temporal target of the authors' released code: the normalised mean of frames t-2 to t+1.

    The window is not centred. The first two and last two frames of every segment are their own target. The signs of
    the quaternions are not made consistent: if neighbours lie in opposite hemispheres, their mean is not a rotation
    between them. The released code smooths chunks of 20 frames separately: `segments` are the frames at which chunks
    start. Raises InputError unless the segments are rising frames of the clip.
    """
    return _by_segment(_released_piece, quaternion, segments)


def _released_piece(quaternion: Float[Tensor, "*batch time 4"]) -> Float[Tensor, "*batch time 4"]:
    time = quaternion.shape[-2]
    if time < 5:
        return quaternion
    mean = quaternion.unfold(-2, 4, 1).mean(-1)[..., : time - 4, :]
    return torch.cat((quaternion[..., :2, :], normalize(mean, dim=-1), quaternion[..., -2:, :]), dim=-2)


def _smooth(
    values: Float[Tensor, "*batch time c"],
    window: int,
    kind: str,
    segments: tuple[int, ...],
    *,
    rotations: bool,
) -> Float[Tensor, "*batch time c"]:
    _check_window(window)
    smoothers: dict[str, Callable[[Tensor, int], Tensor]] = {
        "mean": moving_average,
        "median": _median,
        "gaussian": _gaussian,
        "local_quadratic": _local_quadratic,
        "adaptive": partial(_adaptive, rotations=rotations),
    }
    if kind not in smoothers:
        raise InputError(f"unknown kind of smoothing: expected one of {', '.join(KINDS)}, got {kind!r}")
    # In a long clip the motion between two frames can be smaller than the rounding of float32, hence float64.
    smoother = smoothers[kind]
    return _by_segment(lambda piece: smoother(piece, window), values.double(), segments).to(values.dtype)


def _by_segment(
    smoother: Callable[[Tensor], Tensor], values: Float[Tensor, "*batch time c"], segments: tuple[int, ...]
) -> Float[Tensor, "*batch time c"]:
    """The trajectory with every segment smoothed as a clip of its own."""
    time = values.shape[-2]
    rising = all(before < after for before, after in zip((-1, *segments), (*segments, time), strict=True))
    if segments and not rising:
        raise InputError(
            f"segments must be rising frame numbers from 0 to {time - 1}, where new segments start, got {segments}"
        )
    pieces = [piece for piece in values.tensor_split(segments, dim=-2) if piece.shape[-2]]
    return torch.cat([smoother(piece) for piece in pieces], dim=-2) if pieces else values


def _check_window(window: int) -> None:
    if window < 1 or window % 2 == 0:
        raise InputError(f"the temporal window must be an odd number of frames, at least 1, got {window}")


# --- The kinds, each for one segment in double precision


def _median(values: Float[Tensor, "*batch time c"], window: int) -> Float[Tensor, "*batch time c"]:
    half = _fitting_window(values, window) // 2
    time = values.shape[-2]
    frame = torch.arange(time, device=values.device)
    reach = torch.minimum(frame, time - 1 - frame)[:, None, None]
    offset = torch.arange(-half, half + 1, device=values.device)
    # Frames outside of the window become infinite, as many negative as positive, which leaves the median unchanged.
    windows = pad(values, (0, 0, half, half)).unfold(-2, 2 * half + 1, 1)
    return torch.where(offset.abs() <= reach, windows, offset * math.inf).median(-1).values


def _gaussian(values: Float[Tensor, "*batch time c"], window: int) -> Float[Tensor, "*batch time c"]:
    return _filter(values, _centred_weights(_fitting_window(values, window), window / 4, values.device))


def _local_quadratic(values: Float[Tensor, "*batch time c"], window: int) -> Float[Tensor, "*batch time c"]:
    return _filter(values, _quadratic_weights(_fitting_window(values, window), values.device))


def _adaptive(
    values: Float[Tensor, "*batch time c"], window: int, *, rotations: bool
) -> Float[Tensor, "*batch time c"]:
    time = values.shape[-2]
    if time < 4:  # there is no third difference to estimate the noise from
        return moving_average(values, window)
    noise = _noise_variance(values.detach(), rotations)
    values = _without_spikes(values, noise, rotations)

    fitting = _fitting_window(values, window)
    mean = _centred_weights(fitting, math.inf, values.device)
    change = _quadratic_weights(fitting, values.device) - mean
    difference = _filter(values, change)
    gain = _per_frame(change.square().sum(-1, keepdim=True), time)
    everywhere = torch.full_like(mean, 1 / fitting)
    # Without any noise every difference is motion; the lower bound avoids 0 / 0.
    expected = (noise * gain).clamp(min=torch.finfo(values.dtype).tiny)
    ratio = _filter(_energy(difference.detach(), rotations) / expected, everywhere)
    share = 1 - MOTION_OVER_NOISE / ratio.clamp(min=MOTION_OVER_NOISE)
    return _filter(values, mean) + share * difference


# --- Linear filters


def _fitting_window(values: Float[Tensor, "*batch time c"], window: int) -> int:
    """The longest odd window that fits into the clip, at most `window`."""
    return 2 * min(window // 2, (values.shape[-2] - 1) // 2) + 1


def _centred_weights(window: int, spread: float, device: torch.device) -> Float[Tensor, "window window"]:
    """Row p: weights for frame p of a clip of `window` frames, Gaussian over the widest window centred on p."""
    frame = torch.arange(window, device=device, dtype=torch.float64)
    distance = (frame[:, None] - frame).abs()
    reach = torch.minimum(frame, window - 1 - frame)[:, None]
    weights = torch.exp(-0.5 * (distance / spread).square()) * (distance <= reach)
    return weights / weights.sum(-1, keepdim=True)


def _quadratic_weights(window: int, device: torch.device) -> Float[Tensor, "window window"]:
    """Row p: weights whose sum with a clip of `window` frames is its least-squares parabola's value at frame p."""
    frame = torch.arange(window, device=device, dtype=torch.float64) - window // 2
    square = frame.square()
    # The basis is orthogonal because the frames are symmetric about 0. For a window of one frame the linear and the
    # quadratic part are 0.
    basis = normalize(torch.stack((torch.ones_like(frame), frame, square - square.mean())), dim=-1)
    return basis.mT @ basis


def _filter(
    values: Float[Tensor, "*batch time c"], weights: Float[Tensor, "window window"]
) -> Float[Tensor, "*batch time c"]:
    """The clip filtered with the middle row of `weights`; the other rows apply at the clip's two ends."""
    window, half = weights.shape[-1], weights.shape[-1] // 2
    first = weights[:half] @ values[..., :window, :]
    last = weights[half + 1 :] @ values[..., values.shape[-2] - window :, :]
    channels = values.mT
    rows = channels.reshape(math.prod(channels.shape[:-1]), 1, channels.shape[-1])
    middle = conv1d(rows, weights[half].expand(1, 1, -1)).reshape(*channels.shape[:-1], -1).mT
    return torch.cat((first, middle, last), dim=-2)


def _per_frame(rows: Float[Tensor, "window 1"], time: int) -> Float[Tensor, "time 1"]:
    """A quantity given per row of `_filter`'s weights, for every frame of a clip."""
    half = rows.shape[0] // 2
    return torch.cat((rows[:half], rows[half].expand(time - 2 * half, 1), rows[half + 1 :]))


# --- Noise


def _energy(values: Float[Tensor, "*batch time c"], rotations: bool) -> Float[Tensor, "*batch time one_or_c"]:
    """Squares; for rotations their sum over the four components, which does not depend on the coordinate axes."""
    squares = values.square()
    return squares.sum(-1, keepdim=True) if rotations else squares


def _noise_variance(
    values: Float[Tensor, "*batch time c"], rotations: bool
) -> Float[Tensor, "*batch 1 one_or_c"]:
    """Estimated variance of white noise on a smooth motion.

    Third differences suppress smooth motion, and their median is robust to a few outliers. The noise of unit
    quaternions has three dimensions.
    """
    typical = _energy(values.diff(n=3, dim=-2), rotations).median(-2, keepdim=True).values
    return typical / (THIRD_DIFFERENCE_GAIN * (MEDIAN_SQUARE_OF_THREE if rotations else MEDIAN_SQUARE))


def _without_spikes(
    values: Float[Tensor, "*batch time c"], noise: Float[Tensor, "*batch 1 one_or_c"], rotations: bool
) -> Float[Tensor, "*batch time c"]:
    """The trajectory with isolated outliers replaced by the prediction of their neighbours.

    A spike is far from the line through the two frames before it, from the line through the two after it, and
    from the cubic through all four. A jump, a sharp turn and fast smooth motion each agree with one of them.
    """
    if values.shape[-2] < 5:
        return values
    a, b, c, d, e = (values[..., start : values.shape[-2] - 4 + start, :] for start in range(5))
    cubic = (4 * b + 4 * d - a - e) / 6
    found = _is_spike(c, (cubic, 2 * b - a, 2 * d - e), 34 / 36, noise, rotations)
    inner = torch.where(found, cubic, c)
    values = torch.cat((values[..., :2, :], inner, values[..., -2:, :]), dim=-2)
    values = _without_spikes_at_start(values, noise, rotations)
    return _without_spikes_at_start(values.flip(-2), noise, rotations).flip(-2)


def _without_spikes_at_start(
    values: Float[Tensor, "*batch time c"], noise: Float[Tensor, "*batch 1 one_or_c"], rotations: bool
) -> Float[Tensor, "*batch time c"]:
    """The same for the first two frames, predicted by lines and parabolas through the neighbours they have."""
    a, b, c, d = (values[..., frame : frame + 1, :] for frame in range(4))
    parabola = (a + 3 * c - d) / 3
    b = torch.where(_is_spike(b, (parabola, 2 * c - d), 11 / 9, noise, rotations), parabola, b)
    line = 2 * b - c
    a = torch.where(_is_spike(a, (line, 3 * c - 2 * d, 3 * b - 3 * c + d), 5.0, noise, rotations), line, a)
    return torch.cat((a, b, values[..., 2:, :]), dim=-2)


def _is_spike(
    values: Float[Tensor, "*batch time c"],
    predictions: tuple[Tensor, ...],
    gain: float,
    noise: Float[Tensor, "*batch 1 one_or_c"],
    rotations: bool,
) -> Bool[Tensor, "*batch time one_or_c"]:
    """Whether a value is further from every prediction than noise explains.

    `gain` is the sum of the squared weights of the first prediction: its variance over that of the noise.
    """
    least = torch.stack(
        [_energy((values - prediction).detach(), rotations) for prediction in predictions]
    ).amin(0)
    # Where most frames are equal to the bit, the estimated noise is 0 and cannot define a spike.
    return (least > SPIKE_DEVIATIONS**2 * (1 + gain) * noise) & (noise > 0)
