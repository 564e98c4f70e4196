"""Linear interpolation over time of frames whose values are missing."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def interpolate_missing(
    values: Float[Tensor, "views time c"], known: Bool[Tensor, "views time"], starts: tuple[int, ...] = (0,)
) -> Float[Tensor, "views time c"]:
    """A trajectory whose frames that are not `known` are interpolated linearly between their known neighbours.

    Before the first and after the last known frame, the nearest known value is repeated. A segment without any
    known frame is returned as it is. The result is differentiable with respect to the known values.

    Args:
        values: in any unit.
        known: whether a frame has a value of its own; other frames' values are ignored.
        starts: first frames of the segments (joined clips), in rising order, the first one 0. Nothing is
            interpolated across the border of two segments.

    Example:
        >>> values = torch.tensor([[[1.0], [9.0], [9.0], [4.0], [9.0]]])
        >>> known = torch.tensor([[True, False, False, True, False]])
        >>> interpolate_missing(values, known)[0, :, 0]
        tensor([1., 2., 3., 4., 4.])
    """
    ends = (*starts[1:], values.shape[1])
    return torch.cat(
        [
            _interpolated(values[:, start:end], known[:, start:end])
            for start, end in zip(starts, ends, strict=True)
        ],
        dim=1,
    )


def _interpolated(
    values: Float[Tensor, "views time c"], known: Bool[Tensor, "views time"]
) -> Float[Tensor, "views time c"]:
    time = values.shape[1]
    frame = torch.arange(time, device=values.device).expand(known.shape)
    before = torch.where(known, frame, -1).cummax(1).values
    after = torch.where(known, frame, time).flip(1).cummin(1).values.flip(1)
    first = torch.where(before >= 0, before, after).clamp(max=time - 1)
    last = torch.where(after < time, after, before).clamp(min=0)
    share = ((frame - first) / (last - first).clamp(min=1)).to(values.dtype)[..., None]

    def at(index: Tensor) -> Tensor:
        return values.gather(1, index[..., None].expand_as(values))

    interpolated = torch.lerp(at(first), at(last), share)
    replace = known.any(1, keepdim=True) & ~known
    return torch.where(replace[..., None], interpolated, values)
