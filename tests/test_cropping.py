"""Crops: steady, invertible, the same for both schemes, and resampled at the right place."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuface.cropping import OPEN_CROP, crop_images, source_crops, steady_crops
from neuface.errors import InputError
from neuface.frames import ArraySource
from neuface.landmarks.schemes import IBUG68, MEDIAPIPE478, to_ibug68
from neuface.structs import Crop, Track

SIZE_HW = (240, 320)


def landmarks_of(centres_xy: torch.Tensor, width: float = 60.0) -> Track:
    """The same 68 points in every frame, `width` wide and centred where told."""
    shape = torch.rand(68, 2, generator=torch.Generator().manual_seed(0)) - 0.5
    shape[:2] = torch.tensor([[-0.5, -0.5], [0.5, 0.5]])
    points = centres_xy[None, :, None] + width * shape
    return Track(points_px=points, confidence=torch.ones(points.shape[:-1]), scheme=IBUG68)


def scaled(scale: float, x: float, y: float) -> torch.Tensor:
    return torch.tensor([[[scale, 0.0, x], [0.0, scale, y], [0.0, 0.0, 1.0]]])


def test_static_clip_gives_one_crop_around_the_face() -> None:
    crops = steady_crops(landmarks_of(torch.tensor([[150.0, 120.0]] * 9)), [SIZE_HW])
    torch.testing.assert_close(crops.T_crop_frame, crops.T_crop_frame[:, :1].expand(-1, 9, -1, -1))
    corners = crops.ndc_to_frame(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]).expand(1, 9, 2, 2))
    half = 1.45 * 60 / 2
    torch.testing.assert_close(
        corners[0, 0], torch.tensor([[150 - half, 120 - half], [150 + half, 120 + half]])
    )


def test_smoothing_calms_jitter_and_keeps_a_steady_pan() -> None:
    pan = torch.stack([torch.linspace(100, 200, 41), torch.full((41,), 120.0)], -1)
    noise = torch.randn(41, 2, generator=torch.Generator().manual_seed(0)) * 3
    centre = torch.zeros(1, 41, 1, 2)
    steady = steady_crops(landmarks_of(pan), [SIZE_HW]).ndc_to_frame(centre)[0, :, 0]
    torch.testing.assert_close(steady[10:-10], pan[10:-10], atol=1e-2, rtol=0)
    noisy = steady_crops(landmarks_of(pan + noise), [SIZE_HW]).ndc_to_frame(centre)[0, :, 0]
    assert noisy.diff(n=2, dim=0).norm() < 0.2 * (pan + noise).diff(n=2, dim=0).norm()


def test_missing_frames_are_interpolated_and_the_ends_repeated() -> None:
    landmarks = landmarks_of(
        torch.tensor([[0.0, 0.0], [100.0, 100.0], [0.0, 0.0], [120.0, 110.0], [0.0, 0.0]])
    )
    landmarks.confidence[0, [0, 2, 4]] = 0
    landmarks.confidence[0, 2, :10] = 1  # a small part of the face: its box says nothing
    crops = steady_crops(landmarks, [SIZE_HW], replace(OPEN_CROP, sigma_frames=0))
    centres = crops.ndc_to_frame(torch.zeros(1, 5, 1, 2))[0, :, 0]
    expected = torch.tensor([[100.0, 100.0], [100, 100], [110, 105], [120, 110], [120, 110]])
    torch.testing.assert_close(centres, expected)


def test_a_view_without_landmarks_shows_the_whole_frame() -> None:
    seen = landmarks_of(torch.tensor([[150.0, 120.0]] * 2))
    both = Track(
        points_px=torch.cat([seen.points_px] * 2),
        confidence=torch.cat([seen.confidence, torch.zeros_like(seen.confidence)]),
        scheme=IBUG68,
    )
    crops = steady_crops(both, [SIZE_HW, SIZE_HW], replace(OPEN_CROP, size_px=100))
    edges = crops[1].ndc_to_frame(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]).expand(2, 2, 2))
    torch.testing.assert_close(edges[0], torch.tensor([[-0.5, 119.5], [319.5, 119.5]]))


def test_both_schemes_give_the_same_crop() -> None:
    sparse = landmarks_of(torch.tensor([[150.0, 120.0], [155.0, 121.0]]))
    dense_points = torch.rand(1, 2, 478, 2) * 300  # other points are anywhere
    dense_points[..., list(MEDIAPIPE478.to_ibug68), :] = sparse.points_px
    dense = Track(points_px=dense_points, confidence=torch.ones(1, 2, 478), scheme=MEDIAPIPE478)
    expected = steady_crops(sparse, [SIZE_HW]).T_crop_frame
    assert torch.equal(steady_crops(to_ibug68(dense), [SIZE_HW]).T_crop_frame, expected)
    assert torch.equal(steady_crops(dense, [SIZE_HW]).T_crop_frame, expected)


def test_rules_with_unusable_numbers_are_refused() -> None:
    landmarks = landmarks_of(torch.tensor([[150.0, 120.0]]))
    with pytest.raises(InputError, match="margin"):
        replace(OPEN_CROP, margin=0.0)
    with pytest.raises(InputError, match="size_px"):
        replace(OPEN_CROP, size_px=0)
    with pytest.raises(InputError, match="sigma_frames"):
        replace(OPEN_CROP, sigma_frames=-1.0)
    assert steady_crops(replace(landmarks, points_px=landmarks.points_px * 0), [SIZE_HW]).to_frame_px(
        torch.zeros(1, 1, 1, 2)
    ).isfinite().all()  # fmt: skip


@settings(deadline=None)
@given(x=st.floats(-50, 400), y=st.floats(-50, 400), width=st.floats(5, 500), size_px=st.integers(16, 512))
def test_crop_and_frame_are_inverse(x: float, y: float, width: float, size_px: int) -> None:
    crops = steady_crops(
        landmarks_of(torch.tensor([[x, y]]), width), [SIZE_HW], replace(OPEN_CROP, size_px=size_px)
    )
    points = torch.tensor([[[[3.0, 5.0], [100.0, 7.0], [-20.0, 300.0]]]])
    torch.testing.assert_close(crops.to_frame_px(crops.to_crop_px(points)), points, atol=2e-2, rtol=1e-3)
    torch.testing.assert_close(crops.ndc_to_frame(crops.frame_to_ndc(points)), points, atol=2e-2, rtol=1e-3)


def gradient_frame() -> torch.Tensor:
    """Red grows by 1 per pixel to the right, green by 1 per pixel downwards."""
    frame = torch.zeros(1, 200, 220, 3, dtype=torch.uint8)
    frame[..., 0] = torch.arange(220)
    frame[..., 1] = torch.arange(200)[:, None]
    return frame


@pytest.mark.parametrize("scale", [2.3, 1.0, 0.7, 0.45, 0.3])
def test_pictures_of_a_gradient_match_the_formula(scale: float) -> None:
    size_px = 40
    matrix = scaled(scale, -scale * 60.3 + 10, -scale * 50.7 + 8)
    picture = crop_images(gradient_frame(), matrix, size_px)[0]
    v, u = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
    frame_px = Crop(T_crop_frame=matrix[0], size_px=size_px).to_frame_px(
        torch.stack([u, v], -1).reshape(-1, 2)
    )
    x, y = frame_px.reshape(40, 40, 2).unbind(-1)
    torch.testing.assert_close(picture[0], x / 255, atol=1e-3, rtol=0)
    torch.testing.assert_close(picture[1], y / 255, atol=1e-3, rtol=0)


def test_identity_copies_pixels_and_outside_is_black() -> None:
    frames = torch.randint(0, 256, (1, 16, 16, 3), dtype=torch.uint8)
    same = crop_images(frames, torch.eye(3)[None], 16)[0]
    torch.testing.assert_close(same, frames[0].permute(2, 0, 1) / 255, atol=1e-5, rtol=0)
    shifted = crop_images(frames, scaled(1.0, 8.0, 0.0), 16)[0]
    assert not shifted[:, :, :8].any()
    torch.testing.assert_close(shifted[:, :, 8:], same[:, :, :8], atol=1e-5, rtol=0)


def test_shrinking_does_not_alias() -> None:
    stripes = torch.zeros(1, 256, 256, 3, dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    small = crop_images(stripes, scaled(0.25, 0.0, 0.0), 60)[0]
    torch.testing.assert_close(small[:, 2:-2, 2:-2], torch.full((3, 56, 56), 0.5), atol=0.02, rtol=0)


def test_source_crops_reads_in_pieces_what_crop_images_gives_at_once() -> None:
    frames = torch.randint(0, 256, (2, 20, 32, 40, 3), dtype=torch.uint8)
    reads = []

    class Spy(ArraySource):
        def read(self, view: int, start: int, stop: int) -> torch.Tensor:
            reads.append(stop - start)
            return super().read(view, start, stop)

    matrices = scaled(0.8, 2.0, 1.0).expand(2, 20, 3, 3)
    crops = Crop(T_crop_frame=matrices, size_px=24)
    pictures = source_crops(Spy(frames), crops)
    assert pictures.shape == (2, 20, 3, 24, 24)
    assert max(reads) <= 16
    assert torch.equal(pictures[1], crop_images(frames[1], matrices[1], 24))
    with pytest.raises(InputError, match="crops are for"):
        source_crops(ArraySource(frames[:, :5]), crops)
