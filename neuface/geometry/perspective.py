"""A calibrated perspective camera with lens distortion."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.structs import TensorStruct

# Upper bound of the steps of Newton's method. It converges quadratically: usual lenses take four or five steps.
MOST_NEWTON_STEPS = 20
# Largest residual of a converged point, in units of the dtype's rounding error.
CONVERGED_ROUNDINGS = 1e3

FOCAL_BOUNDS = (0.1, 100.0)
"""Bounds of a focal length that is believed, in longer sides of the frame: views of 157 and of 0.6 degrees."""


@dataclass(frozen=True, kw_only=True)
class PerspectiveCamera(TensorStruct):
    """Pinhole with the lens model of Brown and Conrady (five coefficients, as in OpenCV).

    Convention:
        Camera axes: x right, y down, z along the line of sight; metres. Pixel centres at integers.
        With K of focal length 1000 and principal point (640, 360), no distortion and the camera at the world's
        origin, the point (0.1, -0.2, 2) projects to the pixel (690, 260).

    Example:
        >>> camera = PerspectiveCamera(
        ...     K=torch.tensor([[1000.0, 0.0, 640.0], [0.0, 1000.0, 360.0], [0.0, 0.0, 1.0]]),
        ...     distortion=torch.zeros(5), rotation=torch.eye(3), translation=torch.zeros(3),
        ... )
        >>> camera.project(torch.tensor([[0.1, -0.2, 2.0]]))
        tensor([[690., 260.]])
    """

    K: Float[Tensor, "*batch 3 3"]
    """Focal lengths and principal point in pixels: rows (fx, skew, cx), (0, fy, cy), (0, 0, 1)."""
    distortion: Float[Tensor, "*batch 5"]
    """k1, k2, p1, p2, k3: radial, radial, tangential, tangential, radial."""
    rotation: Float[Tensor, "*batch 3 3"]
    """World to camera: `x_camera = rotation @ x_world + translation`."""
    translation: Float[Tensor, "*batch 3"]
    """Metres."""

    @property
    def centre(self) -> Float[Tensor, "*batch 3"]:
        """The centre of projection in world axes, metres."""
        return -(self.rotation.mT @ self.translation[..., None])[..., 0]

    def to_camera(self, points: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points 3"]:
        """Points of the world (metres) in camera axes, metres."""
        return points @ self.rotation.mT + self.translation[..., None, :]

    def project(self, points: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points 2"]:
        """Pixels of points of the world (metres); NaN for a point that is not in front of the camera.

        Points behind the camera have the gradient zero, so that a loss can mask them.
        """
        return self._to_px(_distorted(_normalised(self.to_camera(points)), self.distortion))

    def projection_jacobian(
        self, points: Float[Tensor, "*batch points 3"]
    ) -> Float[Tensor, "*batch points 2 3"]:
        """Derivative of the pixel by the point of the world, pixels per metre; NaN where `project` is NaN."""
        in_camera = self.to_camera(points)
        plane = _normalised(in_camera)
        # d(x / z, y / z) = (dx - x/z dz, dy - y/z dz) / z.
        pinhole = torch.cat((torch.eye(2).to(plane).expand(*plane.shape, 2), -plane[..., None]), -1)
        pinhole = pinhole / in_camera[..., 2, None, None]
        lens = _distortion_jacobian(plane, self.distortion)
        return self.K[..., None, :2, :2] @ lens @ pinhole @ self.rotation[..., None, :, :]

    def undistort(self, points_px: Float[Tensor, "*batch points 2"]) -> Float[Tensor, "*batch points 2"]:
        """The ray of each pixel as (x / z, y / z) in camera axes, without lens distortion (Newton's method).

        The ray is NaN where the lens model has no inverse: beyond the radius at which it folds the image back. First
        derivatives are exact, by the implicit function theorem; second derivatives are not.
        """
        distorted = self._from_px(points_px)
        with torch.no_grad():
            plane = distorted.detach().clone()
            for _ in range(MOST_NEWTON_STEPS):
                step = self._newton_step(plane, distorted)
                plane = plane - step
                # A step is NaN for a point that was not observed; it does not prolong the iteration.
                if not bool((step.abs() > torch.finfo(distorted.dtype).eps).any()):
                    break
            residual = (_distorted(plane, self.distortion) - distorted).abs().amax(-1)
            allowed = CONVERGED_ROUNDINGS * torch.finfo(distorted.dtype).eps * (1 + distorted.abs().amax(-1))
            converged = (residual <= allowed) & self._is_unfolded(plane)
        # One more step, which is zero at the solution, carries the gradient.
        undistorted = plane - self._newton_step(plane, distorted)
        return torch.where(converged[..., None], undistorted, torch.nan)

    def _newton_step(self, plane: Tensor, distorted: Tensor) -> Tensor:
        with torch.no_grad():
            jacobian = _distortion_jacobian(plane, self.distortion)
            (a, b), (c, d) = (row.unbind(-1) for row in jacobian.unbind(-2))
            inverse = torch.stack((torch.stack((d, -b), -1), torch.stack((-c, a), -1)), -2)
            inverse = inverse / (a * d - b * c)[..., None, None]
        return (inverse @ (_distorted(plane, self.distortion) - distorted)[..., None])[..., 0]

    def _is_unfolded(self, plane: Tensor) -> Tensor:
        """Whether a point lies on the lens model's first branch, where radius and area still grow."""
        jacobian = _distortion_jacobian(plane, self.distortion)
        return (torch.linalg.det(jacobian) > 0) & (_radial(plane, self.distortion)[0] > 0)

    def _to_px(self, plane: Tensor) -> Tensor:
        return plane @ self.K[..., :2, :2].mT + self.K[..., None, :2, 2]

    def _from_px(self, points_px: Tensor) -> Tensor:
        centred = points_px - self.K[..., None, :2, 2]
        y = centred[..., 1] / self.K[..., 1, 1, None]
        x = (centred[..., 0] - self.K[..., 0, 1, None] * y) / self.K[..., 0, 0, None]
        return torch.stack((x, y), -1)


def _normalised(in_camera: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points 2"]:
    """Points in camera axes as (x / z, y / z); NaN behind the camera."""
    depth = in_camera[..., 2:]
    in_front = depth > 0
    # A divisor of one behind the camera keeps infinities out of the gradient.
    return torch.where(in_front, in_camera[..., :2] / torch.where(in_front, depth, 1.0), torch.nan)


def _radial(plane: Tensor, distortion: Tensor) -> tuple[Tensor, Tensor]:
    """The factor of radial distortion and its derivative by the squared radius."""
    k1, k2, _, _, k3 = distortion[..., None, :].unbind(-1)
    squared = plane.square().sum(-1)
    factor = 1 + squared * (k1 + squared * (k2 + squared * k3))
    return factor, k1 + squared * (2 * k2 + squared * 3 * k3)


def _distorted(
    plane: Float[Tensor, "*batch points 2"], distortion: Float[Tensor, "*batch 5"]
) -> Float[Tensor, "*batch points 2"]:
    x, y = plane.unbind(-1)
    p1, p2 = distortion[..., None, 2], distortion[..., None, 3]
    factor, _ = _radial(plane, distortion)
    return torch.stack(
        (
            x * factor + 2 * p1 * x * y + p2 * (3 * x * x + y * y),
            y * factor + p1 * (x * x + 3 * y * y) + 2 * p2 * x * y,
        ),
        -1,
    )


def _distortion_jacobian(
    plane: Float[Tensor, "*batch points 2"], distortion: Float[Tensor, "*batch 5"]
) -> Float[Tensor, "*batch points 2 2"]:
    x, y = plane.unbind(-1)
    p1, p2 = distortion[..., None, 2], distortion[..., None, 3]
    factor, slope = _radial(plane, distortion)
    along_x = factor + 2 * slope * x * x + 2 * p1 * y + 6 * p2 * x
    along_y = factor + 2 * slope * y * y + 6 * p1 * y + 2 * p2 * x
    mixed = 2 * slope * x * y + 2 * p1 * x + 2 * p2 * y
    return torch.stack((torch.stack((along_x, mixed), -1), torch.stack((mixed, along_y), -1)), -2)
