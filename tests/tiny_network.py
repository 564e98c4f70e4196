"""An encoder small enough to be fine-tuned in seconds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuface.encoders.predictor import Predictor
from neuface.head.model import HeadModel
from neuface.structs import HeadParams, Prediction, WeakPerspective


class TinyNetwork(Predictor):
    """A convolution, normalisations of every kind, and a linear layer; remembers nothing of an image."""

    input_px = 8

    def __init__(self, head: HeadModel) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.sizes = (head.num_identity, head.num_expression, 3, 3, 3, 6, 1, 2)
        self.convolution = nn.Conv2d(3, 6, 3)
        self.batch_norm = nn.BatchNorm2d(6)
        self.group_norm = nn.GroupNorm(2, 6)
        self.layer_norm = nn.LayerNorm(6)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(6, sum(self.sizes))

    def prepare(self, crops: Tensor) -> Tensor:
        return crops

    def forward(self, inputs: Tensor) -> Prediction:
        features = self.group_norm(self.batch_norm(self.convolution(inputs))).relu().mean((-2, -1))
        raw = 0.1 * self.linear(self.dropout(self.layer_norm(features)))
        identity, expression, root, neck, jaw, eyes, scale, offset = raw.split(self.sizes, dim=-1)
        params = HeadParams(
            identity=identity,
            expression=expression,
            root_rotvec=root,
            neck_rotvec=neck,
            jaw_rotvec=jaw,
            eyes_rotvec=eyes.unflatten(-1, (2, 3)),
        )
        return Prediction(params=params, camera=WeakPerspective(scale=5 + scale[:, 0], offset=offset))


def pictures(views: int, time: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(views * time, 3, 8, 8, generator=generator, dtype=torch.float64)
