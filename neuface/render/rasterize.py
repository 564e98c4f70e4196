"""Rasterisation: which triangle each pixel sees, and at which barycentric coordinates.

The choice of the triangle is discrete and hidden behind one small protocol, `Rasterizer`. Everything that has a
gradient (barycentrics, depth, interpolation) is computed in torch from the triangles' indices, so that any rasteriser
can be used.

Coordinates are x, y in pixels (x right, y down, pixel centres at integers) and z, smaller is nearer.
Attributes are interpolated linearly in the image, which is exact for orthographic cameras.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuface.errors import InputError
from neuface.geometry.meshes import check_face_indices
from neuface.render.zbuffer import triangle_ids
from neuface.structs import TensorStruct

__all__ = [
    "Fragments",
    "Rasterizer",
    "TorchRasterizer",
    "interpolate",
    "interpolate_corners",
    "rasterize",
    "vertices_to_px",
]


@runtime_checkable
class Rasterizer(Protocol):
    """A function that finds the triangle that each pixel sees."""

    def __call__(
        self, vertices_px: Float[Tensor, "b v 3"], faces: Int[Tensor, "f 3"], size_hw: tuple[int, int]
    ) -> Int[Tensor, "b h w"]:
        """Index into `faces` of the nearest triangle at every pixel centre, -1 where there is none."""
        ...


@dataclass(frozen=True, kw_only=True)
class TorchRasterizer:
    """Exact z-buffer in plain torch: the same code and the same result on a CPU and on CUDA.

    A pixel belongs to a triangle if its centre is inside or on the border. The nearest depth (as float32) wins, and
    the lowest face index among equal depths, so that the result does not depend on the order of execution.
    Triangles without area in the image or with a coordinate that is not finite are never visible.
    """

    cull_backfaces: bool = False
    """Whether triangles are left out whose normal (right-hand rule, x right, y down, z away) points away from the
    camera. This is about twice as fast, and correct for closed meshes whose corners are counter-clockwise seen from
    outside."""
    max_pairs: int | None = None
    """Upper bound of the (triangle, pixel) pairs tested at once, at about 100 bytes each; None is the device's
    default."""

    def __post_init__(self) -> None:
        if self.max_pairs is not None and self.max_pairs < 1:
            raise InputError(f"max_pairs is out of range: expected None or at least 1, got {self.max_pairs}")

    def __call__(
        self, vertices_px: Float[Tensor, "b v 3"], faces: Int[Tensor, "f 3"], size_hw: tuple[int, int]
    ) -> Int[Tensor, "b h w"]:
        """Index into `faces` of the nearest triangle at every pixel centre, -1 where there is none.

        Raises:
            InputError: shapes, face indices or the image size cannot be used.
        """
        _check_mesh(vertices_px, faces, size_hw)
        return triangle_ids(
            vertices_px.detach(), faces.long(), size_hw, cull=self.cull_backfaces, max_pairs=self.max_pairs
        )


@dataclass(frozen=True, kw_only=True)
class Fragments(TensorStruct):
    """The triangle, barycentric coordinates and depth of the mesh at every pixel of a batch of images."""

    triangle_id: Int[Tensor, "b h w"]
    """Index into the faces; -1 is background."""
    barycentrics: Float[Tensor, "b h w 3"]
    """Weights of the triangle's three corners, in the order of `faces`; 0 in the background."""
    depth: Float[Tensor, "b h w"]
    """The z of the surface; 0 in the background."""

    @property
    def mask(self) -> Bool[Tensor, "b h w"]:
        """Pixels that see the mesh."""
        return self.triangle_id >= 0


