"""Triangle meshes: normals, and the check of face indices."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuface.errors import InputError

__all__ = ["check_face_indices", "face_normals", "vertex_normals"]


def face_normals(
    vertices: Float[Tensor, "*batch v 3"], faces: Int[Tensor, "f 3"]
) -> Float[Tensor, "*batch f 3"]:
    """Unit normals of the faces, by the right-hand rule over the corner order.

    Convention:
        Corners (0,0,0), (1,0,0), (0,1,0) have the normal (0,0,1). A face without area has the normal 0 and a
        gradient of 0.

    Example:
        >>> corners = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        >>> face_normals(corners, torch.tensor([[0, 1, 2]]))
        tensor([[0., 0., 1.]])
    """
    return _unit(_area_vectors(vertices, faces))


def vertex_normals(
    vertices: Float[Tensor, "*batch v 3"], faces: Int[Tensor, "f 3"]
) -> Float[Tensor, "*batch v 3"]:
    """Unit normals of the vertices: the mean of the adjoining faces' normals, weighted by face area.

    The result is differentiable, and on a CPU bit-reproducible. A vertex without any face of positive area has the
    normal 0 and a gradient of 0. The corner order is that of `face_normals`.
    """
    batch, count = vertices.shape[:-2], vertices.shape[-2]
    area = _area_vectors(vertices, faces).reshape(-1, faces.shape[0], 3)
    # The meshes are stacked into one list of rows, because index_add_ along the first axis copies whole rows and
    # adds them in a fixed order.
    first_row = torch.arange(area.shape[0], device=faces.device)[:, None] * count
    total = area.new_zeros(area.shape[0] * count, 3)
    for corner in faces.long().unbind(-1):
        total = total.index_add_(0, (first_row + corner).flatten(), area.flatten(0, 1))
    return _unit(total).reshape(*batch, count, 3)


def check_face_indices(faces: Int[Tensor, "f 3"], num_vertices: int) -> None:
    """Raises InputError if a face refers to a vertex outside of 0 to `num_vertices` - 1."""
    if faces.numel():
        low, high = (int(bound) for bound in faces.aminmax())
        if low < 0 or high >= num_vertices:
            raise InputError(
                f"faces point outside the mesh: expected indices 0 to {num_vertices - 1}, got {low} to {high}"
            )


def _area_vectors(
    vertices: Float[Tensor, "*batch v 3"], faces: Int[Tensor, "f 3"]
) -> Float[Tensor, "*batch f 3"]:
    """Normals whose length is twice the area of their face."""
    a, b, c = (vertices.index_select(-2, corner) for corner in faces.long().unbind(-1))
    return torch.linalg.cross(b - a, c - a)


def _unit(vectors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    squared = vectors.square().sum(-1, keepdim=True)
    usable = squared >= torch.finfo(vectors.dtype).tiny
    # The inner `where` keeps 1 / 0 out of the backward pass, in which 0 * inf would become NaN.
    length = torch.where(usable, squared, torch.ones_like(squared)).sqrt()
    return torch.where(usable, vectors / length, torch.zeros_like(vectors))
