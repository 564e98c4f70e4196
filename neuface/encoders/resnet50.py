"""ResNet-50 (He et al., 2016) with DECA's and EMOCA's names of the weights, and the two linear layers after it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuface.encoders.layers import BatchNorm2d, Conv2d, Linear

FEATURES = 2048
HIDDEN = 1024
STAGE_WIDTHS = (64, 128, 256, 512)
STAGE_BLOCKS = (3, 4, 6, 3)
# Channels of a block's output over those of its 3 x 3 convolution.
EXPANSION = 4


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions with a shortcut; the 3 x 3 convolution has the stride."""

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        channels_out = width * EXPANSION
        self.conv1 = Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = BatchNorm2d(width)
        self.conv2 = Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = BatchNorm2d(width)
        self.conv3 = Conv2d(width, channels_out, 1, bias=False)
        self.bn3 = BatchNorm2d(channels_out)
        self.downsample = (
            nn.Sequential(Conv2d(channels_in, channels_out, 1, stride, bias=False), BatchNorm2d(channels_out))
            if stride != 1 or channels_in != channels_out
            else nn.Identity()
        )

    def forward(self, features: Float[Tensor, "n channels_in h w"]) -> Float[Tensor, "n channels_out h2 w2"]:
        inner = torch.relu(self.bn1(self.conv1(features)))
        inner = torch.relu(self.bn2(self.conv2(inner)))
        return torch.relu(self.bn3(self.conv3(inner)) + self.downsample(features))


class ResNet50(nn.Module):
    """Images to 2048 features, averaged over the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = Conv2d(3, STAGE_WIDTHS[0], 7, 2, 3, bias=False)
        self.bn1 = BatchNorm2d(STAGE_WIDTHS[0])
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = STAGE_WIDTHS[0]
        stages: list[nn.Sequential] = []
        for stage, (width, blocks) in enumerate(zip(STAGE_WIDTHS, STAGE_BLOCKS, strict=True)):
            first = Bottleneck(channels, width, stride=1 if stage == 0 else 2)
            channels = width * EXPANSION
            stages.append(
                nn.Sequential(first, *(Bottleneck(channels, width, stride=1) for _ in range(1, blocks)))
            )
        self.layer1, self.layer2, self.layer3, self.layer4 = stages

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 2048"]:
        features = self.maxpool(torch.relu(self.bn1(self.conv1(images))))
        return self.layer4(self.layer3(self.layer2(self.layer1(features)))).mean((-2, -1))


class CodeNetwork(nn.Module):
    """ResNet-50 and two linear layers: RGB images, 0 to 1 and 224 px, to a code."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.encoder = ResNet50()
        self.layers = nn.Sequential(Linear(FEATURES, HIDDEN), nn.ReLU(), Linear(HIDDEN, outputs))

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n code"]:
        return self.layers(self.encoder(images))
