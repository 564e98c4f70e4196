"""Exact closest points on a triangle mesh."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import KDTree
from torch import Tensor

from neuface.errors import InputError
from neuface.structs import TensorStruct

__all__ = ["ClosestPoints", "closest_on_mesh", "closest_on_triangles"]

# Bounds are widened by this share, so that rounding in the tree never loses the nearest triangle.
BOUND_SLACK = 1e-9
# How many points are looked up at once; bounds the number of (point, triangle) pairs in memory.
POINTS_PER_CHUNK = 4096


@dataclass(frozen=True, kw_only=True)
class ClosestPoints(TensorStruct):
    """For every query point: where on the mesh the nearest surface point is."""

    position: Float[Tensor, "points 3"]
    face: Int[Tensor, " points"]
    """The triangle it lies on; of several equally near ones, the lowest index."""
    distance: Float[Tensor, " points"]


def closest_on_mesh(
    points: Float[Tensor, "points 3"],
    vertices: Float[Tensor, "vertices 3"],
    faces: Int[Tensor, "faces 3"],
) -> ClosestPoints:
    """The nearest point of the surface to every query point: exact, not the nearest vertex.

    A k-d tree over the triangles' middles finds candidates, the exact distance decides. A triangle no nearer
    than `d` has its middle within `d` plus the distance of its furthest corner from the middle; with an upper
    bound for `d` that leaves a handful of candidates, and none is missed. Triangles are sorted by size into
    trees of their own, so that a few large ones do not widen the search among the small ones.

    Args:
        points, vertices: in one unit, which is also that of the result; computed in float64 on the CPU.
        faces: corner indices.

    Raises:
        InputError: no triangles, or a coordinate that is not finite.
    """
    if len(faces) == 0:
        raise InputError("the mesh has no triangles: expected faces of shape (n, 3) with n of at least 1")
    if not (bool(points.isfinite().all()) and bool(vertices.isfinite().all())):
        raise InputError("points and vertices must be finite, got NaN or infinity: leave such points out")
    triangles = vertices.detach().cpu().double()[faces.cpu().long()]
    queries = points.detach().cpu().double()
    search = _Search(triangles)
    face = torch.cat([search.nearest(piece) for piece in queries.split(POINTS_PER_CHUNK)])
    position = closest_on_triangles(queries, triangles[face])
    distance = torch.linalg.vector_norm(queries - position, dim=-1)
    return ClosestPoints(
        position=position.to(points), face=face.to(points.device), distance=distance.to(points)
    )


def closest_on_triangles(
    points: Float[Tensor, "n 3"], triangles: Float[Tensor, "n 3 3"]
) -> Float[Tensor, "n 3"]:
    """The nearest point of one triangle to one point, row by row; triangles without area are segments or points.

    The answer lies inside the triangle, if the foot of the perpendicular does, or else on one of its edges.
    """
    corners = triangles.unbind(1)
    best = torch.empty_like(points)
    least = torch.full_like(points[:, 0], torch.inf)
    for start, end in ((0, 1), (1, 2), (2, 0)):
        candidate = _closest_on_segments(points, corners[start], corners[end])
        squared = (points - candidate).square().sum(-1)
        nearer = squared < least
        best = torch.where(nearer[:, None], candidate, best)
        least = torch.where(nearer, squared, least)
    foot, inside = _foot_of_perpendicular(points, *corners)
    # In a sliver the foot is inaccurate, though still a point of the triangle: an edge may be nearer.
    inside = inside & ((points - foot).square().sum(-1) < least)
    return torch.where(inside[:, None], foot, best)


def _closest_on_segments(
    points: Float[Tensor, "n 3"], start: Float[Tensor, "n 3"], end: Float[Tensor, "n 3"]
) -> Float[Tensor, "n 3"]:
    along = end - start
    squared = along.square().sum(-1).clamp(min=torch.finfo(points.dtype).tiny)
    share = (((points - start) * along).sum(-1) / squared).clamp(0, 1)
    return start + share[:, None] * along


def _foot_of_perpendicular(
    points: Float[Tensor, "n 3"], a: Float[Tensor, "n 3"], b: Float[Tensor, "n 3"], c: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "n 3"], Tensor]:
    """The point's projection into the triangle's plane, and whether it falls inside the triangle."""
    first, second, offset = b - a, c - a, points - a
    normal = torch.linalg.cross(first, second)
    squared = normal.square().sum(-1)
    usable = squared > torch.finfo(points.dtype).tiny
    divisor = torch.where(usable, squared, torch.ones_like(squared))
    toward_c = (torch.linalg.cross(first, offset) * normal).sum(-1) / divisor
    toward_b = (torch.linalg.cross(offset, second) * normal).sum(-1) / divisor
    inside = usable & (toward_b >= 0) & (toward_c >= 0) & (toward_b + toward_c <= 1)
    return a + toward_b[:, None] * first + toward_c[:, None] * second, inside


class _Search:
    """Triangles in trees by their middles, one tree per class of size (powers of two)."""

    def __init__(self, triangles: Float[Tensor, "faces 3 3"]) -> None:
        self.triangles = triangles
        middles = triangles.mean(1)
        self.reach = torch.linalg.vector_norm(triangles - middles[:, None], dim=-1).amax(-1).numpy()
        self.all = KDTree(middles.numpy())
        size = np.ceil(np.log2(np.maximum(self.reach, np.finfo(float).tiny)))
        self.classes = [np.flatnonzero(size == value) for value in np.unique(size)]
        self.trees = [KDTree(middles.numpy()[members]) for members in self.classes]

    def nearest(self, points: Float[Tensor, "n 3"]) -> Int[Tensor, " n"]:
        """Index of the nearest triangle of every point."""
        _, guess = self.all.query(points.numpy())
        first = torch.from_numpy(np.asarray(guess, dtype=np.int64))
        guessed = closest_on_triangles(points, self.triangles[first])
        bound = torch.linalg.vector_norm(points - guessed, dim=-1).numpy()
        owners, candidates = [], []
        for members, tree in zip(self.classes, self.trees, strict=True):
            radius = (bound + self.reach[members].max()) * (1 + BOUND_SLACK)
            found = tree.query_ball_point(points.numpy(), radius)
            owners.append(np.repeat(np.arange(len(points)), [len(row) for row in found]))
            candidates.append(members[np.fromiter(chain.from_iterable(found), np.int64)])
        # The triangle with which the bound was found is always among the candidates.
        owner = torch.from_numpy(np.concatenate((*owners, np.arange(len(points)))))
        candidate = torch.cat((torch.from_numpy(np.concatenate(candidates)), first))
        return self._best(points, owner, candidate)

    def _best(
        self, points: Float[Tensor, "n 3"], owner: Int[Tensor, " pairs"], candidate: Int[Tensor, " pairs"]
    ) -> Int[Tensor, " n"]:
        """Of every point's candidates the nearest, the lowest index if there are several."""
        found = closest_on_triangles(points[owner], self.triangles[candidate])
        squared = (points[owner] - found).square().sum(-1)
        least = points.new_full((len(points),), torch.inf).scatter_reduce(0, owner, squared, "amin")
        nearest = squared == least[owner]
        highest = torch.full((len(points),), len(self.triangles), dtype=torch.int64)
        return highest.scatter_reduce(0, owner[nearest], candidate[nearest], "amin")
