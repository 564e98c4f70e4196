"""Steady square crops of the face through a clip, and the pictures in them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from neuface.errors import InputError
from neuface.structs import Crop, FrameSource, Landmarks

# Bilinear sampling sees every frame pixel up to about this many frame pixels per crop pixel.
LARGEST_UNFILTERED_STEP = 1.5
# Samples per crop pixel and axis when a crop is made much smaller.
MOST_SAMPLES_PER_PIXEL = 8
FRAMES_PER_PIECE = 16


def steady_crops(
    landmarks: Landmarks,
    sizes_hw: Sequence[tuple[int, int]],
    size_px: int = 224,
    *,
    margin: int | float = 1.45,
    sigma_frames: int | float = 2.0,
) -> Crop:
    """A square around the face in every frame, moving and growing smoothly.

    The square is centred on the bounding box of the iBUG-68 points that were found and its side is `margin`
    times the box's longer side. Frames without a face, or with less than half as many points as the view's
    best frame (part of a face has a misleading box), are interpolated linearly from their neighbours, and
    repeat the nearest one at the ends. A view without any landmark gets the smallest square that holds its
    frame.

    Args:
        landmarks: iBUG-68 landmarks (see `to_ibug68`), so that both schemes give the same crops.
        sizes_hw: Frame height and width of every view.
        size_px: Side of the crops in crop pixels.
        margin: Side of the square over the longer side of the box of landmarks.
        sigma_frames: Standard deviation of the Gaussian that smooths centre and side, in frames; 0 is none.

    Returns:
        Crops with batch axes `views time`.

    Raises:
        InputError: Another scheme, or a number that is not positive.
    """
    if landmarks.points_px.shape[-2] != 68:
        raise InputError(f"steady_crops needs ibug68 landmarks, got {landmarks.scheme}: use to_ibug68 first")
    if size_px < 1 or not margin > 0 or not sigma_frames >= 0:
        raise InputError(
            "steady_crops: size_px and margin must be positive and sigma_frames not negative, "
            f"got {size_px}, {margin} and {sigma_frames}"
        )
    points = landmarks.points_px.detach().cpu().double().numpy()
    found = (landmarks.confidence > 0).cpu().numpy()
    boxes = np.stack(
        [
            _steady_boxes(points[view], found[view], size_hw, margin, sigma_frames)
            for view, size_hw in enumerate(sizes_hw)
        ]
    )
    matrices = _boxes_to_matrices(boxes, size_px)
    return Crop(T_crop_frame=torch.from_numpy(matrices).to(landmarks.points_px), size_px=size_px)


def _steady_boxes(
    points: np.ndarray,
    found: np.ndarray,
    size_hw: tuple[int, int],
    margin: int | float,
    sigma_frames: int | float,
) -> np.ndarray:
    """Centre x, centre y and side of one view's squares in frame pixels, `(time, 3)`."""
    counts = found.sum(-1)
    usable = (counts >= 2) & (counts >= counts.max() / 2)
    frames = np.arange(len(points))
    if not usable.any():
        height, width = size_hw
        return np.tile([(width - 1) / 2, (height - 1) / 2, max(height, width)], (len(points), 1)).astype(
            float
        )
    lowest = np.where(found[..., None], points, np.inf)[usable].min(1)
    highest = np.where(found[..., None], points, -np.inf)[usable].max(1)
    # A square of less than a pixel (coinciding points) would have no inverse.
    sides = np.maximum(margin * (highest - lowest).max(-1), 1.0)
    boxes = np.column_stack([(lowest + highest) / 2, sides])
    boxes = np.column_stack([np.interp(frames, frames[usable], column) for column in boxes.T])
    if sigma_frames == 0:
        return boxes
    # Zero padding divided by the smoothed ones: at the ends the remaining weights are renormalised.
    smooth = gaussian_filter1d(boxes, sigma_frames, axis=0, mode="constant")
    weight = gaussian_filter1d(np.ones(len(boxes)), sigma_frames, mode="constant")
    return smooth / weight[:, None]


