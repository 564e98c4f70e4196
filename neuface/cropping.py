"""Steady square crops of the face through a clip, and the pictures in them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from neuface.errors import InputError
from neuface.structs import Crop, FrameSource, Track

LARGEST_UNFILTERED_STEP = 1.5
"""Largest number of frame pixels per crop pixel at which one bilinear sample is taken; up to about there, the samples
of neighbouring crop pixels leave out no frame pixel."""
MOST_SAMPLES_PER_PIXEL = 8
"""Upper bound of the samples per crop pixel and axis, whose mean a much smaller crop is."""
FRAMES_PER_PIECE = 16
"""Number of frames that are read and cropped at once, which bounds the memory for them."""


@dataclass(frozen=True, kw_only=True)
class CropRule:
    """Which square around the face a model sees, and how its picture is made."""

    margin: int | float
    """Side of the square over the size of the box of the iBUG-68 points."""
    box_size: Literal["longer", "mean"]
    """The size of a box: its longer side, or the mean of width and height."""
    dense_margin: int | float | None = None
    """The same over the box of all MediaPipe points. None: the rule always looks at the 68 points."""
    rise: int | float = 0.0
    """How far above the box's centre the square's centre lies, in sizes of the box of 68 points."""
    whole_px: bool = False
    """Whether the side is cut down to whole frame pixels."""
    corner_to_corner: bool = False
    """Whether the square's corners are the centres of the crop's corner pixels, or those pixels' outer corners."""
    antialias: bool = True
    """Whether a much smaller crop is a mean of samples, or one bilinear sample per pixel."""
    size_px: int = 224
    """Side of the crops in crop pixels."""
    sigma_frames: int | float = 2.0
    """Standard deviation of the Gaussian that smooths centre and side over time, in frames; 0 is none."""

    def __post_init__(self) -> None:
        margins = [self.margin] if self.dense_margin is None else [self.margin, self.dense_margin]
        if self.size_px < 2 or not all(margin > 0 for margin in margins) or not self.sigma_frames >= 0:
            raise InputError(
                "CropRule: size_px must be at least 2, margins positive and sigma_frames not negative, "
                f"got {self.size_px}, {margins} and {self.sigma_frames}"
            )


OPEN_CROP = CropRule(margin=1.45, box_size="longer")

DECA_CROP = CropRule(
    # A detector's box is 1.1 times as large as that of the landmarks, and the square 1.25 times as large as it.
    margin=1.1 * 1.25,
    box_size="mean",
    whole_px=True,
    corner_to_corner=True,
    antialias=False,
)
"""DECA's and EMOCA's rule for a picture. In a clip the squares are smoothed over time, which the official programs do
not do; `dataclasses.replace(rule, sigma_frames=0)` gives every frame the official square."""

SMIRK_CROP = CropRule(
    # The official rule is for MediaPipe's points. On the mean and on random open heads, from the front and turned
    # by 30 degrees, the box of those is 1.095 times as large as that of the 68 points, and 0.094 sizes higher.
    margin=1.4 * 1.095,
    rise=0.094,
    dense_margin=1.4,
    box_size="mean",
    whole_px=True,
    corner_to_corner=True,
    antialias=False,
)
"""SMIRK's rule for a picture with MediaPipe landmarks, nearly the same square for 68 points; smoothed in a clip."""


