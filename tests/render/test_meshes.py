"""Normals of faces and vertices."""

from __future__ import annotations

import torch
from torch import Tensor

from neuface.geometry.meshes import face_normals, vertex_normals


def test_the_normals_of_a_sphere_point_outwards(icosphere: tuple[Tensor, Tensor]) -> None:
    vertices, faces = icosphere
    normals = vertex_normals(vertices, faces)
    assert torch.allclose(normals.norm(dim=-1), torch.ones(len(vertices), dtype=torch.float64))
    assert (normals * vertices).sum(-1).min() > 0.999
    centroids = torch.nn.functional.normalize(vertices[faces].mean(1), dim=1)
    assert (face_normals(vertices, faces) * centroids).sum(-1).min() > 0.9999


def test_the_example_of_the_convention() -> None:
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    assert face_normals(corners, torch.tensor([[0, 1, 2]])).tolist() == [[0, 0, 1]]


def test_faces_are_weighted_by_their_area() -> None:
    # Two faces share vertex 0: one of area 2 towards z, one of area 1/2 towards x.
    points = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 1, 0], [0, 0, 1]])
    normal = vertex_normals(points, torch.tensor([[0, 1, 2], [0, 3, 4]]))[0]
    assert torch.allclose(normal, torch.nn.functional.normalize(torch.tensor([1.0, 0, 4]), dim=0))


def test_any_leading_axes_are_accepted(icosphere: tuple[Tensor, Tensor]) -> None:
    vertices, faces = icosphere
    stretch = torch.tensor([[1.0, 1, 1], [1, 2, 3]], dtype=torch.float64)
    batch = (vertices * stretch[:, None])[:, None].expand(-1, 3, -1, -1)
    normals = vertex_normals(batch, faces)
    assert normals.shape == batch.shape
    assert torch.equal(normals[1, 2], vertex_normals(vertices * stretch[1], faces))


def test_faces_without_area_and_unused_vertices_have_zero_normal_and_gradient() -> None:
    points = torch.zeros(4, 3, requires_grad=True)
    faces = torch.tensor([[0, 1, 2]])
    normals = vertex_normals(points, faces)
    (normals.sum() + face_normals(points, faces).sum()).backward()
    assert normals.eq(0).all()
    assert points.grad is not None
    assert points.grad.eq(0).all()


def test_gradients_of_normals_are_those_of_finite_differences() -> None:
    points = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    faces = torch.tensor([[0, 1, 2], [2, 1, 3], [3, 4, 0]])
    assert torch.autograd.gradcheck(lambda p: vertex_normals(p, faces), points.requires_grad_())
