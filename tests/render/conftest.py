"""Small meshes for the tests of rendering."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor


@pytest.fixture(scope="session")
def icosphere() -> tuple[Tensor, Tensor]:
    """Unit sphere of 642 vertices and 1,280 faces, counter-clockwise seen from outside; float64."""
    g = (1 + 5**0.5) / 2
    corners = [(-1, g, 0), (1, g, 0), (-1, -g, 0), (1, -g, 0), (0, -1, g), (0, 1, g)]
    corners += [(0, -1, -g), (0, 1, -g), (g, 0, -1), (g, 0, 1), (-g, 0, -1), (-g, 0, 1)]
    text = "0b5 051 017 07a 0ab 159 5b4 ba2 a76 718 394 342 326 368 389 495 24b 62a 867 981"
    faces = torch.tensor([[int(digit, 16) for digit in face] for face in text.split()])
    points = torch.nn.functional.normalize(torch.tensor(corners, dtype=torch.float64), dim=1)
    for _ in range(3):
        edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(1).values
        unique, inverse = edges.unique(dim=0, return_inverse=True)
        ab, bc, ca = (inverse + len(points)).view(3, -1)
        middle = torch.nn.functional.normalize(points[unique].mean(1), dim=1)
        points = torch.cat([points, middle])
        a, b, c = faces.T
        parts = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
        faces = torch.cat([torch.stack(part, 1) for part in parts])
    return points, faces
