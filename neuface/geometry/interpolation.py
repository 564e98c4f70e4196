"""Bridging frames that are not known."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def bridge_gaps(
    values: Float[Tensor, "views time c"], known: Bool[Tensor, "views time"], starts: tuple[int, ...] = (0,)
) -> Float[Tensor, "views time c"]:
    """Values over time with frames that are not `known` on the straight line between their known neighbours.

    At the ends the nearest known value stands. A piece without any known frame stays as it is.

    Args:
        starts: first frames of pieces (joined clips) that know nothing of each other, in rising order, the first 0.
    """
    ends = (*starts[1:], values.shape[1])
    return torch.cat(
        [
            _bridged(values[:, start:end], known[:, start:end])
            for start, end in zip(starts, ends, strict=True)
        ],
        dim=1,
    )


def _bridged(
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

    bridged = torch.lerp(at(first), at(last), share)
    use = known.any(1, keepdim=True) & ~known
    return torch.where(use[..., None], bridged, values)
