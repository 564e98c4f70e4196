"""Shading: spherical harmonics, Lambert and Blinn terms, and rendered images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from neuface.errors import InputError
from neuface.render import (
    TorchRasterizer,
    blinn,
    grey_clay,
    lambert,
    rasterize,
    render_mesh,
    sh_basis,
    sh_light,
    smooth_shade,
    toward_point,
)


def ball(icosphere: tuple[Tensor, Tensor], size: int = 40) -> tuple[Tensor, Tensor]:
    vertices, faces = icosphere
    return (vertices * (0.35 * size) + torch.tensor([size / 2 - 0.5, size / 2 - 0.5, 0.0]))[
        None
    ].float(), faces


def test_the_harmonics_are_orthonormal() -> None:
    # Gauss-Legendre nodes in z and equal steps in angle integrate products of degree 4 exactly.
    nodes, weights = np.polynomial.legendre.leggauss(5)
    angle = torch.arange(8, dtype=torch.float64) * (2 * torch.pi / 8)
    z = torch.from_numpy(nodes)[:, None].expand(-1, 8)
    radius = (1 - z * z).sqrt()
    basis = sh_basis(torch.stack([radius * angle.cos(), radius * angle.sin(), z], -1))
    measure = torch.from_numpy(weights)[:, None].expand(-1, 8) * (2 * torch.pi / 8)
    gram = torch.einsum("ij,ija,ijb->ab", measure, basis, basis)
    assert torch.allclose(gram, torch.eye(9, dtype=torch.float64), atol=1e-12)


def test_the_example_of_the_harmonics() -> None:
    expected = torch.tensor([0.2821, 0, 0.4886, 0, 0, 0, 0.6308, 0, 0])
    assert torch.allclose(sh_basis(torch.tensor([0.0, 0, 1])), expected, atol=5e-5)


def test_constant_harmonic_light_is_the_same_everywhere() -> None:
    normals = torch.nn.functional.normalize(
        torch.randn(7, 3, generator=torch.Generator().manual_seed(0)), dim=1
    )
    coefficients = torch.zeros(9, 3)
    coefficients[0] = torch.tensor([1.0, 2, 3])
    light = sh_light(normals, coefficients)
    assert torch.allclose(light, (0.2820948 * coefficients[0]).expand(7, 3))
    assert torch.allclose(sh_light(normals, coefficients.expand(7, -1, -1)), light)


def test_lambert_and_blinn_by_hand() -> None:
    light = torch.tensor([0.0, 0, -1])
    normals = torch.tensor([[0.0, 0, -1], [0.6, 0, -0.8], [1, 0, 0], [0, 0, 1]])
    assert torch.allclose(lambert(normals, light), torch.tensor([1, 0.8, 0, 0]))
    assert torch.allclose(lambert(normals, light, wrap=1.0), torch.tensor([1, 0.9, 0.5, 0]))
    assert torch.allclose(blinn(normals, light, 2.0), torch.tensor([1, 0.64, 0, 0]))
    sideways = blinn(normals[:1], torch.tensor([-1.0, 0, 0]), 2.0, torch.tensor([-0.6, 0, -0.8]))
    assert sideways.tolist() == [0]
    points = torch.tensor([[0.0, 0, 0], [3, 0, 0]])
    assert torch.allclose(
        toward_point(points, torch.tensor([0.0, 4, 0])), torch.tensor([[0, 1, 0], [-0.6, 0.8, 0]])
    )


def test_clay_is_lit_from_the_upper_left_and_stays_in_range(icosphere: tuple[Tensor, Tensor]) -> None:
    shaded = grey_clay(icosphere[0].float())
    assert shaded.min() >= 0
    assert shaded.max() <= 1
    sides = torch.nn.functional.normalize(torch.tensor([[-1.0, -1, -1], [1, 1, -1]]), dim=1)
    upper_left, lower_right = grey_clay(sides)
    assert (upper_left > lower_right + 0.2).all()
    assert grey_clay(sides, torch.zeros(2, 3)).max() < grey_clay(sides).max()


def test_the_inside_of_a_mesh_is_shaded_as_seen_from_inside() -> None:
    corners = torch.tensor([[[-9.0, -9, 0], [30, -9, 0], [-9, 30, 0]]])
    colours = []
    for faces in (torch.tensor([[0, 1, 2]]), torch.tensor([[0, 2, 1]])):
        colours.append(smooth_shade(rasterize(corners, faces, (3, 3)), corners, faces))
    assert torch.allclose(*colours)
    assert torch.allclose(colours[0][0, 1, 1], grey_clay(torch.tensor([0.0, 0, -1])))


def test_the_shader_is_a_parameter(icosphere: tuple[Tensor, Tensor]) -> None:
    vertices, faces = ball(icosphere)
    fragments = rasterize(vertices, faces, (40, 40))
    normals = smooth_shade(fragments, vertices, faces, shader=lambda normals, albedo: normals)
    assert torch.allclose(normals[0, 20, 20], torch.tensor([0.0, 0, -1]), atol=0.1)
    assert normals[~fragments.mask].eq(0).all()
    with pytest.raises(InputError, match="shader"):
        smooth_shade(fragments, vertices, faces, shader=lambda normals, albedo: normals[:, :1])


def test_render_mesh_is_antialiased_and_composed(icosphere: tuple[Tensor, Tensor]) -> None:
    vertices, faces = ball(icosphere)
    background = torch.full((40, 40, 3), 0.25)
    rgb, alpha = render_mesh(vertices, faces, (40, 40), background=background, supersample=4)
    assert rgb[alpha == 0].eq(0.25).all()
    assert ((alpha > 0) & (alpha < 1)).sum() > 40
    # The covered area is that of the disc, and symmetric about its centre.
    assert alpha.sum().item() == pytest.approx(torch.pi * (0.35 * 40) ** 2, rel=0.01)
    assert torch.allclose(alpha, alpha.flip(1, 2), atol=0.25)
    assert rgb.min() >= 0
    assert rgb.max() <= 1
    plain, _ = render_mesh(vertices, faces, (40, 40), supersample=4)
    assert torch.allclose(rgb, plain + (1 - alpha[..., None]) * background)
    clay = torch.full((len(icosphere[0]), 3), 0.8)
    own, _ = render_mesh(vertices, faces, (40, 40), clay, background[None], supersample=4)
    assert torch.allclose(own, rgb, atol=0.05)


def test_render_mesh_colours_and_gradient(icosphere: tuple[Tensor, Tensor]) -> None:
    vertices, faces = ball(icosphere)
    red = torch.tensor([0.9, 0.0, 0.0]).expand(len(icosphere[0]), 3).clone().requires_grad_()
    rgb, alpha = render_mesh(vertices, faces, (40, 40), red, supersample=1, rasterizer=TorchRasterizer())
    assert (rgb[alpha == 1][:, 0] > rgb[alpha == 1][:, 1]).float().mean() > 0.95
    rgb.sum().backward()
    assert red.grad is not None
    assert red.grad.abs().sum() > 0


def test_render_mesh_refuses_wrong_arguments(icosphere: tuple[Tensor, Tensor]) -> None:
    vertices, faces = ball(icosphere)
    with pytest.raises(InputError, match="supersample"):
        render_mesh(vertices, faces, (8, 8), supersample=0)
    with pytest.raises(InputError, match="background"):
        render_mesh(vertices, faces, (8, 8), background=torch.zeros(9, 8, 3))
    with pytest.raises(InputError, match="attributes"):
        render_mesh(vertices, faces, (8, 8), colors=torch.zeros_like(vertices).expand(2, -1, -1))
