"""Crops as DECA's program makes them: the square, the picture in it, and the way back to the frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from data_folders import PARITY

from neuface.cropping import DECA_CROP, SMIRK_CROP, crop_images, steady_crops
from neuface.landmarks.schemes import IBUG68, MEDIAPIPE478, to_ibug68
from neuface.structs import Crop, Track

FILE = PARITY / "reference" / "crop.npz"
ROWS = [0, 1, 60, 112, 171, 222, 223]
SIZE_HW = (300, 420)


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    with np.load(FILE) as archive:
        return dict(archive)


def landmarks_of(points: np.ndarray, dtype: torch.dtype = torch.float64) -> Track:
    points_px = torch.from_numpy(points).to(dtype)[None, None]
    scheme = IBUG68 if points.shape[-2] == 68 else MEDIAPIPE478
    return Track(points_px=points_px, confidence=torch.ones_like(points_px[..., 0]), scheme=scheme)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", ["inside", "border"])
def test_square_and_picture_equal_the_official_ones(
    stored: dict[str, np.ndarray], case: str, dtype: torch.dtype
) -> None:
    """Also from landmarks in single precision, as the pipeline has them."""
    crops = steady_crops(landmarks_of(stored[f"keypoints_{case}"], dtype), [SIZE_HW], DECA_CROP)
    matrix = crops.T_crop_frame[0]
    np.testing.assert_allclose(matrix[0], stored[f"{case}_tform"], atol=1e-4, rtol=0)
    picture = crop_images(torch.from_numpy(stored["source"])[None], matrix, 224, antialias=False)[0].numpy()
    np.testing.assert_allclose(picture[:, ROWS], stored[f"{case}_image_rows"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(picture, stored[f"{case}_image_u16"] / 65535, atol=2e-5, rtol=0)


@pytest.mark.parametrize("case", ["noface", "nocrop"])
def test_pictures_of_any_similarity(stored: dict[str, np.ndarray], case: str) -> None:
    matrix = torch.from_numpy(stored[f"{case}_tform"])[None]
    picture = crop_images(torch.from_numpy(stored["source"])[None], matrix, 224, antialias=False)[0].numpy()
    # The matrix is stored in single precision, which alone moves the picture by a hundred-thousandth.
    np.testing.assert_allclose(picture[:, ROWS], stored[f"{case}_image_rows"], atol=2e-5, rtol=0)


def test_landmarks_in_the_crop_and_back(stored: dict[str, np.ndarray]) -> None:
    inside = landmarks_of(stored["keypoints_inside"])
    crops = steady_crops(inside, [SIZE_HW], DECA_CROP)
    np.testing.assert_allclose(
        crops.to_crop_px(inside.points_px)[0, 0], stored["inside_keypoints_in_crop"], atol=1e-4, rtol=0
    )
    border = Crop(T_crop_frame=torch.from_numpy(stored["border_tform"]).double(), size_px=224)
    # Theirs is measured from the centre of pixel 0, ours from its edge.
    ndc = torch.from_numpy(stored["back_landmarks2d_ndc"][0]).double() + 1 / 224
    frame_px = border.ndc_to_frame(ndc)
    np.testing.assert_allclose(frame_px, stored["back_landmarks2d_pixels"][0], atol=1e-3, rtol=0)
    normalised = frame_px / torch.tensor([420.0, 300.0]) * 2 - 1
    np.testing.assert_allclose(normalised, stored["back_landmarks2d_normalised"][0], atol=1e-5, rtol=0)


def test_side_is_cut_down_as_in_two_steps() -> None:
    """Theirs multiplies by 1.1 and then by 1.25: the one factor of the rule never gives another whole number."""
    sums = np.arange(2, 8000)
    theirs = np.array([int(total / 2 * 1.1 * 1.25) for total in sums])
    for total, side in zip(sums[::7], theirs[::7], strict=True):
        assert np.floor(DECA_CROP.margin * (total / 2)) == side
    points = np.zeros((68, 2))
    points[1] = (101, 60)
    crops = steady_crops(landmarks_of(points), [SIZE_HW], DECA_CROP)
    assert float(crops.T_crop_frame[0, 0, 0, 0]) == pytest.approx(223 / int(161 / 2 * 1.1 * 1.25), rel=1e-12)


def test_smirk_looks_at_all_points_of_mediapipe() -> None:
    points = np.random.default_rng(0).uniform(100, 200, (478, 2))
    points[:2] = (100, 90), (200, 210)
    crops = steady_crops(landmarks_of(points), [SIZE_HW], SMIRK_CROP)
    side = int((100 + 120) / 2 * 1.4)
    corners = crops.to_frame_px(torch.tensor([[0.0, 0.0], [223.0, 223.0]]).double().expand(1, 1, 2, 2))
    half = torch.tensor(side / 2)
    expected = torch.stack([torch.tensor([150.0, 150.0]) - half, torch.tensor([150.0, 150.0]) + half])
    torch.testing.assert_close(corners[0, 0], expected.double())
    sparse = to_ibug68(landmarks_of(points))
    of_68 = steady_crops(sparse, [SIZE_HW], DECA_CROP).T_crop_frame
    assert torch.equal(steady_crops(landmarks_of(points), [SIZE_HW], DECA_CROP).T_crop_frame, of_68)


def test_a_clip_is_smoothed_by_default(stored: dict[str, np.ndarray]) -> None:
    steps = np.array([0.0, 9.0, 0.0, 9.0, 0.0])[:, None, None]
    points = torch.from_numpy((stored["keypoints_inside"] + steps).astype(np.float32))[None]
    track = Track(points_px=points, confidence=torch.ones(points.shape[:-1]), scheme=IBUG68)
    raw = steady_crops(track, [SIZE_HW], replace(DECA_CROP, sigma_frames=0)).T_crop_frame[0, :, 0, 2]
    calm = steady_crops(track, [SIZE_HW], DECA_CROP).T_crop_frame[0, :, 0, 2]
    assert float(calm.diff().abs().max()) < 0.5 * float(raw.diff().abs().max())
    np.testing.assert_allclose(raw[0], stored["inside_tform"][0, 2], atol=1e-4)
