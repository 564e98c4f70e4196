"""Rasterisation against a pixel-by-pixel oracle, its invariants and its gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from neuface.errors import InputError
from neuface.render import Rasterizer, TorchRasterizer, interpolate, interpolate_corners, rasterize


def oracle_ids(vertices: np.ndarray, faces: np.ndarray, size_hw: tuple[int, int], cull: bool) -> np.ndarray:
    """Pixel by pixel and face by face: the nearest face whose border or inside contains the pixel's centre."""
    ids = np.full(size_hw, -1)
    for row in range(size_hw[0]):
        for column in range(size_hw[1]):
            nearest = np.float32(np.inf)
            for index, face in enumerate(faces):
                corners = vertices[face]
                (ax, ay), (bx, by), (cx, cy) = corners[:, :2] - (column, row)
                weights = np.array([bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx])
                area = weights.sum()
                if area == 0 or (cull and area > 0) or not np.isfinite(area):
                    continue
                barycentrics = weights / area
                depth = np.float32((barycentrics * corners[:, 2]).sum())
                if barycentrics.min() >= 0 and depth < nearest:
                    nearest, ids[row, column] = depth, index
    return ids


def random_mesh(seed: int, images: int = 1, reach: float = 6.0) -> tuple[Tensor, Tensor]:
    """Triangles all over a 16 by 20 image and up to `reach` pixels beyond it."""
    random = torch.Generator().manual_seed(seed)
    span = torch.tensor([20 + 2 * reach, 16 + 2 * reach, 4.0], dtype=torch.float64)
    start = torch.tensor([-reach, -reach, -2.0], dtype=torch.float64)
    vertices = torch.rand(images, 24, 3, dtype=torch.float64, generator=random) * span + start
    return vertices, torch.randint(0, 24, (30, 3), generator=random)


def on_screen(icosphere: tuple[Tensor, Tensor], size: int) -> tuple[Tensor, Tensor]:
    vertices, faces = icosphere
    return (vertices * (0.4 * size) + torch.tensor([size / 2, size / 2, 0.0]))[None].float(), faces


