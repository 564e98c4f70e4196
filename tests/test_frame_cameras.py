"""Cameras in frame pixels: they project to where the crop's camera and the crop lead."""

from __future__ import annotations

import pytest
import torch

from neuface.structs import Crop, WeakPerspective

VIEWS, TIME, SIDE = 2, 5, 224


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def crops_of(dtype: torch.dtype) -> Crop:
    """Squares of 150 to 350 px within frames of 640 px."""
    side = 150 + 200 * random(VIEWS, TIME, seed=0)
    corner = 290 * random(VIEWS, TIME, 2, seed=1)
    matrix = torch.eye(3, dtype=torch.float64).expand(VIEWS, TIME, 3, 3).clone()
    matrix[..., :2, :2] *= (SIDE / side)[..., None, None]
    matrix[..., :2, 2] = -corner * (SIDE / side)[..., None]
    return Crop(T_crop_frame=matrix.to(dtype), size_px=SIDE)


def crop_camera() -> WeakPerspective:
    return WeakPerspective(
        scale=(8 + random(VIEWS, TIME, seed=2)).float(), offset=(random(VIEWS, TIME, 2, seed=3) - 0.5).float()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projection_to_the_frame_equals_the_way_through_the_crop(dtype: torch.dtype) -> None:
    crops, camera = crops_of(dtype), crop_camera()
    points = (0.2 * random(VIEWS, TIME, 68, 3, seed=4) - 0.1).float()
    found = crops.camera_in_frame(camera)
    assert found.scale.dtype == torch.float32
    exact = Crop(T_crop_frame=crops.T_crop_frame.double(), size_px=SIDE)
    expected = exact.ndc_to_frame(camera.to(torch.float64).project(points.double()))
    torch.testing.assert_close(found.project(points).double(), expected, atol=1e-4, rtol=0)
    # Depth keeps the proportions of the face: one metre is as long away from the camera as across the image.
    depth_px = found.depth(points)
    torch.testing.assert_close(
        depth_px / found.scale[..., None],
        camera.depth(points) / camera.scale[..., None],
        atol=1e-6,
        rtol=1e-5,
    )


def test_a_camera_comes_back_from_the_frame() -> None:
    crops, camera = crops_of(torch.float64), crop_camera()
    again = crops.camera_in_crop(crops.camera_in_frame(camera))
    torch.testing.assert_close(again.scale, camera.scale, atol=0, rtol=1e-6)
    torch.testing.assert_close(again.offset, camera.offset, atol=1e-6, rtol=0)
