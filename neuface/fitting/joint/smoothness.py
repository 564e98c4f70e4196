"""How far trajectories of poses are from their smoothed ones, as a linear function of the poses: (I - S) x."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuface.fitting.joint.equations import PoseBand
from neuface.fitting.smoothing import Smoother, WindowFilter
from neuface.fitting.targets import smooth_values
from neuface.structs import TensorStruct

LEAST_ENTRY = 1e-12
"""Bound of the entries of a filter below which they are rounding errors of its weights, which are of order 0.1."""

WIDEST = 31
"""Upper bound of the frames that a row may span; rows of filters that look farther hold the trajectory fixed."""

__all__ = ["Pull", "SmoothingRows", "pose_band", "smoothing_rows"]


@dataclass(frozen=True, kw_only=True)
class SmoothingRows(TensorStruct):
    """The rows of I - S, one per image: their entries within the frames that the filter looks at."""

    first: Int[Tensor, "views time"]
    """The frame of a row's first entry."""
    entries: Float[Tensor, "views time window"]
    """Float64. A row that is 1 at its own frame and 0 elsewhere holds the smoothed trajectory fixed."""


@dataclass(frozen=True, kw_only=True)
class Pull:
    """A quadratic term on some numbers of the poses: weight / 2 |distance - (I - S) (unit * step)|^2."""

    channels: slice
    """Which of the six numbers of a pose."""
    distance: Float[Tensor, "views time c"]
    """From the current to the smoothed trajectory."""
    weight: Float[Tensor, "views time"]
    unit: Float[Tensor, "views time"]
    """Units of `distance` per unit of the unknown."""


def smoothing_rows(
    smoother: Smoother,
    segments: tuple[int, ...],
    known: Bool[Tensor, "views time"],
    frame_times: tuple[float, ...] | None = None,
) -> SmoothingRows:
    """The rows of a clip, on the device of `known`.

    Where the window of a frame holds a frame without landmarks, which the E-step interpolates, and for filters that
    are not linear, the row holds the trajectory fixed.

    Args:
        segments: the first frames of the pieces that are smoothed alone.
        frame_times: when the frames were taken, as in `Problem`.
    """
    time = known.shape[1]
    rows = torch.eye(time, dtype=torch.float64, device=known.device)
    if isinstance(smoother, WindowFilter) and smoother.linear:
        # What the filter makes of every single frame are the columns of S.
        smoothed = smooth_values(smoother, rows[None], segments, frame_times)[0]
        rows = rows - smoothed * (smoothed.abs() > LEAST_ENTRY)
    frame = torch.arange(time, device=known.device)
    used = (rows != 0) | (frame[:, None] == frame)
    first = used.double().argmax(-1)
    width = time - used.flip(1).double().argmax(-1) - first
    within = width <= WIDEST
    window = int(torch.where(within, width, 1).max())
    first = torch.where(within, first, frame).clamp(max=time - window)
    at = first[:, None] + torch.arange(window, device=known.device)
    own = (at == frame[:, None]).double()
    entries = torch.where(within[:, None], rows.gather(1, at), own)
    interpolated = ((~known)[:, at] & (entries != 0)).any(-1) | ~known
    return SmoothingRows(
        first=first.expand(known.shape), entries=torch.where(interpolated[..., None], own, entries)
    )


def pose_band(rows: SmoothingRows, pulls: list[Pull], poses_per_image: int) -> PoseBand:
    """What some pulls add to the normal equations of the poses, float64."""
    views, time, window = rows.entries.shape
    at = rows.first[..., None] + torch.arange(window, device=rows.first.device)
    later, earlier = torch.tril_indices(window, window, device=at.device).unbind(0)
    lag, column = later - earlier, at[..., earlier]
    lags = rows.entries.new_zeros(views, poses_per_image, window * time)
    right = rows.entries.new_zeros(views, poses_per_image, time)
    position = (lag * time + column).flatten(1)
    for pull in pulls:
        entries = rows.entries * pull.unit.double().gather(1, at.flatten(1)).view_as(at)
        weighted = pull.weight.double()[..., None] * entries
        products = (weighted[..., later] * entries[..., earlier]).flatten(1)
        summed = lags.new_zeros(views, window * time).scatter_add_(1, position, products)
        lags[:, pull.channels] += summed[:, None]
        for number, distance in enumerate(pull.distance.double().unbind(-1)):
            pulled = (weighted * distance[..., None]).flatten(1)
            right[:, pull.channels.start + number].scatter_add_(1, at.flatten(1), pulled)
    by_lag = lags.unflatten(-1, (window, time)).permute(2, 3, 0, 1).flatten(2)
    return PoseBand(lags=by_lag, right=right.permute(2, 0, 1).flatten(1))
