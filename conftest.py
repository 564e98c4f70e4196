"""Heads for all tests, those of the studies and the doctests too.

They are the open head and a tiny random one, small enough to write its loops out.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from neuface.head.model import HeadModel, LandmarkEmbedding
from neuface.models import load_head
from neuface.structs import HeadParams

pytest_plugins = ["pytester", "data_folders"]
MakeHead = Callable[..., HeadModel]
MakeParams = Callable[..., HeadParams]


@pytest.fixture(scope="session")
def open_head() -> HeadModel:
    """The open head as it ships; float32 on the CPU."""
    return load_head("open")


@pytest.fixture(scope="session")
def tiny_head() -> MakeHead:
    """`tiny_head(seed=0)`: 30 vertices on a lumpy ball, 6 identity, 5 expression, 5 joints; float64."""
    return make_tiny_head


@pytest.fixture(scope="session")
def ball() -> Callable[[int, int], tuple[Tensor, Tensor]]:
    """`ball(rings, around)`: vertices of a unit sphere and its outward triangles; float64."""
    return make_ball


@pytest.fixture(scope="session")
def random_params() -> MakeParams:
    """`random_params(head, *batch, seed=0, scale=0.3)`: every parameter normal with that spread."""
    return make_random_params


def make_tiny_head(seed: int = 0, dtype: torch.dtype = torch.float64) -> HeadModel:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    template, faces = make_ball(4, 7)
    vertices, size = len(template), 0.1
    weights = torch.rand(vertices, 5, generator=generator, dtype=torch.float64) ** 3
    neck = torch.zeros(vertices, dtype=torch.bool)
    neck[-8:] = True
    uv = torch.rand(vertices, 2, generator=generator, dtype=torch.float64)
    head = HeadModel(
        name=f"tiny-{seed}",
        template=size * template + 0.004 * normal(vertices, 3),
        identity_basis=0.005 * normal(vertices, 3, 6),
        expression_basis=0.005 * normal(vertices, 3, 5),
        joint_template=0.05 * normal(5, 3),
        joint_identity_basis=0.003 * normal(5, 3, 6),
        joint_expression_basis=0.003 * normal(5, 3, 5),
        skinning_weights=weights / weights.sum(1, keepdim=True),
        parents=(-1, 0, 1, 1, 1),
        faces=faces,
        uv=uv,
        uv_faces=faces.clone(),
        expression_names=tuple(f"unit{number}" for number in range(5)),
        regions={"neck": neck, "face": ~neck},
        embeddings={
            "ibug68": _embedding(generator, 68, len(faces), torch.tensor([-0.8, -0.3, 0.0, 0.4, 0.9])),
            "mediapipe478": _embedding(generator, 478, len(faces), torch.zeros(0)),
        },
    )
    return head.to(dtype)


def make_random_params(head: HeadModel, *batch: int, seed: int = 0, scale: float = 0.3) -> HeadParams:
    generator = torch.Generator().manual_seed(seed)
    return head.neutral(*batch).map_tensors(
        lambda zero: scale * torch.randn(zero.shape, generator=generator, dtype=zero.dtype)
    )


def make_ball(rings: int, around: int) -> tuple[Tensor, Tensor]:
    """Rings of vertices from the bottom up, then the two poles; counter-clockwise seen from outside."""
    height = torch.linspace(torch.pi, 0, rings + 2, dtype=torch.float64)[1:-1, None]
    turn = torch.arange(around, dtype=torch.float64) * (2 * torch.pi / around)
    circles = torch.stack(
        (height.sin() * turn.sin(), height.cos().expand(-1, around), height.sin() * turn.cos()), -1
    )
    poles = torch.tensor([[0.0, -1.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    bottom, top = rings * around, rings * around + 1
    faces = []
    for step in range(around):
        after = (step + 1) % around
        faces += [(bottom, after, step), (top, bottom - around + step, bottom - around + after)]
        for ring in range(rings - 1):
            low, high = ring * around, (ring + 1) * around
            faces += [(low + step, low + after, high + after), (low + step, high + after, high + step)]
    return torch.cat((circles.reshape(-1, 3), poles)), torch.tensor(faces)


def _embedding(generator: torch.Generator, points: int, faces: int, yaws: Tensor) -> LandmarkEmbedding:
    def places(*shape: int) -> tuple[Tensor, Tensor]:
        weights = torch.rand(*shape, 3, generator=generator, dtype=torch.float64)
        return torch.randint(faces, shape, generator=generator), weights / weights.sum(-1, keepdim=True)

    triangles, barycentric = places(points)
    contour = places(len(yaws), 17 if len(yaws) else 0)
    return LandmarkEmbedding(
        triangles=triangles,
        barycentric=barycentric,
        contour_yaw_rad=yaws.double(),
        contour_triangles=contour[0],
        contour_barycentric=contour[1],
    )
