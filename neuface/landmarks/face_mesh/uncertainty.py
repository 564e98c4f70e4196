"""How far landmarks may be from the truth: what a second look, at another crop, says of the first.

The network is asked again with a crop that is shifted, larger and turned. Where it is sure, both answers agree. The
difference, as a share of the crop's side, predicts the error::

    log sigma = BIAS + OF_POINT log(d_point + FLOOR) + OF_FACE log(d_face + FLOOR) + OF_SIZE log(side / 150 px)

d_point is the root mean square difference around a point, d_face that of the whole face. The coefficients are the
most probable ones (Student's t, four degrees of freedom) for 127 pictures of 16 rendered heads (33 to 222 px).
For 122 pictures of 16 others, sorted by sigma into six classes, the median of error / sigma is 1.08, 1.00, 0.92,
0.78, 0.68 and 1.22 (0.83 if errors were normal); the logarithms of error and sigma have a correlation of 0.64.
`python -m studies.landmark_uncertainty` draws other faces (docs/face_networks.md).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from neuface.devices import map_pieces
from neuface.landmarks.face_mesh.faces import Faces, regions_around
from neuface.landmarks.face_mesh.looks import landmarks_in
from neuface.landmarks.face_mesh.networks import FaceNetworks
from neuface.landmarks.face_mesh.regions import Regions

# How the second crop differs from the first: in size, in turn (radians) and in place (share of its side).
JITTER_SIZE, JITTER_TURN, JITTER_SHIFT = 1.1, 0.1, 0.03
# Distance over which differences are averaged, as a share of the side: one difference is a poor standard deviation.
NEIGHBOURHOOD = 0.03
# Coefficients of the formula above.
BIAS, OF_POINT, OF_FACE, OF_SIZE = 0.472, 0.488, 0.544, -0.271
# Bounds both differences from below, as a share of the side.
FLOOR = 1e-3
USUAL_SIDE_PX = 150.0
# Standard deviation, as a share of the side, at which a point's confidence is one half; most have a third of it.
HALF_CONFIDENCE = 0.03
# Number of faces whose points are compared with each other at once, by one thread.
FACES_AT_ONCE = 8
# Bounds the confidence from below, because 0 means that a point is missing.
LEAST_CONFIDENCE = 0.01


def differences(
    networks: FaceNetworks, frames: UInt8[Tensor, "n h w 3"], faces: Faces
) -> Float[Tensor, "faces 478"]:
    """How far a second look puts each point from the first: root mean square of x and y, frame pixels."""
    around = regions_around(faces.points_px, faces.frame)
    jittered = replace(
        around,
        centre=around.centre + around.side[:, None] * JITTER_SHIFT,
        side=around.side * JITTER_SIZE,
        angle=around.angle + JITTER_TURN,
    )
    again = landmarks_in(networks, frames, jittered).points_px[..., :2]
    return ((again - faces.points_px) ** 2).mean(-1).sqrt()


def estimated_px(
    points_px: Float[Tensor, "faces 478 2"], differences_px: Float[Tensor, "faces 478"]
) -> Float[Tensor, "faces 478"]:
    """Standard deviation of the points per axis, frame pixels; the module has the formula."""

    def estimated(some: tuple[Tensor, Tensor]) -> Tensor:
        point, face, side = log_features(*some)
        log_sigma = BIAS + OF_POINT * point + OF_FACE * face + OF_SIZE * torch.log(side / USUAL_SIDE_PX)
        return torch.exp(log_sigma) * side

    pieces = zip(points_px.split(FACES_AT_ONCE), differences_px.split(FACES_AT_ONCE), strict=True)
    return torch.cat(map_pieces(estimated, list(pieces)))


def log_features(
    points_px: Float[Tensor, "faces 478 2"], differences_px: Float[Tensor, "faces 478"]
) -> tuple[Float[Tensor, "faces 478"], Float[Tensor, "faces 1"], Float[Tensor, "faces 1"]]:
    """The logarithms of d_point and d_face, and the side of the region in pixels."""
    side = _sides(points_px)
    squared = (differences_px / side) ** 2
    # In place, because this is a matrix of all pairs of points for every face.
    weight = (
        torch.cdist(points_px, points_px).div_(side[..., None] * NEIGHBOURHOOD).square_().mul_(-0.5).exp_()
    )
    local = (weight @ squared[..., None])[..., 0] / weight.sum(-1)
    return (
        torch.log(local.sqrt() + FLOOR),
        torch.log(squared.mean(-1, keepdim=True).sqrt() + FLOOR),
        side,
    )


def confidence_of(
    uncertainty_px: Float[Tensor, "faces 478"], points_px: Float[Tensor, "faces 478 2"]
) -> Float[Tensor, "faces 478"]:
    """What the fit takes for confidence, 0..1: one half at HALF_CONFIDENCE, and falling with the variance."""
    relative = uncertainty_px / (_sides(points_px) * HALF_CONFIDENCE)
    return (1 / (1 + relative**2)).clamp(min=LEAST_CONFIDENCE)


def _sides(points_px: Float[Tensor, "faces 478 2"]) -> Float[Tensor, "faces 1"]:
    """The sides of the regions around faces, pixels."""
    regions: Regions = regions_around(points_px, torch.zeros(len(points_px), dtype=torch.int64))
    return regions.side[:, None].float()
