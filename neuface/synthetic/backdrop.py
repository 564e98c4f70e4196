"""Surroundings of a rendered head: backgrounds, hair and shoulders behind it, occluders in front of it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.synthetic.appearance import smooth_noise

# Shares of the images with a hand, a board and a bar in front of the face.
HAND_SHARE = 0.12
BOARD_SHARE = 0.08
BAR_SHARE = 0.06


def pixel_grid(size_px: int) -> tuple[Float[Tensor, "1 s s"], Float[Tensor, "1 s s"]]:
    """x and y of pixel centres in crop NDC."""
    along = (torch.arange(size_px) + 0.5) * (2 / size_px) - 1
    y, x = torch.meshgrid(along, along, indexing="ij")
    return x[None], y[None]


def random_backgrounds(
    generator: torch.Generator, count: int, size_px: int
) -> Float[Tensor, "count 3 {size_px} {size_px}"]:
    """Walls, gradients, blotches, rectangles, stripes and plain colours; display RGB in 0..1."""
    x, y = pixel_grid(size_px)
    base = _colors(generator, count)
    angle = torch.rand(count, 1, 1, generator=generator) * 2 * torch.pi
    ramp = (x * angle.cos() + y * angle.sin()) * _uniform(generator, count, 0, 0.35)[:, None, None]
    picture = base[..., None, None] * (1 + ramp[:, None])
    noise = smooth_noise(generator, count, 3, size_px // 2)
    noise = torch.nn.functional.interpolate(noise, size=(size_px, size_px), mode="bilinear")
    grey = noise.mean(1, keepdim=True)
    gain = (_uniform(generator, count, 0, 0.25) * _chance(generator, count, 0.5))[:, None, None, None]
    picture = picture + gain * (0.7 * grey + 0.3 * noise)
    for share in (0.4, 0.3, 0.3, 0.2):
        inside = _rectangle(generator, count, x, y, largest=0.9)
        inside = inside * _chance(generator, count, share)[:, None, None]
        picture = torch.lerp(picture, _colors(generator, count)[..., None, None], inside[:, None])
    waves = torch.sin((x * angle.sin() + y * angle.cos()) * _uniform(generator, count, 8, 50)[:, None, None])
    stripes = (waves > 0).float() * 0.3 * _chance(generator, count, 0.12)[:, None, None]
    return (picture * (1 - stripes[:, None])).clamp(0, 1)


def add_body(
    picture: Float[Tensor, "b 3 s s"],
    generator: torch.Generator,
    *,
    neck_ndc: Float[Tensor, "b 2"],
    crown_ndc: Float[Tensor, "b 2"],
    hair: Float[Tensor, "b 3"],
    skin: Float[Tensor, "b 3"],
    cloth: Float[Tensor, "b 3"],
    long_hair: Float[Tensor, " b"],
) -> Float[Tensor, "b 3 s s"]:
    """Images with long hair and shoulders, which the head will partly cover.

    Args:
        neck_ndc, crown_ndc: positions of the lower end of the neck and of the middle of the skull in the image, NDC.
        long_hair: 1 for people with long hair.
    """
    count, size_px = len(picture), picture.shape[-1]
    x, y = pixel_grid(size_px)
    axis = neck_ndc - crown_ndc
    length = torch.linalg.vector_norm(axis, dim=-1).clamp(min=0.2)[:, None, None]
    down = axis[..., None, None] / length[:, None]
    from_crown = torch.stack((x - crown_ndc[:, :1, None], y - crown_ndc[:, 1:, None]), dim=1)
    along = (from_crown * down).sum(1) / length
    across = (from_crown[:, 0] * down[:, 1] - from_crown[:, 1] * down[:, 0]) / length
    # The hair is a dome above the skull's middle that falls down beside the neck.
    width = _uniform(generator, count, 0.50, 0.68)[:, None, None]
    fall = _uniform(generator, count, 0.4, 1.4)[:, None, None]
    drop = torch.where(along < 0, along / 0.72, (along / fall).clamp(min=0) ** 2)
    mane = torch.sigmoid((1 - (across / width) ** 2 - drop**2) * 14) * long_hair[:, None, None]
    picture = torch.lerp(picture, (0.75 * hair)[..., None, None].expand_as(picture), mane[:, None])
    # The shoulders are a line that slopes down from the neck, with the body below it.
    side = (x - neck_ndc[:, :1, None]).abs() / length
    slope = _uniform(generator, count, 0.25, 0.6)[:, None, None]
    top = neck_ndc[:, 1:, None] + length * (slope * (side - 0.35).clamp(min=0) - 0.12)
    body = torch.sigmoid((y - top) / 0.015) * torch.sigmoid((1.35 - side) / 0.03)
    reach = _uniform(generator, count, 0.2, 0.7)[:, None, None]
    bare = torch.sigmoid((reach - (side**2 + ((y - top) / length) ** 2).sqrt()) / 0.02)
    folds = 1 + 0.12 * smooth_noise(generator, count, 1, size_px // 2)
    folds = torch.nn.functional.interpolate(folds, size=(size_px, size_px), mode="bilinear")
    clothes = torch.lerp(cloth[..., None, None] * folds, skin[..., None, None], bare[:, None])
    return torch.lerp(picture, clothes.clamp(0, 1), body[:, None])


def add_occluders(
    picture: Float[Tensor, "b 3 s s"], generator: torch.Generator, skin: Float[Tensor, "b 3"]
) -> Float[Tensor, "b 3 s s"]:
    """Images with hands, boards and bars in front of some of the faces."""
    count, size_px = len(picture), picture.shape[-1]
    x, y = pixel_grid(size_px)
    board = _rectangle(generator, count, x, y, largest=0.8)
    board = board * _chance(generator, count, BOARD_SHARE)[:, None, None]
    squares = torch.sign(torch.sin(x * 18) * torch.sin(y * 18)) * 0.5 + 0.5
    printed = _chance(generator, count, 0.5)[:, None, None, None] * squares[:, None]
    color = _colors(generator, count)[..., None, None]
    picture = torch.lerp(
        picture, torch.lerp(color.expand_as(picture), 0.9 - 0.8 * color, printed), board[:, None]
    )
    bar = _rectangle(generator, count, x, y, largest=0.8, thickness=0.12)
    bar = bar * _chance(generator, count, BAR_SHARE)[:, None, None]
    picture = torch.lerp(
        picture, 0.25 * _colors(generator, count)[..., None, None].expand_as(picture), bar[:, None]
    )
    hand = _hands(generator, count, x, y) * _chance(generator, count, HAND_SHARE)[:, None, None]
    light = 1 + 0.25 * smooth_noise(generator, count, 1, size_px // 4)
    light = torch.nn.functional.interpolate(light, size=(size_px, size_px), mode="bilinear")
    return torch.lerp(picture, (skin[..., None, None] * light).clamp(0, 1), hand[:, None])


def _hands(generator: torch.Generator, count: int, x: Tensor, y: Tensor) -> Tensor:
    """Opacity of a hand about as large as half a face: a palm and four fingers, (count, s, s) in 0..1."""
    angle = (torch.rand(count, generator=generator) * 2 * torch.pi)[:, None, None]
    distance = _uniform(generator, count, 0.2, 1.0)[:, None, None]
    where = (torch.rand(count, generator=generator) * 2 * torch.pi)[:, None, None]
    from_x, from_y = x - distance * where.cos(), y - distance * where.sin()
    along = from_x * angle.cos() + from_y * angle.sin()
    across = from_y * angle.cos() - from_x * angle.sin()
    inside = torch.sigmoid((1 - (along / 0.28) ** 2 - (across / 0.24) ** 2) * 8)
    spread = _uniform(generator, count, 0.9, 1.3)[:, None, None]
    for finger in range(4):
        finger_across = (finger - 1.5) * 0.12 * spread
        reach = _uniform(generator, count, 0.15, 0.34)[:, None, None]
        shape = 1 - ((along - 0.32) / reach) ** 2 - ((across - finger_across) / 0.055) ** 2
        inside = torch.maximum(inside, torch.sigmoid(shape * 8))
    return inside


def _rectangle(
    generator: torch.Generator,
    count: int,
    x: Tensor,
    y: Tensor,
    *,
    largest: float,
    thickness: float | None = None,
) -> Tensor:
    """Opacity of rotated rectangles with soft edges, (count, s, s) in 0..1."""
    angle = 0.5 * torch.randn(count, 1, 1, generator=generator)
    from_x = x - _uniform(generator, count, -1, 1)[:, None, None]
    from_y = y - _uniform(generator, count, -1, 1)[:, None, None]
    along = (from_x * angle.cos() + from_y * angle.sin()).abs()
    across = (from_y * angle.cos() - from_x * angle.sin()).abs()
    length = _uniform(generator, count, 0.1, largest)[:, None, None]
    breadth = _uniform(generator, count, 0.05, thickness or largest)[:, None, None]
    return torch.sigmoid((length - along) / 0.012) * torch.sigmoid((breadth - across) / 0.012)


def _colors(generator: torch.Generator, count: int) -> Tensor:
    """Mostly muted colours of any brightness."""
    grey = torch.rand(count, 1, generator=generator)
    return (grey + 0.11 * torch.randn(count, 3, generator=generator)).clamp(0, 1)


def _uniform(generator: torch.Generator, count: int, low: int | float, high: int | float) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def _chance(generator: torch.Generator, count: int, share: float) -> Tensor:
    return (torch.rand(count, generator=generator) < share).float()
