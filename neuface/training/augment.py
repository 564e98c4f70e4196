"""Data augmentation: random similarities of the crop, applied to images and their truth, and changes of exposure."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.geometry.rotations import compose_rotvecs
from neuface.head.model import HeadModel
from neuface.structs import HEAD_TO_IMAGE_SIGNS, Prediction, TensorStruct, WeakPerspective

# Standard deviation of the in-plane rotation, radians.
ROTATION_RAD = 0.15
# Largest translation along each axis, crop half-widths.
SHIFT = 0.06
# Bounds of the scale.
SMALLEST, LARGEST = 0.9, 1.12
# Share of the batches whose images continue in black outside of the crop, and not with the border's pixels.
BLACK_BORDER_SHARE = 0.3
# Standard deviations of a full-strength change of exposure: gain, gain of each channel, and black level.
GAIN_DEVIATION, CAST_DEVIATION, LIFT_DEVIATION = 0.15, 0.06, 0.08


@dataclass(frozen=True, kw_only=True)
class CropJitter(TensorStruct):
    """One similarity of the crop plane per image: rotation, then scale, then translation."""

    angle_rad: Float[Tensor, " n"]
    """From x towards y, which is clockwise in the image."""
    scale: Float[Tensor, " n"]
    shift: Float[Tensor, "n 2"]
    """Crop half-widths."""

    @property
    def rotation(self) -> Float[Tensor, "n 2 2"]:
        """The rotation matrices."""
        cosine, sine = self.angle_rad.cos(), self.angle_rad.sin()
        return torch.stack((cosine, -sine, sine, cosine), dim=-1).unflatten(-1, (2, 2))

    def points(self, points_ndc: Float[Tensor, "n points 2"]) -> Float[Tensor, "n points 2"]:
        """The transformed points, crop NDC."""
        return (points_ndc @ self.rotation.mT) * self.scale[:, None, None] + self.shift[:, None]

    def images(self, images: Float[Tensor, "n 3 s s"], padding: str = "border") -> Float[Tensor, "n 3 s s"]:
        """The transformed images, bilinear; `padding` is that of `torch.nn.functional.grid_sample`."""
        # grid_sample takes the source position of every new pixel, hence the inverse similarity.
        inverse = self.rotation.mT / self.scale[:, None, None]
        source = torch.cat((inverse, -(inverse @ self.shift[..., None])), dim=-1)
        grid = torch.nn.functional.affine_grid(source, list(images.shape), align_corners=False)
        return torch.nn.functional.grid_sample(images, grid, padding_mode=padding, align_corners=False)

    def truth(self, truth: Prediction, head: HeadModel) -> Prediction:
        """The heads and cameras of the transformed images.

        An in-plane rotation of an orthographic image is a rotation of the head about the line of sight. The head
        rotates about its root joint, so that the camera's offset follows the image of that joint.
        """
        joint = (head.joints(truth.params)[..., 0, :] * head.template.new_tensor(HEAD_TO_IMAGE_SIGNS))[
            ..., :2
        ]
        pivot = truth.camera.magnification[:, None] * joint + truth.camera.position
        scale = truth.camera.magnification * self.scale
        zero = torch.zeros_like(self.angle_rad)
        # The image's y axis points down and the head frame's up, which reverses the sign of the rotation.
        roll = torch.stack((zero, zero, -self.angle_rad), dim=-1)
        return Prediction(
            params=replace(truth.params, root_rotvec=compose_rotvecs(roll, truth.params.root_rotvec)),
            camera=WeakPerspective(
                scale=scale, offset=self.points(pivot[:, None])[:, 0] - scale[:, None] * joint
            ),
        )


def random_jitter(count: int, generator: torch.Generator) -> CropJitter:
    """Random small rotations, scales and translations."""
    return CropJitter(
        angle_rad=ROTATION_RAD * torch.randn(count, generator=generator),
        scale=SMALLEST + (LARGEST - SMALLEST) * torch.rand(count, generator=generator),
        shift=SHIFT * (2 * torch.rand(count, 2, generator=generator) - 1),
    )


def random_padding(generator: torch.Generator) -> str:
    """A random padding: black, as outside of the video frame, or a repeated border, as if the scene went on."""
    return "zeros" if float(torch.rand((), generator=generator)) < BLACK_BORDER_SHARE else "border"


def reexpose(
    images: Float[Tensor, "n 3 s s"], generator: torch.Generator, strength: float = 1.0
) -> Float[Tensor, "n 3 s s"]:
    """Images with a random gain, colour cast and black level; values stay in 0..1."""
    count = len(images)
    gain = 1 + strength * GAIN_DEVIATION * torch.randn(count, 1, 1, 1, generator=generator)
    cast = 1 + strength * CAST_DEVIATION * torch.randn(count, 3, 1, 1, generator=generator)
    lift = strength * LIFT_DEVIATION * torch.randn(count, 1, 1, 1, generator=generator)
    return (images * (gain * cast) + lift).clamp(0, 1)