def steady_crops(
    track: Track,
    sizes_hw: Sequence[tuple[int, int]],
    rule: CropRule = OPEN_CROP,
    *,
    starts: Sequence[int] = (0,),
) -> Crop:
    """A square around the face in every frame, moving and growing smoothly.

    The square is centred on the bounding box of the points that were found and its side is a multiple of the
    box's size, as the rule says. Frames without a face, or with less than half as many points as the view's
    best frame (part of a face has a misleading box), are interpolated linearly from their neighbours, and
    repeat the nearest one at the ends. A view without any landmark gets the smallest square that holds its
    frame.

    Args:
        track: Landmarks of any scheme. A rule without a `dense_margin` looks at the counterparts of the iBUG-68
            points, so that all schemes give the same crops.
        sizes_hw: Frame height and width of every view.
        rule: The model's rule.
        starts: The first frames of the shots; the square jumps at a cut.

    Returns:
        Crops with batch axes `views time`. Of rules that are to give another program's pictures (`antialias=False`)
        the matrices are float64: rounded to float32 they would move the pictures by 2e-5.
    """
    dense = rule.dense_margin is not None and track.scheme.count != len(track.scheme.to_ibug68)
    chosen = slice(None) if dense else list(track.scheme.to_ibug68)
    points = track.points_px[..., chosen, :].detach().cpu().double().numpy()
    found = (track.confidence[..., chosen] > 0).cpu().numpy()
    boxes = np.stack(
        [
            _steady_boxes(points[view], found[view], size_hw, rule, starts, dense=dense)
            for view, size_hw in enumerate(sizes_hw)
        ]
    )
    matrices = _boxes_to_matrices(boxes, rule)
    dtype = track.points_px.dtype if rule.antialias else torch.float64
    T_crop_frame = torch.from_numpy(matrices).to(track.points_px.device, dtype)
    return Crop(T_crop_frame=T_crop_frame, size_px=rule.size_px)


