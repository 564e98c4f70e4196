"""Exact closest points on a triangle mesh."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuface.errors import InputError
from neuface.structs import TensorStruct

__all__ = ["ClosestPoints", "closest_on_mesh", "closest_on_triangles"]

# Relative widening of the search radius: rounding in the tree must never lose the nearest triangle.
BOUND_SLACK = 1e-9
# Number of points that are looked up at once; it bounds the (point, triangle) pairs in memory.
POINTS_PER_CHUNK = 4096


@dataclass(frozen=True, kw_only=True)
class ClosestPoints(TensorStruct):
    """For every query point, the nearest point of the mesh's surface."""

    position: Float[Tensor, "points 3"]
    """The nearest point of the surface, in the unit of the mesh."""
    face: Int[Tensor, " points"]
    """The triangle it lies on; of several equally near ones, the one of lowest index."""
    distance: Float[Tensor, " points"]
    """From the query point, in the unit of the mesh; 0 or more."""


def closest_on_mesh(
    points: Float[Tensor, "points 3"],
    vertices: Float[Tensor, "vertices 3"],
    faces: Int[Tensor, "faces 3"],
) -> ClosestPoints:
    """The nearest point of the surface to every query point: exact, and not merely the nearest vertex.

    A k-d tree over the triangles' centroids finds candidates, and the exact distance decides between them. A
    triangle at distance `d` has its centroid within `d` plus its radius (the distance from its centroid to its
    furthest corner). An upper bound for `d` therefore limits the search to a ball that contains the nearest
    triangle. Triangles are sorted by radius into several trees, so that a few large ones do not widen the search
    among the small ones.

    Args:
        points, vertices: in one unit, which is also that of the result; the computation is in float64 on the CPU.
        faces: corner indices.

    Raises:
        InputError: no triangles, or a coordinate that is not finite.

    Example:
        >>> square = torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [2.0, 2.0, 0.0], [0.0, 2.0, 0.0]])
        >>> faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
        >>> closest_on_mesh(torch.tensor([[1.5, 0.5, 3.0]]), square, faces).distance
        tensor([3.])
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
    """Row by row, the point of a triangle that is nearest to a point, in the unit of the inputs.

    It is the foot of the perpendicular if that lies inside the triangle, and otherwise lies on one of the edges.
    Triangles without area count as segments or points.
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
    # In a sliver the computed foot is inaccurate, though still a point of the triangle; an edge may be nearer.
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
    """The point's projection into the triangle's plane, and whether it lies inside the triangle."""
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
    """Triangles in k-d trees of their centroids, one tree per class of radius (powers of two)."""

    def __init__(self, triangles: Float[Tensor, "faces 3 3"]) -> None:
        from scipy.spatial import KDTree  # On use: it loads slowly.

        self.triangles = triangles
        centroids = triangles.mean(1)
        self.radius = torch.linalg.vector_norm(triangles - centroids[:, None], dim=-1).amax(-1).numpy()
        self.all = KDTree(centroids.numpy())
        size = np.ceil(np.log2(np.maximum(self.radius, np.finfo(float).tiny)))
        self.classes = [np.flatnonzero(size == value) for value in np.unique(size)]
        self.trees = [KDTree(centroids.numpy()[members]) for members in self.classes]

    def nearest(self, points: Float[Tensor, "n 3"]) -> Int[Tensor, " n"]:
        """Index of the nearest triangle of every point."""
        # The triangle with the nearest centroid need not be the nearest, but its distance bounds the search.
        _, nearest_centroid = self.all.query(points.numpy())
        first = torch.from_numpy(np.asarray(nearest_centroid, dtype=np.int64))
        on_first = closest_on_triangles(points, self.triangles[first])
        bound = torch.linalg.vector_norm(points - on_first, dim=-1).numpy()
        owners, candidates = [], []
        for members, tree in zip(self.classes, self.trees, strict=True):
            search_radius = (bound + self.radius[members].max()) * (1 + BOUND_SLACK)
            found = tree.query_ball_point(points.numpy(), search_radius)
            owners.append(np.repeat(np.arange(len(points)), [len(row) for row in found]))
            candidates.append(members[np.fromiter(chain.from_iterable(found), np.int64)])
        # Rounding cannot exclude the triangle that gave the bound: it is always added to the candidates.
        owner = torch.from_numpy(np.concatenate((*owners, np.arange(len(points)))))
        candidate = torch.cat((torch.from_numpy(np.concatenate(candidates)), first))
        return self._best(points, owner, candidate)

    def _best(
        self, points: Float[Tensor, "n 3"], owner: Int[Tensor, " pairs"], candidate: Int[Tensor, " pairs"]
    ) -> Int[Tensor, " n"]:
        """The nearest candidate of every point; the one of lowest index if several are equally near."""
        found = closest_on_triangles(points[owner], self.triangles[candidate])
        squared = (points[owner] - found).square().sum(-1)
        least = points.new_full((len(points),), torch.inf).scatter_reduce(0, owner, squared, "amin")
        nearest = squared == least[owner]
        highest = torch.full((len(points),), len(self.triangles), dtype=torch.int64)
        return highest.scatter_reduce(0, owner[nearest], candidate[nearest], "amin")
