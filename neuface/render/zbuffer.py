"""The z-buffer behind `TorchRasterizer`: every (triangle, pixel) pair of the bounding boxes, tested at once.

Depth and face index are packed into one int64, so that one integer minimum per pixel picks the nearest
triangle and settles ties by the lowest index, in whatever order the pairs arrive.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["triangle_ids"]

# Pairs tested at once. On a CPU this keeps the intermediate tensors in the cache and below the 32,768
# elements from which torch shares an operation among threads, which costs more than it gains here. On CUDA,
# few kernel launches count.
CPU_PAIRS = 30_000
CUDA_PAIRS = 1 << 24

EMPTY = torch.iinfo(torch.int64).max
FACE_BITS = 32


class _Candidates(NamedTuple):
    """Triangles that may cover a pixel: one entry per triangle and image, positive area in the image."""

    corners: list[tuple[Tensor, Tensor, Tensor]]
    """x, y, z of each of the three corners."""
    face: Int[Tensor, " n"]
    first_x: Int[Tensor, " n"]
    """Left edge of the bounding box, in whole pixels."""
    first_pixel: Int[Tensor, " n"]
    """Flat index of the pixel at x = 0 in the box's first row, over all images."""
    first_y: Int[Tensor, " n"]
    width: Int[Tensor, " n"]
    pairs: Int[Tensor, " n"]
    """Pixels in the bounding box."""


