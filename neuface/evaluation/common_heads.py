"""One head per frame of several views: what the views agree on but for the pose."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from neuface.structs import HeadParams


def common_heads(params: HeadParams, valid: Bool[Tensor, "views time"]) -> HeadParams:
    """The mean over the views that saw the face, or over all views where none did; batch axis `time`.

    The identity code is the mean over all valid images.
    """
    counted = torch.where(valid.any(0), valid, True)
    frames = params.map_tensors(lambda tensor: _mean_over_views(tensor, counted))
    identity = params.identity[valid].mean(0) if bool(valid.any()) else params.identity.mean((0, 1))
    return replace(frames, identity=identity.expand_as(frames.identity))


def _mean_over_views(
    tensor: Float[Tensor, "views time *rest"], counted: Bool[Tensor, "views time"]
) -> Float[Tensor, " time *rest"]:
    weight = counted.to(tensor).view(*counted.shape, *[1] * (tensor.ndim - 2))
    return (tensor * weight).sum(0) / weight.sum(0)
