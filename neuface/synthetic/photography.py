"""Image degradation from a clean render to a video frame: shadows, optics, sensor, colour and compression."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

from neuface.synthetic.appearance import smooth_noise

# Bounds of the blur's standard deviation. It is never 0, because a render has hard edges and no camera's image has.
SMALLEST_BLUR_PX, LARGEST_BLUR_PX = 0.4, 1.4
# Smallest side to which an image is reduced and enlarged again.
SMALLEST_SIZE_PX = 40
# Half width of the blur's kernel, pixels.
BLUR_TAPS = 4
# Side of a compression block.
BLOCK_PX = 8
# Weights of red, green and blue in the luma of ITU-R BT.601.
GREY_WEIGHTS = (0.299, 0.587, 0.114)


def degrade(picture: Float[Tensor, "b 3 s s"], generator: torch.Generator) -> Float[Tensor, "b 3 s s"]:
    """Images as a webcam, a phone or an old video might have recorded them; RGB in 0..1.

    The side must be a multiple of 8, the size of a compression block.
    """
    picture = _color(picture, generator)
    share = torch.rand(len(picture), generator=generator) ** 2
    picture = _blur(picture, SMALLEST_BLUR_PX + (LARGEST_BLUR_PX - SMALLEST_BLUR_PX) * share)
    picture = _resample(picture, generator)
    count = len(picture)
    fine = torch.randn(picture.shape, generator=generator)
    grain = 0.022 * torch.rand(count, 1, 1, 1, generator=generator) ** 2
    picture = picture + grain * fine
    return _compress(picture, generator).clamp(0, 1)


def cast_shadows(picture: Float[Tensor, "b 3 s s"], generator: torch.Generator) -> Float[Tensor, "b 3 s s"]:
    """Images some of which are darkened in patches, as by a brim, a window frame or foliage."""
    count, size_px = len(picture), picture.shape[-1]
    field = smooth_noise(generator, count, 1, 4)
    field = interpolate(field, size=(size_px, size_px), mode="bicubic")
    edge = 0.15 + 0.5 * torch.rand(count, 1, 1, 1, generator=generator)
    depth = 0.45 * torch.rand(count, 1, 1, 1, generator=generator)
    depth = depth * (torch.rand(count, 1, 1, 1, generator=generator) < 0.15)
    return picture * (1 - depth * torch.sigmoid((field - 0.5) / edge))


def _color(picture: Tensor, generator: torch.Generator) -> Tensor:
    """Random exposure, contrast, gamma, white balance and saturation; a tenth of the images is grey."""
    shape = (len(picture), 1, 1, 1)

    def uniform(low: int | float, high: int | float) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    cast = 1 + 0.06 * torch.randn(len(picture), 3, 1, 1, generator=generator)
    picture = (picture.clamp(1e-4, 1) ** uniform(0.7, 1.4)) * cast
    picture = (picture - 0.45) * uniform(0.7, 1.4) + 0.45 + uniform(-0.1, 0.12)
    grey = (picture * picture.new_tensor(GREY_WEIGHTS)[:, None, None]).sum(1, keepdim=True)
    colorless = torch.rand(shape, generator=generator) < 0.1
    saturation = torch.where(colorless, 0.0, uniform(0.6, 1.5))
    return torch.lerp(grey.expand_as(picture), picture, saturation).clamp(0, 1)


def _blur(picture: Tensor, sigma_px: Float[Tensor, " b"]) -> Tensor:
    """Gaussian blur with a standard deviation per image."""
    count, _, size, _ = picture.shape
    steps = torch.arange(-BLUR_TAPS, BLUR_TAPS + 1)
    kernel = torch.exp(-0.5 * (steps / sigma_px[:, None]) ** 2)
    kernel = (kernel / kernel.sum(-1, keepdim=True)).repeat_interleave(3, 0)
    flat = pad(picture.reshape(1, count * 3, size, size), (BLUR_TAPS,) * 4, mode="replicate")
    flat = conv2d(flat, kernel[:, None, None, :], groups=count * 3)
    flat = conv2d(flat, kernel[:, None, :, None], groups=count * 3)
    return flat.reshape(picture.shape)


def _resample(picture: Tensor, generator: torch.Generator) -> Tensor:
    """Images of which some are reduced to a smaller size and enlarged again."""
    full = picture.shape[-1]
    sizes = torch.randint(SMALLEST_SIZE_PX, 2 * full, (len(picture),), generator=generator).tolist()
    done = []
    for image, size in zip(picture.split(1), sizes, strict=True):
        if size < full:
            small = interpolate(image, size=(size, size), mode="bilinear", antialias=True)
            image = interpolate(small, size=(full, full), mode="bilinear")
        done.append(image)
    return torch.cat(done)


def _compress(picture: Tensor, generator: torch.Generator) -> Tensor:
    """Quantise the cosine transform of 8 x 8 blocks, coarsely for high frequencies, as JPEG and video codecs do."""
    count, _, size, _ = picture.shape
    row = torch.arange(BLOCK_PX)
    cosines = torch.cos(torch.pi / BLOCK_PX * (row[None] + 0.5) * row[:, None])
    cosines *= torch.where(row == 0, 0.5, 2**-0.5)[:, None] * 0.5 * 2**0.5
    strength = 0.10 * torch.rand(count, 1, 1, 1, 1, 1, generator=generator) ** 2
    strength = strength * (torch.rand(count, 1, 1, 1, 1, 1, generator=generator) < 0.4) + 1e-4
    coarseness = 0.5 + 0.5 * (row[:, None] + row[None])
    step = strength * coarseness
    blocks = picture.unfold(2, BLOCK_PX, BLOCK_PX).unfold(3, BLOCK_PX, BLOCK_PX)
    spectrum = cosines @ blocks @ cosines.T
    spectrum = torch.round(spectrum / step) * step
    blocks = cosines.T @ spectrum @ cosines
    return blocks.transpose(3, 4).reshape(count, 3, size, size)
