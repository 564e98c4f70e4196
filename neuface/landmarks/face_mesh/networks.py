"""The three networks of MediaPipe's face landmarker: where faces are, their landmarks, and their expression.

Each follows the layers of Google's published graphs (bundle of 2023-05-03), so that its weights can be used. Modules
are made in the order in which the graphs compute: `tools/convert_face_mesh.py` relies on it. The depthwise
convolutions have no bias because in the graphs it is zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad, relu

from neuface.landmarks.face_mesh.points import BLENDSHAPE_NAMES, BLENDSHAPE_POINTS

DETECTOR_PX = 128
"""Side of the pictures that the face detector takes."""
LANDMARKER_PX = 256
"""Side of the pictures that the landmark network takes."""
LANDMARKS = 478
# Width and stride of the detector's blocks. A head of 2 anchors a cell reads what the eleventh gives, and one of 6
# anchors what the last gives.
DETECTOR_BLOCKS = (
    (24, 1), (28, 1), (32, 2), (36, 1), (42, 1), (48, 2), (56, 1), (64, 1),
    (72, 1), (80, 1), (88, 1), (96, 2), (96, 1), (96, 1), (96, 1), (96, 1),
)  # fmt: skip
FINE_BLOCK = 10
ANCHORS_FINE, ANCHORS_COARSE = 2, 6
# A box has centre, size and six keypoints.
BOX_VALUES = 16
# Width of the landmark network's stages, each of which begins by halving the picture but the first.
LANDMARKER_STAGES = (16, 32, 64, 128, 128, 128, 128)
UNITS_PER_STAGE = 4
# Sizes of the mixer: tokens made from the points, their channels, hidden widths, and the number of blocks.
TOKENS, CHANNELS, TOKEN_HIDDEN, CHANNEL_HIDDEN, MIXER_BLOCKS = 96, 64, 384, 256, 4
# Keeps the variance from zero; 1e-6 in half precision, as the graph has it.
NORM_EPSILON = 1.0132789611816406e-06
# Scale of the points after division by their mean distance from their centre.
POINT_SCALE = 0.5


def _pad_after(x: Tensor, rows: int) -> Tensor:
    """TensorFlow's "SAME" for strided convolutions on even sizes: more zeros after than before."""
    return pad(x, (rows // 2, rows - rows // 2, rows // 2, rows - rows // 2))


def _channels_last(x: Tensor) -> Tensor:
    """The memory format in which small convolutions are quickest on a CPU (by a third here)."""
    return x.contiguous(memory_format=torch.channels_last)


def _skipped(x: Tensor, width: int, stride: int) -> Tensor:
    """The shortcut of a block: largest of 2 x 2 where the block halves the picture, with empty channels appended."""
    if stride == 2:
        x = max_pool2d(x, 2)
    missing = width - x.shape[1]
    return pad(x, (0, 0, 0, 0, 0, missing)) if missing else x


class DetectorBlock(nn.Module):
    """A separable convolution with a shortcut."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.width, self.stride = width, stride
        padding = 1 if stride == 1 else 0
        self.depthwise = nn.Conv2d(
            width_in, width_in, 3, stride=stride, padding=padding, groups=width_in, bias=False
        )
        self.pointwise = nn.Conv2d(width_in, width, 1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        padded = x if self.stride == 1 else _pad_after(x, 1)
        inner = self.pointwise(self.depthwise(padded))
        inner += _skipped(x, self.width, self.stride)
        return relu(inner)


class FaceDetector(nn.Module):
    """BlazeFace, short range: raw boxes and score logits of 896 anchors."""

    def __init__(self) -> None:
        super().__init__()
        first = DETECTOR_BLOCKS[0][0]
        self.stem = nn.Conv2d(3, first, 5, stride=2)
        widths = [first, *(width for width, _ in DETECTOR_BLOCKS)]
        self.blocks = nn.ModuleList(
            DetectorBlock(before, width, stride)
            for before, (width, stride) in zip(widths, DETECTOR_BLOCKS, strict=False)
        )
        fine, coarse = DETECTOR_BLOCKS[FINE_BLOCK][0], DETECTOR_BLOCKS[-1][0]
        self.fine_scores = nn.Conv2d(fine, ANCHORS_FINE, 1)
        self.coarse_scores = nn.Conv2d(coarse, ANCHORS_COARSE, 1)
        self.fine_boxes = nn.Conv2d(fine, ANCHORS_FINE * BOX_VALUES, 1)
        self.coarse_boxes = nn.Conv2d(coarse, ANCHORS_COARSE * BOX_VALUES, 1)

    def forward(
        self, pictures: Float[Tensor, "n 3 128 128"]
    ) -> tuple[Float[Tensor, "n anchors 16"], Float[Tensor, "n anchors"]]:
        """Boxes (in pixels of the picture, relative to their anchors) and score logits, for pictures in -1..1."""
        x = relu(self.stem(_pad_after(_channels_last(pictures), 3)))
        fine = x
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index == FINE_BLOCK:
                fine = x
        scores = [_per_anchor(self.fine_scores(fine), 1), _per_anchor(self.coarse_scores(x), 1)]
        boxes = [
            _per_anchor(self.fine_boxes(fine), BOX_VALUES),
            _per_anchor(self.coarse_boxes(x), BOX_VALUES),
        ]
        return torch.cat(boxes, 1), torch.cat(scores, 1)[..., 0]


def _per_anchor(maps: Float[Tensor, "n c h w"], values: int) -> Float[Tensor, "n anchors values"]:
    """Rows, columns and anchors of a head's map as one axis."""
    return maps.permute(0, 2, 3, 1).reshape(len(maps), -1, values)


class LandmarkerBlock(nn.Module):
    """A bottleneck with a shortcut; with `stride` 2 its first convolution halves the picture."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.width, self.stride = width, stride
        self.narrow = nn.Conv2d(width_in, width // 2, stride, stride=stride)
        self.narrow_slope = nn.PReLU(width // 2)
        self.depthwise = nn.Conv2d(width // 2, width // 2, 3, padding=1, groups=width // 2, bias=False)
        self.widen = nn.Conv2d(width // 2, width, 1)
        self.slope = nn.PReLU(width)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        inner = self.widen(self.depthwise(self.narrow_slope(self.narrow(x))))
        # In place, because here the time goes into memory rather than arithmetic.
        inner += _skipped(x, self.width, self.stride)
        return self.slope(inner)


@dataclass(frozen=True, kw_only=True)
class RawLandmarks:
    """What the landmark network says of crops."""

    points: Float[Tensor, "n 478 3"]
    """In pixels of the crop; the third coordinate is the depth, negative towards the camera."""
    presence_logit: Float[Tensor, " n"]
    """Whether the crop shows a face."""
    third_output: Float[Tensor, " n"]
    """A probability whose meaning is not published; nothing here uses it."""


class FaceLandmarker(nn.Module):
    """478 landmarks of the face that a crop shows, and whether it shows one."""

    def __init__(self) -> None:
        super().__init__()
        first = LANDMARKER_STAGES[0]
        self.stem = nn.Conv2d(3, first, 3, stride=2)
        self.stem_slope = nn.PReLU(first)
        blocks, before = [], first
        for stage, width in enumerate(LANDMARKER_STAGES):
            if stage > 0:
                blocks.append(LandmarkerBlock(before, width, 2))
            blocks += [LandmarkerBlock(width, width, 1) for _ in range(UNITS_PER_STAGE)]
            before = width
        self.blocks = nn.Sequential(*blocks)
        self.third = nn.Conv2d(before, 1, 2)
        self.presence = nn.Conv2d(before, 1, 2)
        self.points = nn.Conv2d(before, LANDMARKS * 3, 2)

    def forward(self, crops: Float[Tensor, "n 3 256 256"]) -> RawLandmarks:
        """Landmarks for crops in 0..1."""
        x = self.blocks(self.stem_slope(self.stem(_pad_after(_channels_last(crops), 1))))
        return RawLandmarks(
            points=self.points(x).reshape(-1, LANDMARKS, 3),
            presence_logit=self.presence(x).flatten(),
            third_output=torch.sigmoid(self.third(x)).flatten(),
        )


class MixerNorm(nn.Module):
    """Normalisation over the channels with a scale and no shift."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(CHANNELS))

    def forward(self, x: Float[Tensor, "n tokens channels"]) -> Float[Tensor, "n tokens channels"]:
        return nn.functional.layer_norm(x, (CHANNELS,), self.scale, None, NORM_EPSILON)


class MixerBlock(nn.Module):
    """Mixes the tokens of every channel, then the channels of every token."""

    def __init__(self) -> None:
        super().__init__()
        self.token_norm = MixerNorm()
        self.token_hidden = nn.Linear(TOKENS + 1, TOKEN_HIDDEN)
        self.token_out = nn.Linear(TOKEN_HIDDEN, TOKENS + 1)
        self.channel_norm = MixerNorm()
        self.channel_hidden = nn.Linear(CHANNELS, CHANNEL_HIDDEN)
        self.channel_out = nn.Linear(CHANNEL_HIDDEN, CHANNELS)

    def forward(self, x: Float[Tensor, "n tokens channels"]) -> Float[Tensor, "n tokens channels"]:
        mixed = self.token_out(relu(self.token_hidden(self.token_norm(x).transpose(1, 2))))
        x = x + mixed.transpose(1, 2)
        return x + self.channel_out(relu(self.channel_hidden(self.channel_norm(x))))


class LearnedToken(nn.Module):
    """Puts a learned token in front of the others."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(CHANNELS))

    def forward(self, x: Float[Tensor, "n tokens channels"]) -> Float[Tensor, "n more channels"]:
        return torch.cat([self.value.expand(len(x), 1, -1), x], 1)


class BlendshapeScorer(nn.Module):
    """52 blendshape scores, 0..1, from landmarks alone; `BLENDSHAPE_NAMES` has their order."""

    def __init__(self) -> None:
        super().__init__()
        self.points = nn.Linear(len(BLENDSHAPE_POINTS), TOKENS)
        self.coordinates = nn.Linear(2, CHANNELS)
        self.token = LearnedToken()
        self.blocks = nn.Sequential(*(MixerBlock() for _ in range(MIXER_BLOCKS)))
        self.scores = nn.Linear(CHANNELS, len(BLENDSHAPE_NAMES))

    def forward(self, points_px: Float[Tensor, "n 478 2"]) -> Float[Tensor, "n 52"]:
        """Scores for landmarks in frame pixels (any scale and place, equal on both axes)."""
        chosen = points_px[:, list(BLENDSHAPE_POINTS)]
        centred = chosen - chosen.mean(1, keepdim=True)
        size = torch.linalg.vector_norm(centred, dim=-1).mean(1)
        shape = centred / size[:, None, None] * POINT_SCALE
        tokens = self.coordinates(self.points(shape.transpose(1, 2)).transpose(1, 2))
        mixed = self.blocks(self.token(tokens))
        return torch.sigmoid(self.scores(mixed[:, 0]))


class FaceNetworks(nn.Module):
    """The three networks together, as one file holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.detector = FaceDetector()
        self.landmarker = FaceLandmarker()
        self.scorer = BlendshapeScorer()
