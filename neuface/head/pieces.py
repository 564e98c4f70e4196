"""Points of many heads, decoded a bounded number at a time."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from neuface.structs import HeadParams

MESHES_PER_CHUNK = 64
"""Upper bound of the meshes whose vertices are computed at once for a long clip; it bounds the memory."""


def in_pieces(
    decode: Callable[[HeadParams], Float[Tensor, "images points 3"]], params: HeadParams
) -> Float[Tensor, "*batch points 3"]:
    """What `decode` gives for heads with any batch axes, MESHES_PER_CHUNK at a time, without a gradient.

    What is computed on the way to a few points is many times as large as they are.
    """
    batch = params.root_rotvec.shape[:-1]
    flat = params.map_tensors(lambda tensor: tensor.detach()[None]).flatten_batch(len(batch) + 1)
    first = decode(flat[:MESHES_PER_CHUNK])
    count = len(flat.root_rotvec)
    points = first.new_empty(count, *first.shape[1:])
    points[:MESHES_PER_CHUNK] = first
    for start in range(MESHES_PER_CHUNK, count, MESHES_PER_CHUNK):
        points[start : start + MESHES_PER_CHUNK] = decode(flat[start : start + MESHES_PER_CHUNK])
    return points.reshape(*batch, *first.shape[1:])
