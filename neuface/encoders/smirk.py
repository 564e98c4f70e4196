"""SMIRK (Retsinas et al., CVPR 2024): three small networks for pose, shape and expression with eyelids."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuface.encoders.deca import FLAME2020
from neuface.encoders.flame_encoder import CodeLayout, FlameEncoder, camera_from_code, flame_params
from neuface.encoders.layers import Linear
from neuface.encoders.mobilenet import LARGE, SMALL, MobileNetTrunk
from neuface.structs import Prediction

IDENTITY, EXPRESSION, EYELIDS = 300, 50, 2
# Number of FLAME's expression coefficients; those of the eyelids follow them in the code of a head with eyelids.
HEAD_EXPRESSION = 100
# Bound of the jaw's rotation about its vertical and forward axes, radians.
LARGEST_JAW_TURN = 0.2
# Added to grey values before they are truncated to integers, as in the official program: interpolation can leave an
# integer smaller by a few millionths, which must not change it by 1.
TRUNCATION_SLACK = 1e-3


class _Branch(nn.Module):
    """A trunk, to which the branches add a linear layer with its official name."""

    def __init__(self, trunk: MobileNetTrunk) -> None:
        super().__init__()
        self.encoder = trunk


class PoseBranch(_Branch):
    """Root rotation (radians) and camera code."""

    def __init__(self) -> None:
        super().__init__(MobileNetTrunk(SMALL))
        self.pose_cam_layers = nn.Sequential(Linear(SMALL.features, 6))

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 6"]:
        return self.pose_cam_layers(self.encoder(images))


class ShapeBranch(_Branch):
    """300 shape coefficients."""

    def __init__(self) -> None:
        super().__init__(MobileNetTrunk(LARGE))
        self.shape_layers = nn.Sequential(Linear(LARGE.features, IDENTITY))

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 300"]:
        return self.shape_layers(self.encoder(images))


class ExpressionBranch(_Branch):
    """50 expression coefficients, two eyelids and the jaw's rotation, before they are clamped."""

    def __init__(self) -> None:
        super().__init__(MobileNetTrunk(LARGE))
        self.expression_layers = nn.Sequential(Linear(LARGE.features, EXPRESSION + EYELIDS + 3))

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 55"]:
        return self.expression_layers(self.encoder(images))


class SmirkEncoder(FlameEncoder):
    """The three branches as one `Predictor`.

    The expression code has 102 numbers: 50 coefficients, 50 zeros, and the eyelids (left, right; 0 open, 1 closed)
    that a FLAME head with eyelids adds after skinning.
    """

    layout: CodeLayout = CodeLayout(
        head_version=FLAME2020, identity=IDENTITY, expression=HEAD_EXPRESSION, eyelids=EYELIDS
    )

    def __init__(self) -> None:
        super().__init__()
        self.pose_encoder = PoseBranch()
        self.shape_encoder = ShapeBranch()
        self.expression_encoder = ExpressionBranch()

    def prepare(self, crops: Float[Tensor, "n 3 h w"]) -> Tensor:
        """Crops truncated to integers 0 to 255, as in the official program; half precision represents them exactly.

        Raises InputError for another size than 224 px.
        """
        self.check_size(crops)
        return (crops * 255 + TRUNCATION_SLACK).floor().half()

    def forward(self, inputs: Float[Tensor, "n 3 h w"]) -> Prediction:
        """Heads and cameras for prepared crops."""
        images = self.as_weights(inputs) / 255
        pose, cam = self.pose_encoder(images).split((3, 3), dim=-1)
        expression, eyelids, jaw = self.expression_encoder(images).split((EXPRESSION, EYELIDS, 3), dim=-1)
        unused = expression.new_zeros(len(expression), HEAD_EXPRESSION - EXPRESSION)
        opening, turn = jaw.split((1, 2), dim=-1)
        params = flame_params(
            identity=self.shape_encoder(images),
            expression=torch.cat((expression, unused, eyelids.clamp(0, 1)), -1),
            root_rotvec=pose,
            jaw_rotvec=torch.cat((opening.relu(), turn.clamp(-LARGEST_JAW_TURN, LARGEST_JAW_TURN)), -1),
        )
        return Prediction(params=params, camera=camera_from_code(cam))