def triangle_ids(
    vertices_px: Float[Tensor, "b v 3"],
    faces: Int[Tensor, "f 3"],
    size_hw: tuple[int, int],
    *,
    cull: bool,
    max_pairs: int | None,
) -> Int[Tensor, "b h w"]:
    """Index of the nearest triangle at every pixel centre, -1 where there is none."""
    images, (height, width) = vertices_px.shape[0], size_hw
    limit = max_pairs or (CUDA_PAIRS if vertices_px.is_cuda else CPU_PAIRS)
    nearest = torch.full((images * height * width,), EMPTY, dtype=torch.int64, device=vertices_px.device)
    per_group = max(1, limit // max(1, faces.shape[0]))
    for start in range(0, images, per_group):
        group = vertices_px[start : start + per_group]
        buffer = nearest[start * height * width : (start + group.shape[0]) * height * width]
        candidates = _find_candidates(group, faces, size_hw, cull)
        for first, last, pairs in _split(candidates.pairs, limit):
            _draw(candidates, first, last, pairs, width, buffer)
    ids = nearest & ((1 << FACE_BITS) - 1)
    return ids.masked_fill_(nearest == EMPTY, -1).reshape(images, height, width)


def _find_candidates(
    vertices_px: Float[Tensor, "b v 3"], faces: Int[Tensor, "f 3"], size_hw: tuple[int, int], cull: bool
) -> _Candidates:
    """Drop triangles that cannot be seen, and put the bounding box of the others on the pixel grid."""
    images, count, _ = vertices_px.shape
    height, width = size_hw
    # Coordinate by coordinate: gathers and arithmetic then run over contiguous memory.
    x, y, z = vertices_px.flatten(0, 1).T.contiguous().unbind(0)
    first_row = torch.arange(images, device=faces.device)[:, None] * count
    corners = [(first_row + corner).flatten() for corner in faces.T.contiguous().unbind(0)]
    (xa, xb, xc), (ya, yb, yc) = ([values[corner] for corner in corners] for values in (x, y))

    area = (xb - xa) * (yc - ya) - (yb - ya) * (xc - xa)
    left = torch.minimum(torch.minimum(xa, xb), xc).ceil_().clamp_(min=0)
    right = torch.maximum(torch.maximum(xa, xb), xc).floor_().clamp_(max=width - 1)
    top = torch.minimum(torch.minimum(ya, yb), yc).ceil_().clamp_(min=0)
    bottom = torch.maximum(torch.maximum(ya, yb), yc).floor_().clamp_(max=height - 1)
    # The front of a triangle has its normal along -z, towards the camera: a negative area where y points
    # down.
    usable = (area < 0) if cull else (area != 0)
    # NaN fails every comparison; an infinite coordinate makes the area infinite or NaN.
    usable &= (right >= left) & (bottom >= top) & area.isfinite()
    keep = usable.nonzero().squeeze(1)

    flip = area[keep] < 0
    a, b, c = (corner[keep] for corner in corners)
    # Every triangle turns the same way from here on, so that "inside" is one comparison.
    b, c = torch.where(flip, c, b), torch.where(flip, b, c)
    left, right, top, bottom = (edge[keep].long() for edge in (left, right, top, bottom))
    image = keep // faces.shape[0]
    columns = right - left + 1
    return _Candidates(
        corners=[(x[corner], y[corner], z[corner]) for corner in (a, b, c)],
        face=keep - image * faces.shape[0],
        first_x=left,
        first_pixel=(image * height + top) * width,
        first_y=top,
        width=columns,
        pairs=columns * (bottom - top + 1),
    )


def _split(pairs: Int[Tensor, " n"], limit: int) -> list[tuple[int, int, int]]:
    """Runs (first, last, total pairs) of triangles with about `limit` pairs, over by one triangle at most."""
    ends = pairs.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    wanted = torch.arange(limit, total + limit, limit, device=pairs.device)
    cuts = torch.searchsorted(ends, wanted).add_(1).clamp_(max=len(ends)).unique()
    done = ends[cuts - 1].tolist()
    runs, first, before = [], 0, 0
    for last, end in zip(cuts.tolist(), done, strict=True):
        runs.append((first, last, end - before))
        first, before = last, end
    return runs


def _draw(
    candidates: _Candidates, first: int, last: int, pairs: int, image_width: int, buffer: Int[Tensor, " p"]
) -> None:
    """Lower the packed depths in `buffer` by the triangles `first <= i < last`."""
    some = _Candidates(
        [(x[first:last], y[first:last], z[first:last]) for x, y, z in candidates.corners],
        *(values[first:last] for values in candidates[1:]),
    )
    triangle = torch.arange(last - first, device=buffer.device)
    triangle = triangle.repeat_interleave(some.pairs, output_size=pairs)
    before = some.pairs.cumsum(0) - some.pairs
    within = torch.arange(pairs, device=buffer.device) - before[triangle]
    row = torch.div(within, some.width[triangle], rounding_mode="floor")
    column = within - row * some.width[triangle] + some.first_x[triangle]

    dtype = some.corners[0][0].dtype
    pixel_x, pixel_y = column.to(dtype), (row + some.first_y[triangle]).to(dtype)
    (ax, ay), (bx, by), (cx, cy) = (
        (x[triangle] - pixel_x, y[triangle] - pixel_y) for x, y, _ in some.corners
    )
    # Relative to the pixel, the two triangles at an edge compute exactly opposite values for it (the same two
    # products, subtracted the other way round), so no pixel can fall between them.
    weight_a, weight_b, weight_c = bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx
    area = weight_a + weight_b + weight_c
    inside = (torch.minimum(torch.minimum(weight_a, weight_b), weight_c) >= 0) & (area > 0)
    hit = inside.nonzero().squeeze(1)

    triangle = triangle[hit]
    za, zb, zc = (z[triangle] for _, _, z in some.corners)
    # Written as steps from one corner: a triangle parallel to the image has exactly its own depth everywhere.
    depth = za + ((zb - za) * weight_b[hit] + (zc - za) * weight_c[hit]) / area[hit]
    packed = _sortable(depth).bitwise_left_shift_(FACE_BITS).bitwise_or_(some.face[triangle])
    packed.masked_fill_(~depth.isfinite(), EMPTY)
    pixel = some.first_pixel[triangle] + row[hit] * image_width + column[hit]
    buffer.scatter_reduce_(0, pixel, packed, "amin")


def _sortable(depth: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """int64 values of 32 bits in the order of the depths: the bits of negative floats run backwards."""
    bits = (depth.float() + 0.0).view(torch.int32)  # + 0.0 makes -0.0 and 0.0 one depth
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()