def rasterize(
    vertices_px: Float[Tensor, "b v 3"],
    faces: Int[Tensor, "f 3"],
    size_hw: tuple[int, int],
    rasterizer: Rasterizer | None = None,
) -> Fragments:
    """The visible triangle, barycentrics and depth of every pixel.

    Barycentrics and depth are differentiable with respect to the vertices; the visibility at edges is not.

    Args:
        vertices_px: x, y in pixels and z, smaller is nearer.
        faces: corner indices, shared by all images.
        size_hw: height and width of the images.
        rasterizer: finds the triangles; `TorchRasterizer()` when None.

    Raises:
        InputError: shapes, face indices or the image size cannot be used.

    Example:
        >>> corners = torch.tensor([[[0.0, 0.0, 5.0], [2.0, 0.0, 5.0], [0.0, 2.0, 5.0]]])
        >>> rasterize(corners, torch.tensor([[0, 1, 2]]), (2, 3)).triangle_id.tolist()
        [[[0, 0, 0], [0, 0, -1]]]
    """
    _check_mesh(vertices_px, faces, size_hw)
    finder = TorchRasterizer() if rasterizer is None else rasterizer
    triangle_id = finder(vertices_px.detach(), faces, size_hw)
    seen = triangle_id.flatten().add(1).nonzero().squeeze(1)
    corners = _gather_corners(triangle_id, seen, faces, vertices_px)

    width = size_hw[1]
    pixel = torch.stack([seen % width, seen // width % size_hw[0]], -1).to(corners.dtype)
    a, b, c = (corners[..., :2] - pixel[:, None]).unbind(1)
    weight_a, weight_b, weight_c = _cross(b, c), _cross(c, a), _cross(a, b)
    barycentrics = torch.stack([weight_a, weight_b, weight_c], -1) / (weight_a + weight_b + weight_c)[:, None]
    return Fragments(
        triangle_id=triangle_id,
        barycentrics=_spread(triangle_id, seen, barycentrics),
        depth=_spread(triangle_id, seen, _weighted_sum(barycentrics, corners[..., 2:])).squeeze(-1),
    )


def vertices_to_px(
    vertices_ndc: Float[Tensor, "*batch vertices 3"], size_px: int
) -> Float[Tensor, "*batch vertices 3"]:
    """Vertices in crop NDC as input of `rasterize` for a square image of side `size_px`; z is scaled like x and y.

    Example:
        >>> vertices_to_px(torch.tensor([[-1.0, 0.0, 0.5]]), 100)
        tensor([[-0.5000, 49.5000, 25.0000]])
    """
    half = size_px / 2
    return vertices_ndc * half + vertices_ndc.new_tensor((half - 0.5, half - 0.5, 0.0))


def interpolate(
    fragments: Fragments, faces: Int[Tensor, "f 3"], attributes: Float[Tensor, "*batch v c"]
) -> Float[Tensor, "b h w c"]:
    """Vertex attributes interpolated at every pixel, 0 in the background.

    Args:
        fragments: from `rasterize` with the same faces.
        faces: corner indices.
        attributes: `b v c` for values that differ between the images, `v c` for values they share.

    Raises:
        InputError: the attributes have another batch size or number of axes.
    """
    images = fragments.triangle_id.shape[0]
    if attributes.dim() not in (2, 3) or (attributes.dim() == 3 and attributes.shape[0] != images):
        raise InputError(
            f"attributes have the wrong shape: expected (v, c) or ({images}, v, c), "
            f"got {tuple(attributes.shape)}"
        )
    seen = fragments.mask.flatten().nonzero().squeeze(1)
    values = _gather_corners(fragments.triangle_id, seen, faces, attributes)
    return _blend(fragments, seen, values)


def interpolate_corners(
    fragments: Fragments, corner_attributes: Float[Tensor, "f 3 c"]
) -> Float[Tensor, "b h w c"]:
    """Attributes of the faces' corners interpolated at every pixel, 0 in the background.

    This is the interpolation for texture coordinates, which are discontinuous at seams.
    """
    seen = fragments.mask.flatten().nonzero().squeeze(1)
    values = corner_attributes.index_select(0, fragments.triangle_id.flatten()[seen])
    return _blend(fragments, seen, values)


def _blend(
    fragments: Fragments, seen: Int[Tensor, " n"], values: Float[Tensor, "n 3 c"]
) -> Float[Tensor, "b h w c"]:
    weights = fragments.barycentrics.reshape(-1, 3).index_select(0, seen)
    return _spread(fragments.triangle_id, seen, _weighted_sum(weights, values))


def _weighted_sum(weights: Float[Tensor, "n 3"], values: Float[Tensor, "n 3 c"]) -> Float[Tensor, "n c"]:
    # The sum is written out, because torch reduces an axis of three more slowly than it adds three tensors.
    a, b, c = weights.unsqueeze(-1).unbind(1)
    return a * values[:, 0] + b * values[:, 1] + c * values[:, 2]


def _gather_corners(
    triangle_id: Int[Tensor, "b h w"],
    seen: Int[Tensor, " n"],
    faces: Int[Tensor, "f 3"],
    attributes: Float[Tensor, "*batch v c"],
) -> Float[Tensor, "n 3 c"]:
    """Attributes of the triangle's three corners for every foreground pixel; `seen` are flat pixel indices."""
    rows = faces.long().index_select(0, triangle_id.flatten()[seen].long())
    if attributes.dim() == 3:
        image = seen // (triangle_id.shape[1] * triangle_id.shape[2])
        rows = rows + image[:, None] * attributes.shape[1]
    # The backward pass of index_select (index_add) is fast and, on a CPU, adds in a fixed order.
    flat = attributes.reshape(-1, attributes.shape[-1])
    return flat.index_select(0, rows.flatten()).unflatten(0, (-1, 3))


def _spread(
    triangle_id: Int[Tensor, "b h w"], seen: Int[Tensor, " n"], values: Float[Tensor, "n c"]
) -> Float[Tensor, "b h w c"]:
    """Images of zeros with the foreground values at their pixels."""
    images = values.new_zeros(triangle_id.numel(), values.shape[-1]).index_copy(0, seen, values)
    return images.reshape(*triangle_id.shape, values.shape[-1])


def _cross(a: Float[Tensor, "*n 2"], b: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n"]:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _check_mesh(vertices_px: Tensor, faces: Tensor, size_hw: tuple[int, int]) -> None:
    if vertices_px.dim() != 3 or vertices_px.shape[-1] != 3:
        raise InputError(
            f"vertices_px has the wrong shape: expected (b, v, 3), got {tuple(vertices_px.shape)}"
        )
    if faces.dim() != 2 or faces.shape[-1] != 3 or faces.is_floating_point():
        raise InputError(
            f"faces cannot be used: expected integers (f, 3), got {faces.dtype} {tuple(faces.shape)}"
        )
    if min(size_hw) < 1:
        raise InputError(f"size_hw is out of range: expected at least 1 by 1 pixel, got {size_hw}")
    check_face_indices(faces, vertices_px.shape[1])
