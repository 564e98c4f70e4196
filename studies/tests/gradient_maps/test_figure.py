from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neuface.errors import InputError
from studies.gradient_maps.figure import gradient_figure

CELL = 60
# A square of two triangles facing the viewer, in a crop of 40 px; the left edge's corners are 0 and 3.
SQUARE = torch.tensor([[8.0, 8, 0], [32, 8, 0], [32, 32, 0], [8, 32, 0]])
FACES = torch.tensor([[0, 2, 1], [0, 3, 2]])


def figure(left: float, right: float, pixels: Tensor | None = None) -> Tensor:
    """One image: the crop, a pixel map, and a map from `left` to `right` over the square."""
    return gradient_figure(
        torch.full((1, 40, 40, 3), 200, dtype=torch.uint8),
        SQUARE[None],
        FACES,
        pixel_maps={"pixels": ("u", torch.zeros(1, 20, 20) if pixels is None else pixels)},
        vertex_maps={"mesh": ("mm", torch.tensor([[left, right, right, left]]))},
        cell_px=CELL,
    )


def cell(picture: Tensor, column: int) -> Tensor:
    left = 6 + column * (CELL + 6)
    return picture[26 : 26 + CELL, left : left + CELL].int()


def test_columns_are_crop_pixel_map_and_mesh() -> None:
    picture = figure(0.0, 2.0)
    assert picture.dtype == torch.uint8
    assert picture.shape == (26 + CELL + 6 + 44, 3 * (CELL + 6) + 6, 3)
    assert (cell(picture, 0) - 200).abs().max() <= 1
    # A map of zeros has the darkest colour everywhere above its text; the mesh column is white around the square.
    assert cell(picture, 1)[:35].max() <= 10
    mesh = cell(picture, 2)
    assert mesh[2:6].min() >= 250
    dark, bright = mesh[30, 15].sum(), mesh[30, 45].sum()
    assert bright > dark + 300


def test_patterns_are_drawn_and_sizes_are_written() -> None:
    # Ten times the values: the same colours, another text.
    small, large = figure(0.0, 2.0), figure(0.0, 20.0)
    assert torch.equal(cell(small, 2)[:35], cell(large, 2)[:35])
    assert not torch.equal(cell(small, 2)[-20:], cell(large, 2)[-20:])
    mirrored = figure(2.0, 0.0)
    assert cell(mirrored, 2)[30, 15].sum() > cell(mirrored, 2)[30, 45].sum() + 300


def test_a_pixel_map_of_any_resolution_covers_the_crop() -> None:
    corner = torch.zeros(1, 4, 4)
    corner[0, 0, 3] = 1.0
    drawn = cell(figure(0.0, 1.0, corner), 1)
    assert drawn[5, CELL - 6].sum() > 500
    assert drawn[5, 5].sum() < 30


def test_errors_state_what_was_expected() -> None:
    with pytest.raises(InputError, match="pixels: expected finite values"):
        figure(0.0, 1.0, torch.full((1, 4, 4), torch.nan))
    with pytest.raises(InputError, match="pixels: expected maps of 1 images, got 2"):
        figure(0.0, 1.0, torch.zeros(2, 4, 4))
    crops = torch.zeros(1, 40, 40, 3, dtype=torch.uint8)
    with pytest.raises(InputError, match=r"mesh: expected one value per vertex, \(1, 4\), got \(1, 3\)"):
        gradient_figure(
            crops, SQUARE[None], FACES, pixel_maps={}, vertex_maps={"mesh": ("mm", torch.zeros(1, 3))}
        )
    with pytest.raises(InputError, match="meshes of 1 images, got 2"):
        gradient_figure(crops, SQUARE.expand(2, -1, -1), FACES, pixel_maps={}, vertex_maps={})
    with pytest.raises(InputError, match="crops is empty"):
        gradient_figure(crops[:0], SQUARE.expand(0, -1, -1), FACES, pixel_maps={}, vertex_maps={})
