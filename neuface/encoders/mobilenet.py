"""The minimal MobileNetV3 with SMIRK's names of the weights and TensorFlow's padding (Howard et al., 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuface.encoders.layers import BatchNorm2d, Conv2d

NORM_EPS = 1e-3
STEM_CHANNELS = 16


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Blocks of equal width; the first block has the stride."""

    stride: int
    channels: int
    inner: tuple[int, ...]
    """Channels inside each block."""


def _stage(stride: int, channels: int, *inner: int) -> Stage:
    return Stage(stride=stride, channels=channels, inner=inner)


@dataclass(frozen=True, kw_only=True)
class TrunkSize:
    """The differences between the small and the large network. The last stage is one 1 x 1 convolution."""

    first_stride: int
    stages: tuple[Stage, ...]
    features: int


SMALL = TrunkSize(
    first_stride=2,
    stages=(
        _stage(2, 24, 72, 88),
        _stage(2, 40, 96, 240, 240),
        _stage(1, 48, 120, 144),
        _stage(2, 96, 288, 576, 576),
    ),
    features=576,
)
LARGE = TrunkSize(
    first_stride=1,
    stages=(
        _stage(2, 24, 64, 72),
        _stage(2, 40, 72, 120, 120),
        _stage(2, 80, 240, 200, 184, 184),
        _stage(1, 112, 480, 672),
        _stage(2, 160, 672, 960, 960),
    ),
    features=960,
)


class SameConv2d(Conv2d):
    """A convolution whose output is the input's size over the stride, rounded up.

    Convention:
        TensorFlow's "SAME" padding: the padding is split equally between both sides, and an odd pixel is added on
        the right and at the bottom. A kernel of 3 with stride 2 on 224 px needs one pixel: 0 left, 1 right.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int, groups: int = 1
    ) -> None:
        super().__init__(channels_in, channels_out, kernel, stride, groups=groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        sides: list[int] = []
        for axis in (-1, -2):
            size, kernel, stride = input.shape[axis], self.kernel_size[axis], self.stride[axis]
            needed = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            sides += [needed // 2, needed - needed // 2]
        return super().forward(nn.functional.pad(input, sides))


class SeparableBlock(nn.Module):
    """A depthwise and a 1 x 1 convolution: the first stage."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = SameConv2d(channels, channels, 3, stride, groups=channels)
        self.bn1 = _norm(channels)
        self.conv_pw = SameConv2d(channels, channels, 1, 1)
        self.bn2 = _norm(channels)
        self.skip = stride == 1

    def forward(self, features: Float[Tensor, "n channels h w"]) -> Float[Tensor, "n channels h2 w2"]:
        inner = self.bn2(self.conv_pw(torch.relu(self.bn1(self.conv_dw(features)))))
        return inner + features if self.skip else inner


class InvertedBlock(nn.Module):
    """An inverted residual: expansion, depthwise convolution, linear projection (Sandler et al., 2018)."""

    def __init__(self, channels_in: int, inner: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv_pw = SameConv2d(channels_in, inner, 1, 1)
        self.bn1 = _norm(inner)
        self.conv_dw = SameConv2d(inner, inner, 3, stride, groups=inner)
        self.bn2 = _norm(inner)
        self.conv_pwl = SameConv2d(inner, channels_out, 1, 1)
        self.bn3 = _norm(channels_out)
        self.skip = stride == 1 and channels_in == channels_out

    def forward(self, features: Float[Tensor, "n channels_in h w"]) -> Float[Tensor, "n channels_out h2 w2"]:
        inner = torch.relu(self.bn1(self.conv_pw(features)))
        inner = torch.relu(self.bn2(self.conv_dw(inner)))
        inner = self.bn3(self.conv_pwl(inner))
        return inner + features if self.skip else inner


class LastBlock(nn.Module):
    """The 1 x 1 convolution to the number of features."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = SameConv2d(channels_in, channels_out, 1, 1)
        self.bn1 = _norm(channels_out)

    def forward(self, features: Float[Tensor, "n channels_in h w"]) -> Float[Tensor, "n channels_out h w"]:
        return torch.relu(self.bn1(self.conv(features)))


class MobileNetTrunk(nn.Module):
    """Images to features, averaged over the image; all activations are ReLU, without squeeze-and-excite."""

    def __init__(self, size: TrunkSize) -> None:
        super().__init__()
        self.features = size.features
        self.conv_stem = SameConv2d(3, STEM_CHANNELS, 3, 2)
        self.bn1 = _norm(STEM_CHANNELS)
        blocks: list[nn.Sequential] = [nn.Sequential(SeparableBlock(STEM_CHANNELS, size.first_stride))]
        channels = STEM_CHANNELS
        for stage in size.stages:
            blocks.append(nn.Sequential(*_stage_blocks(channels, stage)))
            channels = stage.channels
        self.blocks = nn.Sequential(*blocks, nn.Sequential(LastBlock(channels, size.features)))

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n features"]:
        return self.blocks(torch.relu(self.bn1(self.conv_stem(images)))).mean((-2, -1))


def _stage_blocks(channels_in: int, stage: Stage) -> Sequence[nn.Module]:
    first = InvertedBlock(channels_in, stage.inner[0], stage.channels, stage.stride)
    return [first, *(InvertedBlock(stage.channels, inner, stage.channels, 1) for inner in stage.inner[1:])]


def _norm(channels: int) -> BatchNorm2d:
    return BatchNorm2d(channels, eps=NORM_EPS)
