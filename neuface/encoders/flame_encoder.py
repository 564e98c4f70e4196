"""The common parts of DECA, EMOCA and SMIRK: the crop, the layout of the codes and the camera."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.encoders.predictor import Predictor
from neuface.errors import InputError
from neuface.structs import Camera, HeadParams, WeakPerspective

CROP_PX = 224
# Half a crop pixel in NDC. In these models the centre of crop pixel 0 is at NDC -1; here -1 is its left (upper) edge.
NDC_PER_HALF_PIXEL = 1.0 / CROP_PX


@dataclass(frozen=True, kw_only=True)
class CodeLayout:
    """The sizes of a model's codes, and the head model that they belong to."""

    head_version: str
    """The `name` of the head model the network was trained with, such as `flame2020`."""
    identity: int
    expression: int
    """Coefficients of the expression basis, without eyelids."""
    eyelids: int = 0
    """Trailing coefficients of the expression code that close the eyelids, the left one first."""


class FlameEncoder(Predictor):
    """A `Predictor` for FLAME whose network takes RGB crops of 224 px, 0 to 1."""

    input_px: int = CROP_PX
    layout: CodeLayout

    def prepare(self, crops: Float[Tensor, "n 3 h w"]) -> Tensor:
        """The crops unchanged: half precision would change the codes by up to 3e-4, rounding to 8 bits by 4e-3.

        Raises InputError for another size than 224 px.
        """
        self.check_size(crops)
        return crops

    def check_size(self, crops: Float[Tensor, "n 3 h w"]) -> None:
        """Raises InputError unless the crops are of the size that the network was trained with."""
        if crops.shape[1:] != (3, CROP_PX, CROP_PX):
            raise InputError(
                f"{type(self).__name__} takes (n, 3, {CROP_PX}, {CROP_PX}) crops, got {tuple(crops.shape)}"
            )

    def as_weights(self, inputs: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """Prepared crops in the dtype of the network's weights."""
        return inputs.to(next(self.parameters()).dtype)


def camera_from_code(cam: Float[Tensor, "*batch 3"]) -> WeakPerspective:
    """The camera of a code `s, tx, ty`.

    Convention:
        Such a code projects a point of the head frame to `s (x + tx), -s (y + ty)`, and the crop pixel is
        `(ndc / 2 + 1/2) 224` with pixel centres at integers. Since crop NDC here is measured from the crop's edge,
        both coordinates are larger by half a pixel, 1/224.

    Example:
        >>> camera = camera_from_code(torch.tensor([8.0, 0.0, 0.01]))
        >>> camera.magnification, camera.position - 1 / 224
        (tensor(8.), tensor([ 0.0000, -0.0800]))
    """
    scale = cam[..., 0]
    shift = cam[..., 1:] * cam.new_tensor((1.0, -1.0))
    return WeakPerspective(scale=scale, offset=scale[..., None] * shift + NDC_PER_HALF_PIXEL)


def code_from_camera(camera: Camera) -> Float[Tensor, "*batch 3"]:
    """The code `s, tx, ty` of a camera: the inverse of `camera_from_code`."""
    shift = (camera.position - NDC_PER_HALF_PIXEL) / camera.magnification[..., None]
    return torch.cat((camera.magnification[..., None], shift * shift.new_tensor((1.0, -1.0))), -1)


def flame_params(
    *,
    identity: Float[Tensor, "*batch identity"],
    expression: Float[Tensor, "*batch expression"],
    root_rotvec: Float[Tensor, "*batch 3"],
    jaw_rotvec: Float[Tensor, "*batch 3"],
) -> HeadParams:
    """Head parameters with neck and eyes at rest, since none of these models predicts them."""
    still = torch.zeros_like(root_rotvec)
    return HeadParams(
        identity=identity,
        expression=expression,
        root_rotvec=root_rotvec,
        neck_rotvec=still,
        jaw_rotvec=jaw_rotvec,
        eyes_rotvec=torch.stack((still, still), -2),
    )
