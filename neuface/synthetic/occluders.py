"""Hands and boards that pass in front of a face: their motion, the landmarks they hide, and their look.

A landmark is hidden if and only if the painted object covers it, because both use the same shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn.functional import grid_sample

from neuface.errors import InputError
from neuface.landmarks.schemes import IBUG68
from neuface.synthetic.appearance import smooth_noise

# Side of an object's texture.
TEXTURE_PX = 128
TEXTURE_REACH = 2.0
"""Extent of the texture on every side of the middle, in half-sizes; beyond it, the edge is repeated."""
EDGE_PX = 1.0
"""Width of the soft edge of a painted object, pixels."""
APPROACH_FRAMES = 3
"""Number of frames in which an object moves in front of the face, and in which it leaves."""
# Distance from which an object approaches, and half the sizes, in outer-eye distances. A real hand is two of them
# long.
AWAY, HAND_HALF_SIZE, BOARD_HALF_SIZE = 4.5, 0.75, 1.15
# Height of the board over its width, and number of printed squares along its width.
BOARD_ASPECT = 0.85
BOARD_SQUARES = 5
# Palm, fingers, thumb and forearm as thick lines from (x, y) to (x, y) with a radius, in half-sizes, fingers up.
HAND_LINES = (
    (-0.15, 0.25, 0.15, 0.25, 0.45),
    (-0.42, 0.00, -0.50, -0.75, 0.12),
    (-0.14, 0.00, -0.17, -0.95, 0.13),
    (0.14, 0.00, 0.17, -1.00, 0.13),
    (0.42, 0.00, 0.48, -0.85, 0.12),
    (0.40, 0.45, 0.95, 0.00, 0.15),
    (0.00, 0.50, 0.00, 6.00, 0.36),
)
SIDES_IBUG68 = {
    "mouth": tuple(range(48, 68)),
    "right": (*range(1, 6), *range(17, 22), *range(36, 42)),
    "left": (*range(11, 16), *range(22, 27), *range(42, 48)),
}
"""Landmarks of the parts that a hand covers: the mouth, or one half of the face (the subject's right or left)."""


@dataclass(frozen=True, kw_only=True)
class Occluder:
    """A hand or a printed board in the image of one camera."""

    shape: Literal["hand", "board"]
    centre_px: Float[Tensor, "time 2"]
    present: Bool[Tensor, " time"]
    """Frames in which it is visible, including those in which it approaches and leaves."""
    half_size_px: float
    rotation_rad: float
    """Rotation of the object in the image, clockwise; the fingers point up at 0."""
    texture: Float[Tensor, "3 s s"]
    """RGB in 0..1; it extends over TEXTURE_REACH half-sizes on every side."""

    def covers(self, points_px: Float[Tensor, "time n 2"]) -> Bool[Tensor, "time n"]:
        """Whether a point of a frame is behind the object."""
        return (self._depth(self._local(points_px)) > 0) & self.present[:, None]

    def paint(self, frames: UInt8[Tensor, "time h w 3"]) -> UInt8[Tensor, "time h w 3"]:
        """A copy of the frames with the object painted over them."""
        painted = frames.clone()
        height, width = frames.shape[1:3]
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        pixels = torch.stack((x, y), -1).flatten(0, 1).to(self.centre_px)
        for frame in self.present.nonzero()[:, 0].tolist():
            local = self._local(pixels[None], slice(frame, frame + 1))[0]
            depth = self._depth(local)
            cover = (depth * self.half_size_px / EDGE_PX + 0.5).clamp(0, 1)[:, None]
            color = grid_sample(
                self.texture[None],
                local[None, None] / TEXTURE_REACH,
                align_corners=False,
                padding_mode="border",
            )[0, :, 0].T
            # The object is darker towards its edges, which makes it look round.
            lit = color * (0.72 + 0.28 * (depth / 0.12).clamp(0, 1))[:, None]
            below = frames[frame].reshape(-1, 3).to(lit) / 255
            mixed = torch.lerp(below, lit, cover)
            painted[frame] = (mixed * 255).round().clamp(0, 255).to(torch.uint8).view(height, width, 3)
        return painted

    def _local(self, points_px: Tensor, frames: slice = slice(None)) -> Float[Tensor, "time n 2"]:
        """Positions relative to the object's middle, in half-sizes and in its axes."""
        cosine, sine = math.cos(self.rotation_rad), math.sin(self.rotation_rad)
        turn = points_px.new_tensor(((cosine, -sine), (sine, cosine)))
        return (points_px - self.centre_px[frames, None]) @ turn / self.half_size_px

    def _depth(self, local: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n"]:
        """Distance of a position to the outline, in half-sizes; positive inside, negative outside."""
        if self.shape == "board":
            return (local.new_tensor((1.0, BOARD_ASPECT)) - local.abs()).amin(-1)
        return torch.stack([_inside_line(local, *line) for line in HAND_LINES]).amax(0)


def pass_by(
    points_px: Float[Tensor, "time 68 2"],
    frames: UInt8[Tensor, "time h w 3"],
    eye_distance_px: float,
    *,
    hand_frames: int,
    board_frames: int,
    generator: torch.Generator,
) -> tuple[Occluder, Occluder]:
    """A hand that hides a part of the face for a while, and a board that hides most of it, one after the other.

    Args:
        points_px: true landmarks in one camera; the objects follow the face.
        frames: that camera's frames; the hand has the colour of the face.
        hand_frames, board_frames: number of frames for which each hides most, without APPROACH_FRAMES on either side.

    Raises:
        InputError: both, and one free frame before each, do not fit into the clip.
    """
    spans = _spans(len(points_px), (hand_frames, board_frames), generator)
    side = list(SIDES_IBUG68)[_draw(generator, len(SIDES_IBUG68))]
    # The hand comes from below or from the side that it hides; y points down in images.
    aside = {"mouth": 0.8 * _signed(generator), "right": -0.8, "left": 0.8}[side]
    from_angle = math.pi / 2 - aside + 0.3 * _signed(generator)
    hand = Occluder(
        shape="hand",
        centre_px=_path(
            points_px[:, list(SIDES_IBUG68[side])].mean(1), spans[0], from_angle, eye_distance_px
        ),
        present=_closeness(len(points_px), spans[0]) > 0,
        half_size_px=HAND_HALF_SIZE * eye_distance_px,
        rotation_rad=from_angle - math.pi / 2,
        texture=_skin(points_px, frames, generator),
    )
    from_angle = math.pi / 2 + 1.2 * _signed(generator)
    board = Occluder(
        shape="board",
        centre_px=_path(points_px.mean(1), spans[1], from_angle, eye_distance_px),
        present=_closeness(len(points_px), spans[1]) > 0,
        half_size_px=BOARD_HALF_SIZE * eye_distance_px,
        rotation_rad=0.3 * _signed(generator),
        texture=_print(generator),
    )
    return hand, board


def _spans(time: int, lengths: tuple[int, int], generator: torch.Generator) -> list[tuple[int, int]]:
    """First frame and last frame + 1 of each occlusion, in random order, with a free frame before each."""
    free = time - sum(lengths) - 2
    if free < 0 or min(lengths) < 1:
        raise InputError(f"occlusions of {lengths[0]} and {lengths[1]} frames do not fit {time} frames")
    order = (0, 1) if _draw(generator, 2) else (1, 0)
    found = [(0, 0), (0, 0)]
    now = 0
    for item in order:
        wait = _draw(generator, free + 1)
        free -= wait
        start = now + 1 + wait
        now = start + lengths[item]
        found[item] = (start, now)
    return found


def _closeness(time: int, span: tuple[int, int]) -> Float[Tensor, " time"]:
    """1 during the occlusion, falling linearly to 0 over APPROACH_FRAMES on both sides."""
    frames = torch.arange(time)
    outside = (span[0] - frames).clamp(min=0) + (frames - span[1] + 1).clamp(min=0)
    return (1 - outside / APPROACH_FRAMES).clamp(min=0)


def _path(
    target_px: Float[Tensor, "time 2"], span: tuple[int, int], from_angle: float, eye_distance_px: float
) -> Float[Tensor, "time 2"]:
    away = target_px.new_tensor((math.cos(from_angle), math.sin(from_angle))) * AWAY * eye_distance_px
    return target_px + (1 - _closeness(len(target_px), span))[:, None].to(target_px) * away


def _inside_line(
    local: Tensor, from_x: float, from_y: float, to_x: float, to_y: float, radius: float
) -> Tensor:
    start, end = local.new_tensor((from_x, from_y)), local.new_tensor((to_x, to_y))
    along = end - start
    share = (((local - start) @ along) / along.square().sum()).clamp(0, 1)
    return radius - torch.linalg.vector_norm(local - start - share[..., None] * along, dim=-1)


def _skin(
    points_px: Tensor, frames: UInt8[Tensor, "time h w 3"], generator: torch.Generator
) -> Float[Tensor, "3 s s"]:
    """The mean colour of the nose in the first frame, with blotches."""
    height, width = frames.shape[1:3]
    x, y = points_px[0, list(IBUG68.group("nose"))].round().long().unbind(-1)
    color = frames[0, y.clamp(0, height - 1), x.clamp(0, width - 1)].float().mean(0) / 255
    blotches = 1 + 0.06 * smooth_noise(generator, 1, 1, TEXTURE_PX)[0]
    return (color[:, None, None] * blotches).clamp(0, 1)


def _print(generator: torch.Generator) -> Float[Tensor, "3 s s"]:
    """A texture of dark squares on light paper, with shadows."""
    along = torch.linspace(-TEXTURE_REACH, TEXTURE_REACH, TEXTURE_PX)
    wave = torch.sin(along * (math.pi * BOARD_SQUARES / 2))
    dark = (wave[:, None] * wave[None] > 0).float()
    paper = 0.7 + 0.25 * torch.rand(3, 1, 1, generator=generator)
    ink = 0.25 * torch.rand(3, 1, 1, generator=generator)
    shadow = 1 + 0.06 * smooth_noise(generator, 1, 1, TEXTURE_PX)[0]
    return (torch.lerp(paper, ink, dark) * shadow).clamp(0, 1)


def _draw(generator: torch.Generator, count: int) -> int:
    return int(torch.randint(count, (), generator=generator))


def _signed(generator: torch.Generator) -> float:
    """Uniform in -1..1."""
    return 2 * float(torch.rand((), generator=generator)) - 1
