"""How the unposed landmarks of a clip change with the codes, in which they are linear."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuface.head.model import HeadModel, contour_row
from neuface.structs import HeadParams

__all__ = ["LandmarkDerivatives", "landmark_derivatives", "moves_jaw"]

JAW_STEP_RAD = 1e-3
"""Half the step of the central difference by the jaw's rotation, radians; landmarks are linear in the other codes."""
IMAGES_AT_ONCE = 16
"""Bounds the images whose derivatives are computed at once, and with it the memory."""


@dataclass(frozen=True, kw_only=True)
class LandmarkDerivatives:
    """Derivatives of the unposed landmarks, metres per unit of a code.

    Images with the same rotations of the joints behind the root and the same positions of sliding points have the
    same derivatives, which are held once: they are of one kind.
    """

    kind: Int[Tensor, "views time"]
    """The kind of every image."""
    by_identity: Float[Tensor, "kinds points 3 identity"]
    by_expression: Float[Tensor, "kinds points 3 expression"]
    """Where the encoder moves the jaw, its rotation vector follows the expression code, metres per radian."""


def moves_jaw(params: HeadParams) -> bool:
    """Whether the encoder that predicted these heads ever moves the jaw."""
    return bool((params.jaw_rotvec != 0).any())


@torch.no_grad()
def landmark_derivatives(head: HeadModel, params: HeadParams, scheme: str) -> LandmarkDerivatives:
    """The derivatives for the heads of a clip, batch axes `views time`.

    Sliding points stay at the positions on the head that they have in this pose.
    """
    flat = params.flatten_batch(2)
    first, kind = _kinds(head, flat, scheme)
    derivatives = torch.cat(
        [head.landmark_derivatives(flat[some], scheme) for some in first.split(IMAGES_AT_ONCE)]
    )
    sizes = (params.identity.shape[-1], params.expression.shape[-1])
    by_identity = derivatives[..., : sizes[0]]
    by_expression = derivatives[..., head.num_identity : head.num_identity + sizes[1]]
    if moves_jaw(params):
        by_jaw = torch.cat([_by_jaw(head, flat[some], scheme) for some in first.split(IMAGES_AT_ONCE)])
        by_expression = torch.cat((by_expression, by_jaw), -1)
    return LandmarkDerivatives(
        kind=kind.view(params.root_rotvec.shape[:2]), by_identity=by_identity, by_expression=by_expression
    )


def _by_jaw(head: HeadModel, params: HeadParams, scheme: str) -> Float[Tensor, "images points 3 3"]:
    columns = []
    for axis in JAW_STEP_RAD * torch.eye(3).to(params.jaw_rotvec):
        later, earlier = (
            head.landmarks(
                replace(params.unposed(), jaw_rotvec=params.jaw_rotvec + step), scheme, facing=params
            )
            for step in (axis, -axis)
        )
        columns.append((later - earlier) / (2 * JAW_STEP_RAD))
    return torch.stack(columns, -1)


def _kinds(
    head: HeadModel, params: HeadParams, scheme: str
) -> tuple[Int[Tensor, " kinds"], Int[Tensor, " images"]]:
    """The first image of each kind, and the kind of every image."""
    embedding = head.embeddings[scheme]
    slides = embedding.contour_yaw_rad.numel() > 0
    row = contour_row(embedding, params) if slides else torch.zeros_like(params.root_rotvec[:, 0])
    joints = torch.cat((params.neck_rotvec, params.jaw_rotvec, params.eyes_rotvec.flatten(1)), -1)
    kind = torch.cat((row[:, None].to(joints), joints), -1).unique(dim=0, return_inverse=True)[1]
    count = int(kind.max()) + 1
    image = torch.arange(len(kind), device=kind.device)
    first = torch.full((count,), len(kind), device=kind.device).scatter_reduce(0, kind, image, "amin")
    return first, kind
