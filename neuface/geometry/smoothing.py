"""Smoothing over time."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.errors import InputError
from neuface.geometry.rotations import continuous_signs


def moving_average(values: Float[Tensor, "*batch time c"], window: int) -> Float[Tensor, "*batch time c"]:
    """Centred mean over `window` frames, shrinking symmetrically towards the ends of the clip.

    A window cut off on one side only would pull the ends of a steady motion towards the middle.
    Raises InputError unless `window` is odd and positive.
    """
    if window < 1 or window % 2 == 0:
        raise InputError(f"the temporal window must be an odd number of frames, at least 1, got {window}")
    time = values.shape[-2]
    frame = torch.arange(time, device=values.device)
    half = torch.minimum(frame, time - 1 - frame).clamp(max=window // 2)
    sums = torch.nn.functional.pad(values.double().cumsum(-2), (0, 0, 1, 0))
    total = sums[..., frame + half + 1, :] - sums[..., frame - half, :]
    return (total / (2 * half + 1)[:, None]).to(values.dtype)


def smooth_quaternions(
    quaternion: Float[Tensor, "*batch time 4"], window: int
) -> Float[Tensor, "*batch time 4"]:
    """Moving average of unit quaternions over the whole clip: sign-consistent and normalised again (Eq. 3)."""
    mean = moving_average(continuous_signs(quaternion), window)
    return torch.nn.functional.normalize(mean, dim=-1)
