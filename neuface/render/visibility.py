"""Which vertices of a mesh a camera sees, and which the mesh itself hides.

A vertex is hidden if a triangle of the mesh crosses the ray from the vertex to the camera. All rays are parallel
(weak perspective), so that the test takes place in the image: the vertex lies inside the projected triangle, and
behind it. Testing all pairs is quadratic in the size of the mesh, and a depth buffer is exact only up to its pixels.
This algorithm is exact, and fast because it finds for every triangle the few vertices that can lie inside it:

1. The image is divided into horizontal rows, and all vertices are sorted by row and, within a row, from left to
   right. A single sort does both: its key is the number of the row plus the position in it, scaled to 0..1.
2. A triangle overlaps the rows from its top corner to its bottom corner. In each of them, the vertices between the
   triangle's left and right end are one contiguous span of the sorted list, found by two binary searches. The spans
   of a triangle contain all vertices inside it::

       row 7:   .  . .  | .   .  . |  . .        one span: the vertices between the bars

3. The spans are expanded to (triangle, vertex) pairs, a bounded number at a time. A pair is discarded at once if no
   corner of the triangle is in front of the vertex. The other pairs are tested exactly: the vertex is inside if the
   three edge functions have one sign, and the depth interpolated from the corners decides whether it is behind.

Several meshes are processed together by giving the rows of each mesh numbers of their own. `slow_visible` in the
tests is the slow twin of this module: one ray per vertex against one triangle after the other.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuface.errors import InputError
from neuface.geometry.meshes import check_face_indices

__all__ = ["vertex_visible"]

# Upper bound of the (triangle, vertex) pairs tested at once, at about 150 bytes each. On a CPU their tensors then fit
# into the cache and stay below the 32,768 elements from which torch splits an operation among threads. On CUDA a
# large number keeps the kernel launches few.
CPU_PAIRS, CUDA_PAIRS = 30_000, 1 << 23
# Typical number of pairs per triangle of a head; it determines how many meshes are processed together.
PAIRS_PER_TRIANGLE = 10
# Rows of the image per square root of the number of vertices. More rows give more spans, but fewer pairs.
ROWS_PER_ROOT = 1.5


class _Spans(NamedTuple):
    """Contiguous ranges of the sorted vertices, each with the vertices of one row that may lie inside a triangle."""

    triangle: Int[Tensor, " spans"]
    first: Int[Tensor, " spans"]
    """Position of the first vertex in `order`."""
    length: Int[Tensor, " spans"]
    order: Int[Tensor, " v"]
    """Flat vertex indices, row by row and from left to right."""


def vertex_visible(
    vertices_image: Float[Tensor, "*batch vertices 3"],
    faces: Int[Tensor, "faces 3"],
    relative_tolerance: float = 0.002,
) -> Bool[Tensor, "*batch vertices"]:
    """Whether no triangle of the same mesh lies between the vertex and the camera.

    Both sides of a triangle hide what is behind them, its edges included. A triangle never hides its own corners, so
    that a slanted surface needs no tolerance to be visible.

    Args:
        vertices_image: x right, y down, z away from the camera (smaller is nearer), all in one unit, as from
            `WeakPerspective.to_image`, or points of the head frame times `HEAD_TO_IMAGE_SIGNS`.
        faces: corner indices, shared by all meshes. A triangle without area in the image hides nothing.
        relative_tolerance: smallest depth by which a triangle must be in front of a vertex to hide it, as a share of
            the mesh's size (the larger side of its box in the image; 0.002 of a head is about half a millimetre). It
            keeps surfaces that touch from hiding each other.

    Raises:
        InputError: a coordinate is not finite, a face refers to a vertex outside the mesh, or the tolerance is
            negative.

    Example:
        >>> triangle = torch.tensor([[-1.0, -1.0, 0.0], [1.0, -1.0, 0.0], [0.0, 1.0, 0.0]])
        >>> behind_and_beside = torch.tensor([[0.0, 0.0, 1.0], [0.9, 0.9, 1.0]])
        >>> vertex_visible(torch.cat((triangle, behind_and_beside)), torch.tensor([[0, 1, 2]])).tolist()
        [True, True, True, False, True]
    """
    _check(vertices_image, faces, relative_tolerance)
    meshes = vertices_image.detach().reshape(-1, *vertices_image.shape[-2:])
    hidden = torch.zeros(meshes.shape[:2], dtype=torch.bool, device=meshes.device)
    max_pairs = CUDA_PAIRS if meshes.is_cuda else CPU_PAIRS
    group_size = max(1, max_pairs // (PAIRS_PER_TRIANGLE * max(1, faces.shape[0])))
    if hidden.numel() and faces.numel():
        for start in range(0, meshes.shape[0], group_size):
            group = meshes[start : start + group_size]
            hidden[start : start + group_size] = _hidden(group, faces.long(), relative_tolerance, max_pairs)
    return ~hidden.reshape(vertices_image.shape[:-1])


def _hidden(
    meshes: Float[Tensor, "b v 3"], faces: Int[Tensor, "f 3"], relative_tolerance: float, max_pairs: int
) -> Bool[Tensor, "b v"]:
    """Whether a triangle of the same mesh lies in front of the vertex; at most about `max_pairs` pairs at once."""
    low = meshes[..., :2].amin(1)
    size = (meshes[..., :2].amax(1) - low).amax(-1).clamp(min=torch.finfo(meshes.dtype).tiny)[:, None]
    first_vertex = torch.arange(meshes.shape[0], device=meshes.device)[:, None, None] * meshes.shape[1]
    corners = (faces + first_vertex).flatten(0, 1).T.contiguous()
    x, y, z = meshes.flatten(0, 1).T.contiguous().unbind(0)
    # A triangle hides the vertex if its depth at the vertex is below this.
    hiding_depth = (meshes[..., 2] - relative_tolerance * size).flatten()

    spans = _find_spans(meshes, low, size, corners)
    nearest_corner = z[corners].amin(0)[spans.triangle]
    hidden = torch.zeros_like(hiding_depth, dtype=torch.bool)
    for begin, end in pairwise(_cuts(spans.length, max_pairs)):
        span, position = _expand(spans.length[begin:end])
        vertex = spans.order[spans.first[begin:end][span] + position]
        possible = (nearest_corner[begin:end][span] < hiding_depth[vertex]).nonzero().squeeze(1)
        vertex = vertex[possible]
        triangle_corners = corners[:, spans.triangle[begin:end][span[possible]]]
        hidden[_hidden_of_pairs((x, y, z), hiding_depth, vertex, triangle_corners)] = True
    return hidden.reshape(meshes.shape[:2])


def _find_spans(
    meshes: Float[Tensor, "b v 3"],
    low: Float[Tensor, "b 2"],
    size: Float[Tensor, "b 1"],
    corners: Int[Tensor, "3 n"],
) -> _Spans:
    """For every triangle and every row it overlaps, the span of vertices between its left and right end."""
    rows = max(1, round(ROWS_PER_ROOT * meshes.shape[1] ** 0.5))
    # Positions are 0 to just below 1 and in float64, so that row number plus position is one sortable key.
    across, down = (0.999 * (meshes[..., :2] - low[:, None]).double() / size[:, None]).unbind(-1)
    first_row = torch.arange(meshes.shape[0], device=meshes.device)[:, None] * rows
    row = (first_row + (down * rows).long()).flatten()
    across = across.flatten()
    keys, order = (row + across).sort()

    top, bottom = row[corners].aminmax(dim=0)
    left, right = across[corners].aminmax(dim=0)
    triangle, rows_below_top = _expand(bottom - top + 1)
    span_row = top[triangle] + rows_below_top
    first = torch.searchsorted(keys, span_row + left[triangle])
    end = torch.searchsorted(keys, span_row + right[triangle], right=True)
    return _Spans(triangle=triangle, first=first, length=end - first, order=order)


def _cuts(lengths: Int[Tensor, " spans"], max_pairs: int) -> list[int]:
    """Borders between groups of spans with about `max_pairs` pairs; a group exceeds it by less than one span."""
    pairs_up_to = lengths.cumsum(0)
    wanted = torch.arange(max_pairs, max(max_pairs, int(pairs_up_to[-1])), max_pairs, device=lengths.device)
    return [0, *torch.searchsorted(pairs_up_to, wanted).add_(1).unique().tolist(), len(lengths)]


def _hidden_of_pairs(
    coordinates: tuple[Tensor, Tensor, Tensor],
    hiding_depth: Float[Tensor, " v"],
    vertex: Int[Tensor, " pairs"],
    corners: Int[Tensor, "3 pairs"],
) -> Int[Tensor, " hidden"]:
    """The vertices of those (vertex, triangle) pairs in which the triangle hides the vertex."""
    x, y, z = coordinates
    at_x, at_y = x[vertex], y[vertex]
    # Coordinates relative to the vertex: the two triangles at an edge then compute exactly opposite values for it
    # (the same two products, subtracted the other way round), so that no vertex falls between them.
    (ax, ay), (bx, by), (cx, cy) = ((x[corner] - at_x, y[corner] - at_y) for corner in corners)
    a, b, c = bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx
    area = a + b + c
    side = area.sign()
    inside = (torch.minimum(torch.minimum(a * side, b * side), c * side) >= 0) & (area != 0)
    inside &= (corners != vertex).all(0)
    hit = inside.nonzero().squeeze(1)
    za, zb, zc = z[corners[:, hit]].unbind(0)
    depth = za + ((zb - za) * b[hit] + (zc - za) * c[hit]) / area[hit]
    vertex = vertex[hit]
    return vertex[depth < hiding_depth[vertex]]


def _expand(lengths: Int[Tensor, " n"]) -> tuple[Int[Tensor, " total"], Int[Tensor, " total"]]:
    """Indices of the lengths, each repeated `length` times, and the position within its repetition.

    Lengths 2, 0, 3 give the indices 0, 0, 2, 2, 2 and the positions 0, 1, 0, 1, 2.
    """
    item = torch.repeat_interleave(lengths)
    before = lengths.cumsum(0) - lengths
    return item, torch.arange(len(item), device=item.device) - before[item]


def _check(vertices_image: Tensor, faces: Tensor, relative_tolerance: float) -> None:
    if not relative_tolerance >= 0:
        raise InputError(f"relative_tolerance must be 0 or more, got {relative_tolerance}")
    if not bool(vertices_image.isfinite().all()):
        raise InputError(
            "vertices_image has coordinates that are not finite, got NaN or infinity: leave such meshes out"
        )
    check_face_indices(faces, vertices_image.shape[-2])
