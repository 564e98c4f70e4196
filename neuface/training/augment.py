"""Crop jitter that moves pictures and what is known about them alike, and changes of exposure."""

from __future__ import annotations

from dataclasses import dataclass, replace

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from neuface.head.model import HeadModel
from neuface.structs import HEAD_TO_IMAGE_SIGNS, Prediction, TensorStruct, WeakPerspective

TURN_RAD = 0.15
SHIFT = 0.06
SMALLEST, LARGEST = 0.9, 1.12
BLACK_BORDER_SHARE = 0.3


@dataclass(frozen=True, kw_only=True)
class CropMoves(TensorStruct):
    """One similarity of the crop plane per picture: turn, grow, then shift."""

    angle_rad: Float[Tensor, " n"]
    """From x towards y, which is clockwise as seen."""
    growth: Float[Tensor, " n"]
    shift: Float[Tensor, "n 2"]
    """Crop half-widths."""

    @property
    def turn(self) -> Float[Tensor, "n 2 2"]:
        """The rotation matrices."""
        cosine, sine = self.angle_rad.cos(), self.angle_rad.sin()
        return torch.stack((cosine, -sine, sine, cosine), dim=-1).unflatten(-1, (2, 2))

    def points(self, points_ndc: Float[Tensor, "n points 2"]) -> Float[Tensor, "n points 2"]:
        """Where points of the crop go."""
        return (points_ndc @ self.turn.mT) * self.growth[:, None, None] + self.shift[:, None]

    def pictures(
        self, pictures: Float[Tensor, "n 3 s s"], padding: str = "border"
    ) -> Float[Tensor, "n 3 s s"]:
        """The moved pictures, bilinear; `padding` as `torch.nn.functional.grid_sample` names it."""
        # grid_sample asks where each new pixel comes from.
        back = self.turn.mT / self.growth[:, None, None]
        source = torch.cat((back, -(back @ self.shift[..., None])), dim=-1)
        grid = torch.nn.functional.affine_grid(source, list(pictures.shape), align_corners=False)
        return torch.nn.functional.grid_sample(pictures, grid, padding_mode=padding, align_corners=False)

    def truth(self, truth: Prediction, head: HeadModel) -> Prediction:
        """The heads and cameras of the moved pictures.

        Turning an orthographic picture in its plane is turning the head about the line of sight. The head turns
        about its root joint, so it is that joint's image that the camera has to follow.
        """
        joint = (head.joints(truth.params)[..., 0, :] * head.template.new_tensor(HEAD_TO_IMAGE_SIGNS))[
            ..., :2
        ]
        pivot = truth.camera.scale[:, None] * joint + truth.camera.offset
        scale = truth.camera.scale * self.growth
        zero = torch.zeros_like(self.angle_rad)
        # The image's y points down and the head frame's up, so the same turn has the opposite sign.
        roll = torch.stack((zero, zero, -self.angle_rad), dim=-1)
        return Prediction(
            params=replace(
                truth.params, root_rotvec=roma.rotvec_composition((roll, truth.params.root_rotvec))
            ),
            camera=WeakPerspective(
                scale=scale, offset=self.points(pivot[:, None])[:, 0] - scale[:, None] * joint
            ),
        )


def random_moves(count: int, generator: torch.Generator) -> CropMoves:
    """Small turns, shifts and changes of size: new pictures at a fraction of a render's cost."""
    return CropMoves(
        angle_rad=TURN_RAD * torch.randn(count, generator=generator),
        growth=SMALLEST + (LARGEST - SMALLEST) * torch.rand(count, generator=generator),
        shift=SHIFT * (2 * torch.rand(count, 2, generator=generator) - 1),
    )


def random_padding(generator: torch.Generator) -> str:
    """Outside the video frame crops are black; a repeated border stands for more of the scene."""
    return "zeros" if float(torch.rand((), generator=generator)) < BLACK_BORDER_SHARE else "border"


def reexpose(
    pictures: Float[Tensor, "n 3 s s"], generator: torch.Generator, strength: float = 1.0
) -> Float[Tensor, "n 3 s s"]:
    """Pictures with another gain, colour cast and black level; values stay in 0..1."""
    count = len(pictures)
    gain = 1 + strength * 0.15 * torch.randn(count, 1, 1, 1, generator=generator)
    cast = 1 + strength * 0.06 * torch.randn(count, 3, 1, 1, generator=generator)
    lift = strength * 0.08 * torch.randn(count, 1, 1, 1, generator=generator)
    return (pictures * (gain * cast) + lift).clamp(0, 1)
