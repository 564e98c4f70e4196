"""The z-buffer behind `TorchRasterizer`.

Triangles that cannot be visible are dropped. The others are cut into rows of pixels, a bounded number at a time: two
edges of a triangle bound a row, and the pixel centres between them are inside. Depth and face index are packed into
one int64, so that a single integer minimum per pixel selects the nearest triangle, and among equal depths that of
lowest index, whatever the order of the pixels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["triangle_ids"]

# Upper bound of the pixels in the bounding boxes of the triangles that are drawn at once, at about 100 bytes each. On
# a CPU their tensors then fit into the cache; on CUDA a large number keeps the kernel launches few.
CPU_PAIRS = 200_000
CUDA_PAIRS = 1 << 24

# Value of a pixel without a triangle; every packed depth is smaller.
EMPTY = torch.iinfo(torch.int64).max
# Number of low bits that hold the face index; the depth is above them.
FACE_BITS = 32


class _Candidates(NamedTuple):
    """Triangles that may cover a pixel, one entry per triangle and image; float64, in which few pixels are so near to
    an edge that rounding decides."""

    lower: Float[Tensor, "n edges 2"]
    """x, y of the end of every edge that has the smaller y, and among equal ones the smaller x: two triangles at an
    edge then compute the same numbers for it, so that no pixel falls between them."""
    upper: Float[Tensor, "n edges 2"]
    plane: Float[Tensor, "n 3"]
    """Depth at x = y = 0, its change per pixel along x, and along y."""
    face: Int[Tensor, " n"]
    image: Int[Tensor, " n"]
    top: Int[Tensor, " n"]
    """First row of the bounding box, in whole pixels."""
    rows: Int[Tensor, " n"]
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
        for first, last in _split(candidates.pairs, limit):
            _draw(_Candidates(*(values[first:last] for values in candidates)), size_hw, buffer)
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

    left, right, top, bottom = (edge[keep].long() for edge in (left, right, top, bottom))
    triangles = torch.stack([torch.stack([v[c[keep]] for c in corners], 1) for v in (x, y, z)], -1).double()
    image, rows = keep // faces.shape[0], bottom - top + 1
    first, second = triangles[..., :2], triangles[:, (1, 2, 0), :2]
    swapped = (first[..., 1] > second[..., 1]) | (
        (first[..., 1] == second[..., 1]) & (first[..., 0] > second[..., 0])
    )
    return _Candidates(
        lower=torch.where(swapped[..., None], second, first),
        upper=torch.where(swapped[..., None], first, second),
        plane=_planes(triangles),
        face=keep - image * faces.shape[0],
        image=image,
        top=top,
        rows=rows,
        pairs=(right - left + 1) * rows,
    )


def _planes(triangles: Float[Tensor, "n corners 3"]) -> Float[Tensor, "n 3"]:
    """The plane of every triangle: its depth at x = y = 0, and the changes per pixel along x and along y.

    A triangle parallel to the image has exactly one depth everywhere.
    """
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = (corner.unbind(-1) for corner in triangles.unbind(1))
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    along_x = ((bz - az) * (cy - ay) - (cz - az) * (by - ay)) / area
    along_y = ((cz - az) * (bx - ax) - (bz - az) * (cx - ax)) / area
    return torch.stack([az - along_x * ax - along_y * ay, along_x, along_y], -1)


def _split(pairs: Int[Tensor, " n"], limit: int) -> list[tuple[int, int]]:
    """Ranges (first, last) of triangles with about `limit` pairs, exceeded by less than one triangle."""
    ends = pairs.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    wanted = torch.arange(limit, total + limit, limit, device=pairs.device)
    cuts = torch.searchsorted(ends, wanted).add_(1).clamp_(max=len(ends)).unique().tolist()
    return list(pairwise((0, *cuts)))


def _draw(candidates: _Candidates, size_hw: tuple[int, int], buffer: Int[Tensor, " p"]) -> None:
    """Lower the packed depths in `buffer` by some triangles."""
    height, width = size_hw
    triangle, row = _repeated(candidates.rows)
    # `index_select` is faster than indexing.
    lower, upper, plane, face, image, top = (values.index_select(0, triangle) for values in candidates[:6])
    y = top + row
    first_x, last_x = _bounds(lower, upper, y.double())
    # Bounded on both sides, for huge coordinates have no integers.
    first_x, last_x = first_x.clamp(0, width).long(), last_x.clamp(-1, width - 1).long()

    line, column = _repeated((last_x - first_x + 1).clamp(min=0))
    start = (image * height + y) * width
    base, along_x = plane[:, 0] + plane[:, 2] * y, plane[:, 1]
    first_x, start, base, along_x, face = (
        values.index_select(0, line) for values in (first_x, start, base, along_x, face)
    )
    x = first_x + column
    depth = (base + along_x * x).float()
    packed = _sortable(depth).bitwise_left_shift_(FACE_BITS).bitwise_or_(face)
    packed.masked_fill_(~depth.isfinite(), EMPTY)
    buffer.scatter_reduce_(0, start + x, packed, "amin")


def _repeated(counts: Int[Tensor, " n"]) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
    """Every index as often as its count says, and beside it 0, 1, ... up to that count."""
    index = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    before = counts.cumsum(0) - counts
    return index, torch.arange(len(index), device=counts.device) - before.index_select(0, index)


def _bounds(
    lower: Float[Tensor, "n edges 2"], upper: Float[Tensor, "n edges 2"], y: Float[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """First and last whole pixel between the edges of a triangle in the row `y`.

    A horizontal edge bounds no row that its neighbours do not bound as well: they share its ends.
    """
    (x, low), (right, high) = lower.unbind(-1), upper.unbind(-1)
    crossed = (low <= y[:, None]) & (y[:, None] <= high) & (low < high)
    crossing = x + (y[:, None] - low) * (right - x) / (high - low)
    first = crossing.masked_fill(~crossed, float("inf")).amin(-1).ceil()
    last = crossing.masked_fill(~crossed, float("-inf")).amax(-1).floor()
    return first, last


def _sortable(depth: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Integers (int64, 32 bits used) in the order of the depths: the bits of negative floats are inverted."""
    bits = (depth.float() + 0.0).view(torch.int32)  # + 0.0 makes -0.0 and 0.0 one depth
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()
