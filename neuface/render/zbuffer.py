"""The z-buffer behind `TorchRasterizer`.

Triangles that cannot be visible are dropped. The bounding boxes of the others are expanded to (triangle, pixel)
pairs, a bounded number at a time, and three edge functions decide whether a pixel's centre is inside. Depth and face
index are packed into one int64, so that a single integer minimum per pixel selects the nearest triangle, and among
equal depths that of lowest index, whatever the order of the pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["triangle_ids"]

# Upper bound of the pairs tested at once. On a CPU their tensors then fit into the cache and stay below the 32,768
# elements from which torch splits an operation among threads, which costs more than it gains here. On CUDA a large
# number keeps the kernel launches few.
CPU_PAIRS = 30_000
CUDA_PAIRS = 1 << 24

# Value of a pixel without a triangle; every packed depth is smaller.
EMPTY = torch.iinfo(torch.int64).max
# Number of low bits that hold the face index; the depth is above them.
FACE_BITS = 32


class _Candidates(NamedTuple):
    """Triangles that may cover a pixel: one entry per triangle and image, oriented to positive area."""

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
    """The triangles that may be visible, with their bounding boxes in whole pixels."""
    images, count, _ = vertices_px.shape
    height, width = size_hw
    # With one tensor per coordinate, gathers and arithmetic run over contiguous memory.
    x, y, z = vertices_px.flatten(0, 1).T.contiguous().unbind(0)
    first_row = torch.arange(images, device=faces.device)[:, None] * count
    corners = [(first_row + corner).flatten() for corner in faces.T.contiguous().unbind(0)]
    (xa, xb, xc), (ya, yb, yc) = ([values[corner] for corner in corners] for values in (x, y))

    area = (xb - xa) * (yc - ya) - (yb - ya) * (xc - xa)
    left = torch.minimum(torch.minimum(xa, xb), xc).ceil_().clamp_(min=0)
    right = torch.maximum(torch.maximum(xa, xb), xc).floor_().clamp_(max=width - 1)
    top = torch.minimum(torch.minimum(ya, yb), yc).ceil_().clamp_(min=0)
    bottom = torch.maximum(torch.maximum(ya, yb), yc).floor_().clamp_(max=height - 1)
    # The normal of a front face points along -z, towards the camera; with y down its signed area is negative.
    usable = (area < 0) if cull else (area != 0)
    # NaN fails every comparison; an infinite coordinate makes the area infinite or NaN.
    usable &= (right >= left) & (bottom >= top) & area.isfinite()
    keep = usable.nonzero().squeeze(1)

    flip = area[keep] < 0
    a, b, c = (corner[keep] for corner in corners)
    # From here on all triangles have one orientation, so that a single comparison decides whether a pixel is inside.
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
    """Ranges (first, last, total pairs) of triangles with about `limit` pairs, exceeded by less than one triangle."""
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
    # Coordinates are relative to the pixel: the two triangles at an edge then compute exactly opposite values for it
    # (the same two products, subtracted the other way round), so that no pixel falls between them.
    weight_a, weight_b, weight_c = bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx
    area = weight_a + weight_b + weight_c
    inside = (torch.minimum(torch.minimum(weight_a, weight_b), weight_c) >= 0) & (area > 0)
    hit = inside.nonzero().squeeze(1)

    triangle = triangle[hit]
    za, zb, zc = (z[triangle] for _, _, z in some.corners)
    # In this form, relative to one corner, a triangle parallel to the image has exactly one depth everywhere.
    depth = za + ((zb - za) * weight_b[hit] + (zc - za) * weight_c[hit]) / area[hit]
    packed = _sortable(depth).bitwise_left_shift_(FACE_BITS).bitwise_or_(some.face[triangle])
    packed.masked_fill_(~depth.isfinite(), EMPTY)
    pixel = some.first_pixel[triangle] + row[hit] * image_width + column[hit]
    buffer.scatter_reduce_(0, pixel, packed, "amin")


def _sortable(depth: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Integers (int64, 32 bits used) in the order of the depths: the bits of negative floats are inverted."""
    bits = (depth.float() + 0.0).view(torch.int32)  # + 0.0 makes -0.0 and 0.0 one depth
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()
