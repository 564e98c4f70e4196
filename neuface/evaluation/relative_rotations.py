"""How cameras are turned to each other, estimated from the head that they all see: no calibration is needed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from neuface.geometry.head_perspective import Perspective
from neuface.geometry.rotations import nearest_rotation, rotmat_to_rotvec, rotvec_to_rotmat
from neuface.structs import HEAD_TO_IMAGE_SIGNS, Prediction

# Steps of the robust mean of rotations, and the angle below which frames no longer gain weight, radians.
MEAN_STEPS, LEAST_ANGLE_RAD = 20, 1e-3


@dataclass(frozen=True, kw_only=True)
class RelativeRotation:
    """How one camera is turned to another: `x_second = R x_first`, axes as in OpenCV."""

    first: str
    second: str
    """Names of the views."""
    rotvec: tuple[float, float, float]
    """R, radians."""
    angle_deg: float
    """The angle of R."""
    spread_deg: float
    """Median angle between R and what single frames say."""
    frames: int
    """In how many frames both cameras saw the face."""


def relative_rotations(
    prediction: Prediction, valid: Bool[Tensor, "views time"], names: tuple[str, ...]
) -> tuple[RelativeRotation, ...]:
    """One rotation for each pair of views that saw the face together, the robust mean over their frames.

    Perspective cameras have axes of their own. Of a weak-perspective camera only the line of sight to the head is
    known, and takes the place of its optical axis: where the head is far from the middle of the frame, the true axes
    are turned against it by the angle under which the head is seen.

    Args:
        prediction: batch axes `views time`.
        valid: images that saw the face.
        names: of the views.
    """
    to_camera = _head_to_camera(prediction).double()
    found = []
    for first, second in combinations(range(len(names)), 2):
        both = valid[first] & valid[second]
        if not bool(both.any()):
            continue
        of_frames = to_camera[second, both] @ to_camera[first, both].mT
        mean = robust_mean_rotation(of_frames)
        rotvec = rotmat_to_rotvec(mean)
        found.append(
            RelativeRotation(
                first=names[first],
                second=names[second],
                rotvec=tuple(rotvec.tolist()),
                angle_deg=float(rotvec.norm().rad2deg()),
                spread_deg=float(_angles(of_frames, mean).median().rad2deg()),
                frames=int(both.sum()),
            )
        )
    return tuple(found)


def robust_mean_rotation(rotations: Float[Tensor, "n 3 3"]) -> Float[Tensor, "3 3"]:
    """The rotation with the least sum of distances to some rotations, of which some may be far off.

    Weiszfeld's steps for the chordal L1 mean (Hartley et al., "Rotation averaging", 2013, Sec. 6): weighted means,
    projected to the nearest rotation, with the reciprocal distance as weight.
    """
    mean = nearest_rotation(rotations.sum(0))
    for _ in range(MEAN_STEPS):
        weight = 1 / _angles(rotations, mean).clamp(min=LEAST_ANGLE_RAD)
        mean = nearest_rotation((weight[:, None, None] * rotations).sum(0))
    return mean


def _head_to_camera(prediction: Prediction) -> Float[Tensor, "views time 3 3"]:
    """The unposed head's axes to those of the camera."""
    root, camera = rotvec_to_rotmat(prediction.params.root_rotvec), prediction.camera
    if isinstance(camera, Perspective):
        return camera.rotation @ root
    return torch.diag(root.new_tensor(HEAD_TO_IMAGE_SIGNS)) @ root


def _angles(rotations: Float[Tensor, "n 3 3"], mean: Float[Tensor, "3 3"]) -> Float[Tensor, " n"]:
    """Angles between rotations and their mean, radians."""
    # |A - B|_F = 2 sqrt(2) sin(angle / 2).
    chord = torch.linalg.matrix_norm(rotations - mean)
    return 2 * (chord / 8**0.5).clamp(max=1.0).asin()
