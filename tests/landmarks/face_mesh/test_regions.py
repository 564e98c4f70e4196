"""Pictures of regions against a readable twin that computes every pixel on its own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from neuface.landmarks.face_mesh.regions import Regions, sampled


def twin(frame: np.ndarray, region: Regions, size: int, *, repeat_border: bool) -> np.ndarray:
    """The rule of the official program, pixel by pixel."""
    height, width = frame.shape[:2]
    (cx, cy), side, angle = region.centre[0].tolist(), float(region.side[0]), float(region.angle[0])
    picture = np.zeros((3, size, size))

    def pixel(column: int, row: int) -> np.ndarray:
        if repeat_border:
            return frame[min(max(row, 0), height - 1), min(max(column, 0), width - 1)].astype(float)
        return frame[row, column].astype(float) if 0 <= row < height and 0 <= column < width else np.zeros(3)

    for row in range(size):
        for column in range(size):
            u, v = (column / size - 0.5) * side, (row / size - 0.5) * side
            x = round((cx + math.cos(angle) * u - math.sin(angle) * v) * 32) / 32
            y = round((cy + math.sin(angle) * u + math.cos(angle) * v) * 32) / 32
            left, top = math.floor(x), math.floor(y)
            a, b = x - left, y - top
            value = (1 - b) * ((1 - a) * pixel(left, top) + a * pixel(left + 1, top))
            value += b * ((1 - a) * pixel(left, top + 1) + a * pixel(left + 1, top + 1))
            picture[:, row, column] = np.floor(value + 0.5)
    return picture


@pytest.mark.parametrize("repeat_border", [True, False])
@pytest.mark.parametrize("angle", [0.0, 0.4, -2.0])
@pytest.mark.parametrize(
    ("centre", "side"), [((20.3, 14.9), 17.0), ((1.0, 2.0), 30.5), ((-40.0, 90.0), 12.0), ((20.0, 15.0), 1.5)]
)
def test_pictures_equal_the_twin(
    centre: tuple[float, float], side: float, angle: float, *, repeat_border: bool
) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (31, 43, 3), dtype=np.uint8)
    region = Regions(
        frame=torch.tensor([1]),
        centre=torch.tensor([centre], dtype=torch.float64),
        side=torch.tensor([side], dtype=torch.float64),
        angle=torch.tensor([angle], dtype=torch.float64),
    )
    frames = torch.stack([torch.zeros(31, 43, 3, dtype=torch.uint8), torch.from_numpy(frame)])
    picture = sampled(frames, region, 16, repeat_border=repeat_border)
    assert np.array_equal(picture[0].numpy(), twin(frame, region, 16, repeat_border=repeat_border))


def test_a_frame_of_one_pixel_is_one_colour() -> None:
    frames = torch.full((1, 1, 1, 3), 77, dtype=torch.uint8)
    region = Regions(
        frame=torch.tensor([0]),
        centre=torch.tensor([[0.5, 0.5]], dtype=torch.float64),
        side=torch.tensor([3.0], dtype=torch.float64),
        angle=torch.tensor([0.2], dtype=torch.float64),
    )
    assert (sampled(frames, region, 8, repeat_border=True) == 77).all()
