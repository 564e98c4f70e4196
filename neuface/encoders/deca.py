"""DECA's coarse encoder (Feng et al., SIGGRAPH 2021): FLAME's parameters and a camera from a crop.

The network's texture and light codes are not used here, nor is its detail branch.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from neuface.encoders.flame_encoder import CodeLayout, FlameEncoder, camera_from_code, flame_params
from neuface.encoders.resnet50 import CodeNetwork
from neuface.structs import HeadParams, Prediction, WeakPerspective

# Lengths of the parts of the code: shape, texture, expression, pose (root, jaw), camera, light (9 bands by RGB).
CODE_SIZES = (100, 50, 50, 6, 3, 27)
FLAME2020 = "flame2020"


class DecaEncoder(FlameEncoder):
    """The network `E_flame`: 100 shape and 50 expression coefficients, root and jaw rotation, and the camera."""

    layout: CodeLayout = CodeLayout(head_version=FLAME2020, identity=CODE_SIZES[0], expression=CODE_SIZES[2])

    def __init__(self) -> None:
        super().__init__()
        self.E_flame = CodeNetwork(sum(CODE_SIZES))

    def forward(self, inputs: Float[Tensor, "n 3 h w"]) -> Prediction:
        """Heads and cameras for prepared crops."""
        params, camera = decode_flame_code(self.E_flame(self.as_weights(inputs)))
        return Prediction(params=params, camera=camera)


def decode_flame_code(code: Float[Tensor, "n 236"]) -> tuple[HeadParams, WeakPerspective]:
    """The head parameters and the camera in the output of `E_flame`."""
    shape, _, expression, pose, cam, _ = code.split(CODE_SIZES, dim=-1)
    params = flame_params(
        identity=shape, expression=expression, root_rotvec=pose[:, :3], jaw_rotvec=pose[:, 3:]
    )
    return params, camera_from_code(cam)
