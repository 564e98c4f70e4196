"""Which vertices of a mesh a camera sees, and which the mesh itself hides.

Every vertex is tested against the triangles before it, along rays parallel to the view (weak perspective). This is
the question a depth buffer answers up to its pixels. Here the vertices themselves are put in rows of the image,
each row sorted from left to right, so that a triangle finds the vertices beneath it, and the answer is exact.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuface.errors import InputError

__all__ = ["vertex_visible"]

# (triangle, vertex) pairs tested at once, about 150 bytes each: on a CPU, what fits into the cache and is below the
# 32,768 elements from which torch shares an operation among threads; on CUDA, few kernel launches count.
CPU_PAIRS, CUDA_PAIRS = 30_000, 1 << 23
# Rows of the image per square root of the number of vertices. More rows mean more runs of vertices, but fewer pairs.
ROWS_PER_ROOT = 1.5


class _Beneath(NamedTuple):
    """Runs of vertices in one row, left to right, that may lie beneath a triangle."""

    triangle: Int[Tensor, " n"]
    first: Int[Tensor, " n"]
    """Place of the first vertex in `order`."""
    length: Int[Tensor, " n"]
    order: Int[Tensor, " v"]
    """Flat vertex indices, row by row."""


def vertex_visible(
    vertices_image: Float[Tensor, "*batch vertices 3"],
    faces: Int[Tensor, "faces 3"],
    relative_tolerance: float = 0.002,
) -> Bool[Tensor, "*batch vertices"]:
    """True where no triangle of the same mesh lies between the vertex and the camera.

    Both sides of a triangle hide what is behind them, its edges included. The triangles a vertex belongs to never
    hide it, so a slanted surface needs no tolerance for itself.

    Args:
        vertices_image: x right, y down, z away from the camera (smaller is nearer), all in one unit, as from
            `WeakPerspective.to_image`; points of the head frame times `HEAD_TO_IMAGE_SIGNS` will do, too.
        faces: corner indices, shared by all meshes. A triangle without area in the image hides nothing.
        relative_tolerance: a triangle that is in front by less than this share of the mesh's size (the larger side
            of its box in the image; 0.002 of a head is about half a millimetre) hides nothing: surfaces that touch.

    Raises:
        InputError: a coordinate is not finite, a face points outside the mesh, or the tolerance is negative.
    """
    _check(vertices_image, faces, relative_tolerance)
    meshes = vertices_image.detach().reshape(-1, *vertices_image.shape[-2:])
    hidden = torch.zeros(meshes.shape[:2], dtype=torch.bool, device=meshes.device)
    limit = CUDA_PAIRS if meshes.is_cuda else CPU_PAIRS
    # A head has about ten pairs per triangle: this many meshes fill one test.
    together = max(1, limit // (10 * max(1, faces.shape[0])))
    if hidden.numel() and faces.numel():
        for start in range(0, meshes.shape[0], together):
            group = meshes[start : start + together]
            hidden[start : start + together] = _hidden(group, faces.long(), relative_tolerance, limit)
    return ~hidden.reshape(vertices_image.shape[:-1])


def _hidden(
    meshes: Float[Tensor, "b v 3"], faces: Int[Tensor, "f 3"], relative_tolerance: float, limit: int
) -> Bool[Tensor, "b v"]:
    low = meshes[..., :2].amin(1)
    size = (meshes[..., :2].amax(1) - low).amax(-1).clamp(min=torch.finfo(meshes.dtype).tiny)[:, None]
    first_vertex = torch.arange(meshes.shape[0], device=meshes.device)[:, None, None] * meshes.shape[1]
    corners = (faces + first_vertex).flatten(0, 1).T.contiguous()
    x, y, z = meshes.flatten(0, 1).T.contiguous().unbind(0)
    # A vertex is behind a triangle if the triangle's depth is less than this.
    behind_of = (meshes[..., 2] - relative_tolerance * size).flatten()

    runs = _vertices_beneath(meshes, low, size, corners)
    nearest = z[corners].amin(0)[runs.triangle]
    ends = runs.length.cumsum(0)
    steps = torch.arange(limit, max(limit, int(ends[-1])), limit, device=ends.device)
    cuts = [0, *torch.searchsorted(ends, steps).add_(1).unique().tolist(), len(ends)]
    hidden = torch.zeros_like(behind_of, dtype=torch.bool)
    for begin, end in pairwise(cuts):
        run, step = _expand(runs.length[begin:end])
        vertex = runs.order[runs.first[begin:end][run] + step]
        before = (nearest[begin:end][run] < behind_of[vertex]).nonzero().squeeze(1)
        vertex = vertex[before]
        triangle_corners = corners[:, runs.triangle[begin:end][run[before]]]
        hidden[_covered((x, y, z), behind_of, vertex, triangle_corners)] = True
    return hidden.reshape(meshes.shape[:2])


def _vertices_beneath(
    meshes: Float[Tensor, "b v 3"],
    low: Float[Tensor, "b 2"],
    size: Float[Tensor, "b 1"],
    corners: Int[Tensor, "3 n"],
) -> _Beneath:
    """For every triangle and row of the image it touches, the vertices between its left and right end."""
    rows = max(1, round(ROWS_PER_ROOT * meshes.shape[1] ** 0.5))
    # 0 to just below 1, in double precision: the number of the row plus the place in it is one sortable key.
    across, down = (0.999 * (meshes[..., :2] - low[:, None]).double() / size[:, None]).unbind(-1)
    first_row = torch.arange(meshes.shape[0], device=meshes.device)[:, None] * rows
    row = (first_row + (down * rows).long()).flatten()
    across = across.flatten()
    keys, order = (row + across).sort()

    top, bottom = row[corners].aminmax(dim=0)
    left, right = across[corners].aminmax(dim=0)
    triangle, step = _expand(bottom - top + 1)
    line = top[triangle] + step
    first = torch.searchsorted(keys, line + left[triangle])
    end = torch.searchsorted(keys, line + right[triangle], right=True)
    return _Beneath(triangle=triangle, first=first, length=end - first, order=order)


def _covered(
    coordinates: tuple[Tensor, Tensor, Tensor],
    behind_of: Float[Tensor, " v"],
    vertex: Int[Tensor, " n"],
    corners: Int[Tensor, "3 n"],
) -> Int[Tensor, " hidden"]:
    """Those of the vertices that lie beneath and behind the triangle at the same place of the list."""
    x, y, z = coordinates
    at_x, at_y = x[vertex], y[vertex]
    (ax, ay), (bx, by), (cx, cy) = ((x[corner] - at_x, y[corner] - at_y) for corner in corners)
    # Relative to the vertex, two triangles compute exactly opposite values for a shared edge: no gap between them.
    a, b, c = bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx
    area = a + b + c
    side = area.sign()
    inside = (torch.minimum(torch.minimum(a * side, b * side), c * side) >= 0) & (area != 0)
    inside &= (corners != vertex).all(0)
    hit = inside.nonzero().squeeze(1)
    za, zb, zc = z[corners[:, hit]].unbind(0)
    depth = za + ((zb - za) * b[hit] + (zc - za) * c[hit]) / area[hit]
    vertex = vertex[hit]
    return vertex[depth < behind_of[vertex]]


def _expand(lengths: Int[Tensor, " n"]) -> tuple[Int[Tensor, " total"], Int[Tensor, " total"]]:
    """Every item as often as its length says, and how often it came before."""
    item = torch.repeat_interleave(lengths)
    before = lengths.cumsum(0) - lengths
    return item, torch.arange(len(item), device=item.device) - before[item]


def _check(vertices_image: Tensor, faces: Tensor, relative_tolerance: float) -> None:
    if not relative_tolerance >= 0:
        raise InputError(f"relative_tolerance must be 0 or more, got {relative_tolerance}")
    if not bool(vertices_image.isfinite().all()):
        raise InputError("vertices_image has coordinates that are not finite: no mesh to look at")
    if faces.numel():
        low, high = (int(bound) for bound in faces.aminmax())
        if low < 0 or high >= vertices_image.shape[-2]:
            raise InputError(
                f"faces point outside the mesh: expected indices 0 to {vertices_image.shape[-2] - 1}, "
                f"got {low} to {high}"
            )
