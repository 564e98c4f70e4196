"""`Perspective`: how a pinhole camera near a head sees it, in the terms of the weak-perspective camera."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.geometry.line_of_sight import line_of_sight_rotation
from neuface.structs import HEAD_TO_IMAGE_SIGNS, TensorStruct, WeakPerspective

__all__ = ["Perspective"]

LEAST_DEPTH_SHARE = 0.1
"""Lower bound of a point's depth, as a share of that of the head frame's origin: it keeps positions finite that a bad
prediction puts beside or behind the camera."""

ORIGIN_STEPS = 4
"""Fixed-point steps that find the origin from a point of the face; each divides the error by the camera's distance
over that between the two, 4 and more."""


@dataclass(frozen=True, kw_only=True)
class Perspective(TensorStruct):
    """A pinhole camera without lens distortion, described by the image of the head frame's origin.

    The head's rotation is what is seen along the line of sight to the origin, as before a weak-perspective camera:
    an encoder sees a crop, whose middle lies anywhere in the frame. In camera axes (x right, y down, z along the
    optical axis; metres) a point of the head frame lies at `R @ signs @ point + t`, with `signs` the
    HEAD_TO_IMAGE_SIGNS, `R` the least rotation that takes the optical axis to the line of sight, and
    `t = depth * ((offset - principal) / focal, 1)`, `depth = focal / scale`. With a growing focal length the camera
    becomes the weak-perspective one of the same scale and offset.

    Example:
        >>> camera = Perspective(
        ...     scale=torch.tensor(1000.0), offset=torch.tensor([320.0, 240.0]),
        ...     focal=torch.tensor(500.0), principal=torch.tensor([320.0, 240.0]),
        ... )
        >>> camera.project(torch.tensor([[0.1, 0.0, 0.0], [0.1, 0.0, 0.1]]))  # half a metre away, and 10 cm nearer
        tensor([[420., 240.],
                [445., 240.]])
    """

    scale: Float[Tensor, "*batch"]
    """Image units per metre at the depth of the head frame's origin, positive."""
    offset: Float[Tensor, "*batch 2"]
    """The image position of the head frame's origin."""
    focal: Float[Tensor, "*batch"]
    """Focal length, image units, positive."""
    principal: Float[Tensor, "*batch 2"]
    """The image position of the optical axis."""

    @classmethod
    def seeing_alike(
        cls,
        weak: WeakPerspective,
        anchor: Float[Tensor, "*batch 3"],
        focal: Float[Tensor, "*batch"],
        principal: Float[Tensor, "*batch 2"],
    ) -> Perspective:
        """The camera of this focal length that sees one point of the head as the weak-perspective camera does.

        The anchor (metres, head frame, posed) gets the same image position and magnification. It is usually a point
        of the face: to a face, weak perspective fits the magnification at the face and not at the head's origin.
        """
        position = weak.project(anchor[..., None, :])[..., 0, :]
        depth = focal / weak.scale
        anchor_in_camera = depth[..., None] * _ray(position, focal, principal)
        flipped = (anchor * anchor.new_tensor(HEAD_TO_IMAGE_SIGNS))[..., None]
        # The line of sight leads to the origin, which is sought: it follows from that of the step before.
        origin = anchor_in_camera
        for _ in range(ORIGIN_STEPS):
            origin = anchor_in_camera - (line_of_sight_rotation(origin) @ flipped)[..., 0]
        origin_depth = torch.maximum(origin[..., 2], LEAST_DEPTH_SHARE * depth)
        return cls(
            scale=focal / origin_depth,
            offset=principal + focal[..., None] * origin[..., :2] / origin_depth[..., None],
            focal=focal,
            principal=principal,
        )

    @property
    def origin_depth(self) -> Float[Tensor, "*batch"]:
        """The depth of the head frame's origin along the optical axis, metres."""
        return self.focal / self.scale

    @property
    def rotation(self) -> Float[Tensor, "*batch 3 3"]:
        """Head axes to camera axes."""
        signs = self.offset.new_tensor(HEAD_TO_IMAGE_SIGNS)
        return line_of_sight_rotation(self._direction) * signs

    @property
    def translation(self) -> Float[Tensor, "*batch 3"]:
        """The head frame's origin in camera axes, metres."""
        return self.origin_depth[..., None] * self._direction

    def to_camera(self, points: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points 3"]:
        """Points of the head frame (metres) in camera axes, metres."""
        return points @ self.rotation.mT + self.translation[..., None, :]

    def project(self, points: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points 2"]:
        """The image positions of points of the head frame (metres)."""
        in_camera = self.to_camera(points)
        across = in_camera[..., :2] / self._depths(in_camera)[..., None]
        return self.principal[..., None, :] + self.focal[..., None, None] * across

    def depth(self, points: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points"]:
        """As in `to_image`."""
        return self.to_image(points)[..., 2]

    def to_image(self, points: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points 3"]:
        """Image position and depth of points of the head frame (metres), all three in image units.

        The depth is `scale * d * (1 - d / z)` with d the origin's depth and z the point's: the depth behind the
        origin to first order, and linear over the image of a plane, so that a rasteriser's interpolation is exact.
        """
        in_camera = self.to_camera(points)
        z, origin = self._depths(in_camera), self.origin_depth[..., None]
        across = in_camera[..., :2] / z[..., None]
        position = self.principal[..., None, :] + self.focal[..., None, None] * across
        depth = self.focal[..., None] * (1 - origin / z)
        return torch.cat((position, depth[..., None]), -1)

    def jacobian(self, points: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points 2 3"]:
        """Derivative of `project` by the point: image units per metre."""
        in_camera = self.to_camera(points)
        z = self._depths(in_camera)
        across = in_camera[..., :2] / z[..., None]
        pinhole = torch.cat((torch.eye(2).to(across).expand(*across.shape, 2), -across[..., None]), -1)
        pinhole = pinhole * (self.focal[..., None] / z)[..., None, None]
        return pinhole @ self.rotation[..., None, :, :]

    def straightened(self, points: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points 3"]:
        """Points of the head frame that a weak-perspective camera would see where this one sees the given ones."""
        image = self.to_image(points)
        from_origin = torch.cat((image[..., :2] - self.offset[..., None, :], image[..., 2:]), -1)
        return from_origin / self.scale[..., None, None] * points.new_tensor(HEAD_TO_IMAGE_SIGNS)

    def without_perspective(
        self, observed: Float[Tensor, "*batch points 2"], points: Float[Tensor, "*batch points 3"]
    ) -> Float[Tensor, "*batch points 2"]:
        """Where a weak-perspective camera of this scale and offset would observe what this one observed.

        The points (metres, head frame) say how far away the observed ones are; their positions across the line of
        sight do not matter (DeMenthon and Davis, "Model-based object pose in 25 lines of code", 1995).
        """
        ray = _ray(observed, self.focal[..., None], self.principal[..., None, :])
        ray = ray @ line_of_sight_rotation(self._direction)
        distance = torch.linalg.vector_norm(self.translation, dim=-1)[..., None] * self.relative_distance(
            points
        )
        across = ray[..., :2] / ray[..., 2:] * distance[..., None]
        return self.offset[..., None, :] + self.scale[..., None, None] * across

    def relative_distance(self, points: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points"]:
        """Distance of points of the head frame (metres) along the line of sight, over that of the frame's origin."""
        distance = torch.linalg.vector_norm(self.translation, dim=-1)[..., None]
        return (1 - points[..., 2] / distance).clamp(min=LEAST_DEPTH_SHARE)

    @property
    def position(self) -> Float[Tensor, "*batch 2"]:
        """The image position of the head frame's origin."""
        return self.offset

    @property
    def magnification(self) -> Float[Tensor, "*batch"]:
        """Image units per metre at the depth of the head frame's origin."""
        return self.scale

    def placed(
        self, position: Float[Tensor, "*batch 2"], magnification: Float[Tensor, "*batch"]
    ) -> Perspective:
        """The camera of this focal length that sees the origin at this position, this much magnified."""
        return replace(self, scale=magnification, offset=position)

    def in_image(self, scale: Float[Tensor, "*batch"], shift: Float[Tensor, "*batch 2"]) -> Perspective:
        """The same camera in other image coordinates, `new = scale * old + shift`."""
        return Perspective(
            scale=self.scale * scale,
            offset=self.offset * scale[..., None] + shift,
            focal=self.focal * scale,
            principal=self.principal * scale[..., None] + shift,
        )

    @property
    def _direction(self) -> Float[Tensor, "*batch 3"]:
        return _ray(self.offset, self.focal, self.principal)

    def _depths(self, in_camera: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points"]:
        return torch.maximum(in_camera[..., 2], LEAST_DEPTH_SHARE * self.origin_depth[..., None])


def _ray(
    position: Float[Tensor, "*batch 2"],
    focal: Float[Tensor, "*#batch"],
    principal: Float[Tensor, "*#batch 2"],
) -> Float[Tensor, "*batch 3"]:
    """The ray of an image position in camera axes, with a z of 1."""
    return torch.nn.functional.pad((position - principal) / focal[..., None], (0, 1), value=1.0)