def _steady_boxes(
    points: np.ndarray,
    found: np.ndarray,
    size_hw: tuple[int, int],
    rule: CropRule,
    starts: Sequence[int],
    *,
    dense: bool,
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
    boxes = _squares(lowest, highest, rule, dense=dense)
    return np.concatenate(
        [
            _steady_in_shot(frames[start:stop], frames[usable], boxes, rule.sigma_frames)
            for start, stop in zip(starts, (*starts[1:], len(frames)), strict=True)
        ]
    )


def _steady_in_shot(
    frames: np.ndarray, known: np.ndarray, boxes: np.ndarray, sigma_frames: int | float
) -> np.ndarray:
    """The boxes of the frames of a shot: interpolated between the known ones and smoothed, `(len(frames), 3)`."""
    of_shot = (known >= frames[0]) & (known <= frames[-1])
    if of_shot.any():  # A shot without the face takes what is nearest in the others.
        known, boxes = known[of_shot], boxes[of_shot]
    boxes = np.column_stack([np.interp(frames, known, column) for column in boxes.T])
    if sigma_frames == 0:
        return boxes
    from scipy.ndimage import gaussian_filter1d  # On use: it loads slowly.

    # Zero padding divided by the smoothed ones: at the ends the remaining weights are renormalised.
    smooth = gaussian_filter1d(boxes, sigma_frames, axis=0, mode="constant")
    weight = gaussian_filter1d(np.ones(len(boxes)), sigma_frames, mode="constant")
    return smooth / weight[:, None]


def _squares(lowest: np.ndarray, highest: np.ndarray, rule: CropRule, *, dense: bool) -> np.ndarray:
    """Centre x, centre y and side of the squares around boxes of landmarks, `(time, 3)`."""
    extent = highest - lowest
    sizes = extent.max(-1) if rule.box_size == "longer" else extent.sum(-1) / 2
    centres = (lowest + highest) / 2
    if dense and rule.dense_margin is not None:
        sides = rule.dense_margin * sizes
    else:
        sides = rule.margin * sizes
        centres[:, 1] -= rule.rise * sizes
    if rule.whole_px:
        sides = np.floor(sides)
    # A square of less than a pixel (coinciding points) would have no inverse.
    return np.column_stack([centres, np.maximum(sides, 1.0)])


def _boxes_to_matrices(boxes: np.ndarray, rule: CropRule) -> np.ndarray:
    """Frame pixels to crop pixels: the box's centre lands on the crop's, its edges on the crop's edges.

    The crop's edges are half a pixel outside the centres of its outermost pixels, or, corner to corner, at them.
    """
    span = rule.size_px - 1 if rule.corner_to_corner else rule.size_px
    scale = span / boxes[..., 2]
    matrices = np.zeros((*boxes.shape[:-1], 3, 3))
    matrices[..., 0, 0] = matrices[..., 1, 1] = scale
    matrices[..., :2, 2] = (rule.size_px - 1) / 2 - scale[..., None] * boxes[..., :2]
    matrices[..., 2, 2] = 1.0
    return matrices


def crop_images(
    frames: UInt8[Tensor, "n h w 3"],
    T_crop_frame: Float[Tensor, "n 3 3"],
    size_px: int,
    *,
    antialias: bool = True,
) -> Float[Tensor, "n 3 {size_px} {size_px}"]:
    """The crops of frames as float32 pictures, 0 to 1, RGB; zero outside the frame.

    Convention: the crop pixel with integer centre `(u, v)` shows the frame at `inverse(T_crop_frame) (u, v)`,
    interpolated bilinearly between pixel centres at integers. Example: with the identity matrix the two
    are equal pixel by pixel. Where a crop pixel spans more than 1.5 frame pixels, it is the mean of several
    samples spread over it, so that fine detail does not alias.

    With `antialias=False` it is always one sample, computed in double precision: the crop that models were given
    whose programs do not filter.
    """
    crops = [
        _crop_one(frame, matrix, size_px, antialias)
        for frame, matrix in zip(frames, T_crop_frame, strict=True)
    ]  # one at a time, so that only one frame is in memory as floats
    return torch.stack(crops) if crops else frames.new_zeros((0, 3, size_px, size_px), dtype=torch.float32)


def _crop_one(
    frame: UInt8[Tensor, "h w 3"], T_crop_frame: Float[Tensor, "3 3"], size_px: int, antialias: bool
) -> Float[Tensor, "3 s s"]:
    height, width = frame.shape[:2]
    T_frame_crop = torch.linalg.inv(T_crop_frame.to(frame.device, torch.float64))
    step = float(T_frame_crop[:2, :2].det().abs().sqrt())
    filtered = antialias and step > LARGEST_UNFILTERED_STEP
    per_pixel = min(math.ceil(step), MOST_SAMPLES_PER_PIXEL) if filtered else 1
    samples = size_px * per_pixel
    # Sample positions in crop pixels: `per_pixel` of them evenly inside every pixel, symmetric to its centre.
    along = (torch.arange(samples, dtype=torch.float64, device=frame.device) + 0.5) / per_pixel - 0.5
    across, down = T_frame_crop[:2, 0], T_frame_crop[:2, 1]
    x_y = along[:, None, None] * down + along[None, :, None] * across + T_frame_crop[:2, 2]
    size_xy = x_y.new_tensor([width, height])
    precision = torch.float32 if antialias else torch.float64
    grid = ((2 * x_y + 1) / size_xy - 1).to(precision)
    image = frame.permute(2, 0, 1).contiguous().to(precision) / 255
    sampled = torch.nn.functional.grid_sample(
        image[None], grid[None], mode="bilinear", padding_mode="zeros", align_corners=False
    ).float()
    return torch.nn.functional.avg_pool2d(sampled, per_pixel)[0] if per_pixel > 1 else sampled[0]


def iterate_crops(
    source: FrameSource, crops: Crop, *, antialias: bool = True
) -> Iterator[tuple[int, Float[Tensor, "n 3 s s"]]]:
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
            matrices = crops.T_crop_frame[view, start:stop]
            yield view, crop_images(frames, matrices, crops.size_px, antialias=antialias)


def source_crops(source: FrameSource, crops: Crop) -> Float[Tensor, "views time 3 s s"]:
    """All crops of a clip as pictures. A long clip may not fit in memory: see `iterate_crops`."""
    pictures = torch.cat([piece for _, piece in iterate_crops(source, crops)])
    return pictures.unflatten(0, (source.views, source.time))
