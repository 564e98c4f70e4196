"""The open encoder: a compact network that predicts parameters of the open head from a face crop."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from neuface.encoders.backbone import ResidualBackbone
from neuface.encoders.predictor import Predictor
from neuface.errors import InputError
from neuface.geometry.rotations import rotvec_to_rotmat
from neuface.head.model import HeadModel
from neuface.structs import HEAD_TO_IMAGE_SIGNS, Camera, HeadParams, Prediction, WeakPerspective

CROP_PX = 224
# Factor by which crops are reduced before the network.
SHRINK = 2
# Side of the backbone's last feature map.
MAP_SIDE = 4
# Slope of the leaky rectifier for negative values.
LEAK = 0.1
# Normalisation of RGB values, 0..1: roughly the mean and standard deviation of faces. The weights were trained with
# these numbers.
PIXEL_MEAN, PIXEL_SPREAD = 0.45, 0.25
# Prediction of the untrained network: a face that fills the crop (half-widths per metre), almost without expression.
TYPICAL_SCALE = 9.0
TYPICAL_EXPRESSION = 0.06


@dataclass(frozen=True, kw_only=True)
class OpenEncoderConfig:
    """The network's size."""

    widths: tuple[int, int, int, int] = (24, 48, 96, 192)
    """Channels of the backbone's stages."""
    reduced_channels: int = 64
    """Channels to which the last feature map is reduced before it is flattened."""
    hidden: int = 256


class OpenEncoder(Predictor):
    """A `Predictor` for the open head (or any head model whose expression coefficients are in 0..1).

    Rotation and translation are decoupled: the network predicts the position in the crop of an anchor, a point of the
    template between the eyes and the mouth, and the camera's offset is computed from it. Neck, jaw and eye rotations
    are always zero: the whole head rotates about the root joint, the unit `jawOpen` opens the jaw, and the `eyeLook`
    units direct the gaze. All outputs are differentiable with respect to the weights.
    """

    input_px: int = CROP_PX
    anchor: Tensor
    root_joint: Tensor
    root_basis: Tensor

    def __init__(self, head: HeadModel, config: OpenEncoderConfig | None = None) -> None:
        super().__init__()
        self.config = config or OpenEncoderConfig()
        self.head_name, self.head_hash = head.name, head.parameter_hash()
        self.register_buffer("anchor", face_anchor(head), persistent=False)
        self.register_buffer("root_joint", head.joint_template[0], persistent=False)
        self.register_buffer("root_basis", head.joint_identity_basis[0], persistent=False)
        self.sizes = (head.num_identity, head.num_expression, 3, 1, 2)
        self.backbone = ResidualBackbone(self.config.widths)
        self.reduce = nn.Conv2d(self.config.widths[-1], self.config.reduced_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(self.config.reduced_channels)
        flat = self.config.reduced_channels * MAP_SIDE**2
        self.hidden = nn.Linear(flat, self.config.hidden)
        self.readout = nn.Linear(self.config.hidden, sum(self.sizes))
        self._start_at_typical_face()

    def prepare(self, crops: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h2 w2"]:
        """Average 2 x 2 pixels of 224 px crops. Raises InputError for another size."""
        if crops.shape[1:] != (3, CROP_PX, CROP_PX):
            raise InputError(
                f"the open encoder takes (n, 3, {CROP_PX}, {CROP_PX}) crops, got {tuple(crops.shape)}"
            )
        return shrunk(crops)

    def forward(self, inputs: Float[Tensor, "n 3 h w"]) -> Prediction:
        """Heads and cameras for prepared crops."""
        pixels = ((inputs - PIXEL_MEAN) / PIXEL_SPREAD).contiguous(memory_format=torch.channels_last)
        features = leaky_relu(self.norm(self.reduce(self.backbone(pixels))), LEAK)
        outputs = self.readout(leaky_relu(self.hidden(features.flatten(1)), LEAK))
        identity, expression, rotvec, log_scale, centre = outputs.split(self.sizes, dim=-1)
        still = torch.zeros_like(rotvec)
        params = HeadParams(
            identity=identity,
            expression=torch.sigmoid(expression),
            root_rotvec=rotvec,
            neck_rotvec=still,
            jaw_rotvec=still,
            eyes_rotvec=still[:, None].expand(-1, 2, -1),
        )
        scale = log_scale[:, 0].exp()
        posed = self.posed_anchor(identity, rotvec)
        unshifted = WeakPerspective(scale=scale, offset=torch.zeros_like(centre)).project(posed[:, None])[
            :, 0
        ]
        return Prediction(params=params, camera=WeakPerspective(scale=scale, offset=centre - unshifted))

    def posed_anchor(
        self, identity: Float[Tensor, "n identity"], root_rotvec: Float[Tensor, "n 3"]
    ) -> Float[Tensor, "n 3"]:
        """The anchor rotated about the root joint of each identity, metres in the head frame."""
        joint = self.root_joint + einsum(self.root_basis, identity, "c i, n i -> n c")
        turn = rotvec_to_rotmat(root_rotvec)
        return (turn @ (self.anchor - joint)[..., None])[..., 0] + joint

    def _start_at_typical_face(self) -> None:
        """Initialise the last layer with near-zero weights and the biases of a typical face."""
        identity, expression, *_ = self.sizes
        nn.init.normal_(self.readout.weight, std=1e-3)
        nn.init.zeros_(self.readout.bias)
        with torch.no_grad():
            logit = math.log(TYPICAL_EXPRESSION / (1 - TYPICAL_EXPRESSION))
            self.readout.bias[identity : identity + expression] = logit
            self.readout.bias[-3] = math.log(TYPICAL_SCALE)


def shrunk(crops: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h2 w2"]:
    """Crops as inputs of the network: averages over squares of SHRINK pixels."""
    return torch.nn.functional.avg_pool2d(crops, SHRINK)


def face_anchor(head: HeadModel) -> Float[Tensor, 3]:
    """A point of the template between the eyes and the mouth, metres, whose position in the crop is predicted."""
    eyes = head.joint_template[3:5].mean(0)
    lips = head.template[head.regions["lips"]].mean(0)
    return (eyes + lips) / 2


def anchor_centre(camera: Camera, posed_anchor: Float[Tensor, "n 3"]) -> Float[Tensor, "n 2"]:
    """The position of the posed anchor in the crop, NDC: the network's training target."""
    return (
        camera.magnification[:, None] * (posed_anchor * posed_anchor.new_tensor(HEAD_TO_IMAGE_SIGNS))[:, :2]
        + camera.position
    )
