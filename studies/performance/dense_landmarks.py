"""A scheme of 1,000 landmarks: MediaPipe's 478, and vertices spread over the front of the head."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuface.head.model import HeadModel, LandmarkEmbedding
from neuface.landmarks.schemes import MEDIAPIPE478, SCHEMES
from neuface.structs import Scheme

DENSE1000 = replace(
    MEDIAPIPE478,
    name="dense1000",
    count=1000,
    # Nothing here flips an image, so that the added points need no counterparts.
    mirrored=(*MEDIAPIPE478.mirrored, *range(MEDIAPIPE478.count, 1000)),
)
"""It measures what many points cost; no detector finds the added ones."""
STUDIED_SCHEMES: dict[str, Scheme] = {**SCHEMES, DENSE1000.name: DENSE1000}


def with_dense_landmarks(head: HeadModel) -> HeadModel:
    """The head with an embedding of `DENSE1000`; added points are vertices of the front that lie far apart."""
    sparse = head.embeddings[MEDIAPIPE478.name]
    count = DENSE1000.count - MEDIAPIPE478.count
    front = (head.template[:, 2] > head.template[:, 2].mean()).nonzero()[:, 0]
    vertices = front[farthest_points(head.template[front], count)]
    # The first triangle that has the vertex, and the vertex's corner of it.
    has_vertex = head.faces.flatten() == vertices[:, None]
    corner = has_vertex.int().argmax(1)
    added = torch.nn.functional.one_hot(corner % 3, 3).to(sparse.barycentric)
    embedding = LandmarkEmbedding(
        triangles=torch.cat((sparse.triangles, corner // 3)),
        barycentric=torch.cat((sparse.barycentric, added)),
        contour_yaw_rad=sparse.contour_yaw_rad,
        contour_triangles=sparse.contour_triangles,
        contour_barycentric=sparse.contour_barycentric,
        contour_angle=sparse.contour_angle,
    )
    return replace(head, embeddings={**head.embeddings, DENSE1000.name: embedding})


def farthest_points(points: Float[Tensor, "n 3"], count: int) -> Int[Tensor, " count"]:
    """Indices of points, each the farthest from those before it, the first one first (Gonzalez, 1985).

    >>> farthest_points(torch.tensor([[0.0, 0, 0], [1, 0, 0], [9, 0, 0]]), 2).tolist()
    [0, 2]
    """
    distance = torch.full((len(points),), float("inf")).to(points)
    chosen = [0]
    while len(chosen) < count:
        distance = torch.minimum(distance, (points - points[chosen[-1]]).square().sum(-1))
        chosen.append(int(distance.argmax()))
    return torch.tensor(chosen)