def _boxes_to_matrices(boxes: np.ndarray, size_px: int) -> np.ndarray:
    """Frame pixels to crop pixels: the box's centre lands on the crop's, its edges half a pixel outside."""
    scale = size_px / boxes[..., 2]
    matrices = np.zeros((*boxes.shape[:-1], 3, 3))
    matrices[..., 0, 0] = matrices[..., 1, 1] = scale
    matrices[..., :2, 2] = (size_px - 1) / 2 - scale[..., None] * boxes[..., :2]
    matrices[..., 2, 2] = 1.0
    return matrices


def crop_images(
    frames: UInt8[Tensor, "n h w 3"], T_crop_frame: Float[Tensor, "n 3 3"], size_px: int
) -> Float[Tensor, "n 3 {size_px} {size_px}"]:
    """The crops of frames as float32 pictures, 0 to 1, RGB; zero outside the frame.

    Convention: the crop pixel with integer centre `(u, v)` shows the frame at `inverse(T_crop_frame) (u, v)`,
    interpolated bilinearly between pixel centres at integers. Example: with the identity matrix the two
    are equal pixel by pixel. Where a crop pixel spans more than 1.5 frame pixels, it is the mean of several
    samples spread over it, so that fine detail does not alias.
    """
    crops = [
        _crop_one(frame, matrix, size_px) for frame, matrix in zip(frames, T_crop_frame, strict=True)
    ]  # one at a time: only one frame is ever held as floats
    return torch.stack(crops) if crops else frames.new_zeros((0, 3, size_px, size_px), dtype=torch.float32)


def _crop_one(
    frame: UInt8[Tensor, "h w 3"], T_crop_frame: Float[Tensor, "3 3"], size_px: int
) -> Float[Tensor, "3 s s"]:
    height, width = frame.shape[:2]
    T_frame_crop = torch.linalg.inv(T_crop_frame.to(frame.device, torch.float64))
    step = float(T_frame_crop[:2, :2].det().abs().sqrt())
    per_pixel = min(math.ceil(step), MOST_SAMPLES_PER_PIXEL) if step > LARGEST_UNFILTERED_STEP else 1
    samples = size_px * per_pixel
    # Sample positions in crop pixels: `per_pixel` of them evenly inside every pixel, symmetric to its centre.
    along = (torch.arange(samples, dtype=torch.float64, device=frame.device) + 0.5) / per_pixel - 0.5
    across, down = T_frame_crop[:2, 0], T_frame_crop[:2, 1]
    x_y = along[:, None, None] * down + along[None, :, None] * across + T_frame_crop[:2, 2]
    size_xy = x_y.new_tensor([width, height])
    grid = ((2 * x_y + 1) / size_xy - 1).float()
    image = frame.permute(2, 0, 1).contiguous().float() / 255
    sampled = torch.nn.functional.grid_sample(
        image[None], grid[None], mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return torch.nn.functional.avg_pool2d(sampled, per_pixel)[0] if per_pixel > 1 else sampled[0]


def iterate_crops(source: FrameSource, crops: Crop) -> Iterator[tuple[int, Float[Tensor, "n 3 s s"]]]:
    """The crops of a clip view by view in bounded pieces, as (view, pictures); see `crop_images`.

    Raises InputError when the crops are not those of these frames.
    """
    if tuple(crops.T_crop_frame.shape[:2]) != (source.views, source.time):
        raise InputError(
            f"the crops are for {tuple(crops.T_crop_frame.shape[:2])} (views, frames) "
            f"but the frames are {(source.views, source.time)}"
        )
    for view in range(source.views):
        for start in range(0, source.time, FRAMES_PER_PIECE):
            stop = min(start + FRAMES_PER_PIECE, source.time)
            frames = source.read(view, start, stop).to(crops.T_crop_frame.device)
            yield view, crop_images(frames, crops.T_crop_frame[view, start:stop], crops.size_px)


def source_crops(source: FrameSource, crops: Crop) -> Float[Tensor, "views time 3 s s"]:
    """All crops of a clip as pictures. A long clip may not fit in memory: see `iterate_crops`."""
    pictures = torch.cat([piece for _, piece in iterate_crops(source, crops)])
    return pictures.unflatten(0, (source.views, source.time))