@pytest.mark.parametrize("cull", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_the_pixel_by_pixel_oracle(seed: int, cull: bool) -> None:
    vertices, faces = random_mesh(seed)
    found = TorchRasterizer(cull_backfaces=cull)(vertices, faces, (16, 20))
    assert np.array_equal(found[0].numpy(), oracle_ids(vertices[0].numpy(), faces.numpy(), (16, 20), cull))


def test_corners_on_pixel_centres_and_shared_edges_agree_with_the_oracle() -> None:
    random = torch.Generator().manual_seed(5)
    vertices = torch.randint(-2, 14, (1, 30, 3), generator=random).double()
    faces = torch.randint(0, 30, (40, 3), generator=random)
    # Each face has a constant integer depth, with many ties.
    flat = vertices[:, faces.flatten()]
    flat[..., 2] = torch.randint(-3, 3, (40,), generator=random).double().repeat_interleave(3)
    own = torch.arange(120).view(40, 3)
    found = TorchRasterizer()(flat, own, (12, 12))
    assert np.array_equal(found[0].numpy(), oracle_ids(flat[0].numpy(), own.numpy(), (12, 12), False))


def test_equal_depths_go_to_the_lowest_index() -> None:
    square = torch.tensor([[[0.0, 0, 1], [9, 0, 1], [9, 9, 1], [0, 9, 1]]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [2, 3, 0], [1, 2, 0]])
    assert TorchRasterizer()(square, faces, (10, 10)).unique().tolist() == [0, 1]
    assert TorchRasterizer()(square, faces.flip(0), (10, 10)).unique().tolist() == [0, 1]


def test_the_nearer_triangle_wins_for_both_signs_of_depth() -> None:
    base = torch.tensor([[-9.0, -9, 0], [30, -9, 0], [-9, 30, 0]])
    faces = torch.arange(12).view(4, 3)
    for depths in ([3.0, 1, 2, 4], [-1.0, -3, -2, 5], [0.5, -0.1, 0, 1]):
        stacked = base.repeat(4, 1)
        stacked[:, 2] = torch.tensor(depths).repeat_interleave(3)
        assert TorchRasterizer()(stacked[None], faces, (4, 4)).eq(1).all()


def test_a_closed_mesh_has_no_holes(icosphere: tuple[Tensor, Tensor]) -> None:
    vertices, faces = on_screen(icosphere, 64)
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    inside = torch.hypot(x - 32.0, y - 32.0) < 0.4 * 64 - 0.3
    for finder in (TorchRasterizer(), TorchRasterizer(cull_backfaces=True)):
        assert (finder(vertices, faces, (64, 64))[0] >= 0)[inside].all()


def test_culling_keeps_the_visible_side_of_a_closed_mesh(icosphere: tuple[Tensor, Tensor]) -> None:
    vertices, faces = on_screen(icosphere, 48)
    every = TorchRasterizer()(vertices, faces, (48, 48))
    front = TorchRasterizer(cull_backfaces=True)(vertices, faces, (48, 48))
    assert torch.equal(every, front)
    assert TorchRasterizer(cull_backfaces=True)(vertices, faces.flip(1), (48, 48)).ne(every).any()


def test_off_screen_degenerate_and_non_finite_triangles_are_never_visible() -> None:
    nan, inf = float("nan"), float("inf")
    points = [[-9.0, 2, 0], [-3, 2, 0], [-3, 8, 0], [2, 2, 0], [4, 4, 0], [6, 6, 0]]
    points += [[nan, 2, 0], [2, nan, 0], [inf, 3, 0], [1, 9, 0], [9, 1, nan], [1e30, 1e30, 0]]
    vertices = torch.tensor([points])
    faces = torch.tensor([[0, 1, 2], [3, 4, 5], [3, 3, 3], [3, 9, 6], [7, 4, 5], [8, 9, 3], [3, 9, 10]])
    fragments = rasterize(vertices, faces, (10, 10))
    assert fragments.triangle_id.eq(-1).all()
    assert not fragments.mask.any()
    assert fragments.barycentrics.eq(0).all()
    assert fragments.depth.eq(0).all()


def test_a_mesh_without_faces_and_an_empty_batch_are_accepted() -> None:
    none = torch.zeros(0, 3, dtype=torch.long)
    assert rasterize(torch.zeros(2, 0, 3), none, (3, 4)).triangle_id.tolist() == [[[-1] * 4] * 3] * 2
    assert rasterize(torch.zeros(0, 3, 3), torch.tensor([[0, 1, 2]]), (3, 4)).depth.shape == (0, 3, 4)


def test_a_batch_equals_a_loop_and_chunks_change_nothing() -> None:
    vertices, faces = random_mesh(7, images=5)
    whole = TorchRasterizer(max_pairs=1 << 20)(vertices, faces, (16, 20))
    loop = torch.cat([TorchRasterizer()(image[None], faces, (16, 20)) for image in vertices])
    assert torch.equal(whole, loop)
    for pairs in (1, 37, 100, 1000):
        assert torch.equal(TorchRasterizer(max_pairs=pairs)(vertices, faces, (16, 20)), whole)


def test_barycentrics_reproduce_the_pixel_and_the_depth() -> None:
    vertices, faces = random_mesh(3, images=2)
    fragments = rasterize(vertices, faces, (16, 20))
    positions = interpolate(fragments, faces, vertices)
    image, row, column = fragments.mask.nonzero().unbind(1)
    assert len(image) > 200
    expected = torch.stack([column.double(), row.double(), fragments.depth[image, row, column]], -1)
    assert torch.allclose(positions[fragments.mask], expected, atol=1e-9)
    assert torch.allclose(fragments.barycentrics.sum(-1), fragments.mask.double())
    assert fragments.barycentrics.min() > -1e-12


def test_every_kind_of_attribute_reproduces_linear_functions() -> None:
    vertices, faces = random_mesh(11)
    vertices[..., 2] = 0.25 * vertices[..., 0] - 0.5 * vertices[..., 1] + 3
    fragments = rasterize(vertices, faces, (16, 20))
    y, x = torch.meshgrid(torch.arange(16.0).double(), torch.arange(20.0).double(), indexing="ij")
    wanted = (0.25 * x - 0.5 * y + 3) * fragments.mask[0]
    shared = interpolate(fragments, faces, vertices[0, :, 2:])
    corners = interpolate_corners(fragments, vertices[0, faces][..., 2:])
    for found in (fragments.depth[0], shared[0, ..., 0], corners[0, ..., 0]):
        assert torch.allclose(found, wanted, atol=1e-9)


def test_corner_attributes_may_jump_at_a_seam() -> None:
    square = torch.tensor([[[0.0, 0, 1], [9, 0, 1], [9, 9, 1], [0, 9, 1]]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    fragments = rasterize(square, faces, (10, 10))
    values = interpolate_corners(fragments, torch.tensor([[[5.0]] * 3, [[7.0]] * 3]))
    assert torch.allclose(values[..., 0], 5.0 + 2.0 * fragments.triangle_id)


def test_gradients_of_barycentrics_depth_and_interpolation() -> None:
    vertices = torch.tensor([[[0.3, 0.2, 1], [4.6, 0.4, 2], [0.7, 4.4, 3], [4.8, 4.9, 0.5]]]).double()
    faces = torch.tensor([[0, 1, 2], [1, 3, 2]])
    values = torch.randn(1, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def pixels(points: Tensor, attributes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fragments = rasterize(points, faces, (5, 5))
        return fragments.barycentrics, fragments.depth, interpolate(fragments, faces, attributes)

    assert torch.autograd.gradcheck(pixels, (vertices.requires_grad_(), values.requires_grad_()))


def test_any_callable_can_find_the_triangles() -> None:
    def everywhere_the_first(vertices_px: Tensor, faces: Tensor, size_hw: tuple[int, int]) -> Tensor:
        return torch.zeros(len(vertices_px), *size_hw, dtype=torch.int32)

    assert isinstance(TorchRasterizer(), Rasterizer)
    corners = torch.tensor([[[0.0, 0, 2], [9, 0, 2], [0, 9, 2]]])
    fragments = rasterize(corners, torch.tensor([[0, 1, 2]]), (3, 3), everywhere_the_first)
    assert torch.allclose(fragments.depth, torch.full((1, 3, 3), 2.0))


def test_errors_state_what_was_expected() -> None:
    vertices, faces = random_mesh(0)
    fragments = rasterize(vertices, faces, (4, 4))
    with pytest.raises(InputError, match=r"expected indices 0 to 23, got 0 to 99"):
        rasterize(vertices, torch.tensor([[0, 1, 99]]), (4, 4))
    with pytest.raises(InputError, match="size_hw"):
        rasterize(vertices, faces, (0, 4))
    with pytest.raises(InputError, match=r"expected \(v, c\) or \(1, v, c\), got \(2, 24, 3\)"):
        interpolate(fragments, faces, vertices.expand(2, -1, -1))
    with pytest.raises(InputError, match="max_pairs"):
        TorchRasterizer(max_pairs=0)
