"""What the open encoder learns from pictures with known truth: crop jitter that keeps it, and the loss."""

from __future__ import annotations

from dataclasses import replace

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from neuface.encoders.open_encoder import OpenEncoder, anchor_centre
from neuface.geometry.rotations import rotation_angle_rad
from neuface.head.model import HeadModel
from neuface.structs import HEAD_TO_NDC_SIGNS, HeadParams, Prediction, WeakPerspective

DENSE_SCHEME = "mediapipe478"
EXTRA_VERTICES = 200
VERTEX_SEED = 7

JITTER_TURN_RAD = 0.15
JITTER_SHIFT = 0.06
JITTER_SMALLEST, JITTER_LARGEST = 0.9, 1.12

# Balanced so that every part is of order one half late in training. Identity and expression are compared by
# squares: most units are at rest in most faces, and their median, zero, is where a sigmoid stops learning.
LOSS_WEIGHTS = {
    "image": 10.0,
    "shape_mm": 1.0,
    "turn_rad": 1.0,
    "centre": 2.0,
    "log_scale": 1.0,
    "identity_squared": 1.0,
    "expression_squared": 60.0,
}


class Supervision:
    """Compares predictions with the truth at the dense face landmarks and at vertices over the whole skin."""

    def __init__(self, head: HeadModel) -> None:
        self.head = head
        skin = head.regions["skin"].nonzero()[:, 0]
        order = torch.randperm(len(skin), generator=torch.Generator().manual_seed(VERTEX_SEED))
        chosen = skin[order[:EXTRA_VERTICES]]
        self.sparse = replace(
            head,
            template=head.template[chosen],
            identity_basis=head.identity_basis[chosen],
            expression_basis=head.expression_basis[chosen],
            skinning_weights=head.skinning_weights[chosen],
            regions={},
            embeddings={},
        )

    def points(self, params: HeadParams) -> Float[Tensor, "n points 3"]:
        """The compared points of unposed heads, metres."""
        unposed = params.unposed()
        return torch.cat((self.head.landmarks(unposed, DENSE_SCHEME), self.sparse.vertices(unposed)), dim=-2)

    def parts(
        self, encoder: OpenEncoder, prediction: Prediction, truth: Prediction
    ) -> dict[str, Float[Tensor, ""]]:
        """The parts of the loss by name, in the units of LOSS_WEIGHTS; image distances are in crop NDC."""
        points, true_points = self.points(prediction.params), self.points(truth.params)
        seen = prediction.camera.project(self._posed(points, prediction.params))
        truly_seen = truth.camera.project(self._posed(true_points, truth.params))
        centre, true_centre = (
            anchor_centre(item.camera, encoder.posed_anchor(item.params.identity, item.params.root_rotvec))
            for item in (prediction, truth)
        )
        turn = prediction.params.root_rotvec, truth.params.root_rotvec
        return {
            "image": (seen - truly_seen).abs().mean(),
            "shape_mm": 1000 * (points - true_points).abs().mean(),
            "turn_rad": rotation_angle_rad(*turn).mean(),
            "centre": (centre - true_centre).abs().mean(),
            "log_scale": (prediction.camera.scale / truth.camera.scale).log().abs().mean(),
            "identity_squared": (prediction.params.identity - truth.params.identity).square().mean(),
            "expression_squared": (prediction.params.expression - truth.params.expression).square().mean(),
        }

    def _posed(self, points: Tensor, params: HeadParams) -> Tensor:
        joint = self.head.joints(params)[..., :1, :]
        return (points - joint) @ roma.rotvec_to_rotmat(params.root_rotvec).mT + joint


def total_loss(parts: dict[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
    """The weighted sum of `Supervision.parts`."""
    return torch.stack([LOSS_WEIGHTS[name] * part for name, part in parts.items()]).sum()


def jitter_crops(
    pictures: Float[Tensor, "n 3 s s"], truth: Prediction, head: HeadModel, generator: torch.Generator
) -> tuple[Float[Tensor, "n 3 s s"], Prediction]:
    """Turn, shift and scale the crops and their truth alike: new pictures at a fraction of a render's cost.

    Turning an orthographic picture in its plane is turning the head about the line of sight.
    """
    count = len(pictures)
    angle = JITTER_TURN_RAD * torch.randn(count, generator=generator)
    shift = JITTER_SHIFT * (2 * torch.rand(count, 2, generator=generator) - 1)
    grow = JITTER_SMALLEST + (JITTER_LARGEST - JITTER_SMALLEST) * torch.rand(count, generator=generator)
    cosine, sine = angle.cos(), angle.sin()
    turn = torch.stack((cosine, -sine, sine, cosine), dim=-1).unflatten(-1, (2, 2))
    # grid_sample asks where each new pixel comes from.
    back = turn.mT / grow[:, None, None]
    source = torch.cat((back, -(back @ shift[..., None])), dim=-1)
    grid = torch.nn.functional.affine_grid(source, list(pictures.shape), align_corners=False)
    # Outside the video frame crops are black; a repeated border stands for more of the scene.
    padding = "zeros" if float(torch.rand((), generator=generator)) < 0.3 else "border"
    moved = torch.nn.functional.grid_sample(pictures, grid, padding_mode=padding, align_corners=False)
    return moved, _moved_truth(truth, head, turn, grow, shift, angle)


def _moved_truth(
    truth: Prediction, head: HeadModel, turn: Tensor, grow: Tensor, shift: Tensor, angle: Tensor
) -> Prediction:
    """The head turns about its root joint, so it is that joint's image that the camera has to follow."""
    joint = (head.joints(truth.params)[..., 0, :] * head.template.new_tensor(HEAD_TO_NDC_SIGNS))[..., :2]
    pivot = truth.camera.scale[:, None] * joint + truth.camera.offset
    pivot = (turn @ pivot[..., None])[..., 0] * grow[:, None] + shift
    scale = truth.camera.scale * grow
    # The image's y points down and the head frame's up, so the same turn has the opposite sign.
    roll = torch.stack((torch.zeros_like(angle), torch.zeros_like(angle), -angle), dim=-1)
    turned = roma.rotvec_composition((roll, truth.params.root_rotvec))
    return Prediction(
        params=replace(truth.params, root_rotvec=turned),
        camera=WeakPerspective(scale=scale, offset=pivot - scale[:, None] * joint),
    )
