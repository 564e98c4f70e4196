"""A rendered clip of a talking person before calibrated pinhole cameras nearby, with exact truth in the world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from neuface.geometry.head_perspective import Perspective
from neuface.geometry.line_of_sight import line_of_sight_rotation
from neuface.geometry.perspective import PerspectiveCamera
from neuface.geometry.rotations import rotmat_to_rotvec, rotvec_to_rotmat
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import IBUG68
from neuface.structs import HEAD_TO_IMAGE_SIGNS, Crop, HeadParams, Prediction
from neuface.synthetic.appearance import Painter, random_looks
from neuface.synthetic.backdrop import random_backgrounds
from neuface.synthetic.clips import head_motion, talking
from neuface.synthetic.scenes import paint_heads, random_lighting

FOCAL_PER_SIDE = 1.1
"""Focal length over the side of the frame: about that of a webcam."""
SWAY_M = 0.03
"""Largest way of the head from its place along each axis of the world, metres."""
AIM_M = 0.06
"""How far beside the head each camera aims, metres: a head in the middle of every frame would be a special case."""
FIXED_POINT_STEPS = 40
"""Of the line of sight to the head frame's origin, which depends on the head's rotation, which depends on it; each
step is nearer by the ratio of the head's size to its distance."""


@dataclass(frozen=True, kw_only=True)
class CalibratedClip:
    """Frames, noisy landmarks, and the truth in the world and before every camera."""

    frames: UInt8[Tensor, "views time s s 3"]
    landmarks_px: Float[Tensor, "views time 68 2"]
    """iBUG-68, frame pixels, with white noise."""
    cameras: PerspectiveCamera
    """One batch axis, the views; no lens distortion."""
    truth: Prediction
    """Batch axes `views time`, frame pixels; cameras of the kind `Perspective`."""
    vertices: Float[Tensor, "time vertices 3"]
    """The true meshes in world axes, metres."""
    fps: float = 25.0


def make_calibrated_clip(
    head: HeadModel,
    identity: Float[Tensor, " identity"],
    *,
    view_yaw_deg: Sequence[float] = (-35.0, 0.0, 35.0),
    distance_m: float = 0.7,
    time: int = 24,
    size_px: int = 320,
    noise_px: float = 0.6,
    seed: int = 0,
) -> CalibratedClip:
    """Render a person who talks and moves the head before synchronised cameras.

    Args:
        view_yaw_deg: angle of each camera about the head, one per view.
        distance_m: of the cameras from the head's place.
        noise_px: standard deviation of the landmarks' white noise along x and along y.
    """
    generator = torch.Generator().manual_seed(seed)
    cameras = ring_of_cameras(view_yaw_deg, distance_m, size_px, generator)
    motion = head_motion(time, generator)
    sway = SWAY_M * torch.sin(
        2 * torch.pi * (torch.rand(3, generator=generator) + 0.5 * torch.arange(time)[:, None] / 25.0)
    )
    heads = replace(
        head.neutral(time), identity=identity.expand(time, -1), expression=talking(head, time, generator)
    )
    # The cameras' world has y down, the head's axes have y up.
    rotation = torch.diag(torch.tensor(HEAD_TO_IMAGE_SIGNS)) @ rotvec_to_rotmat(motion)
    truth = seen_heads(head, heads, rotation, sway, cameras)
    views = len(view_yaw_deg)
    look = random_looks(generator, 1).map_tensors(lambda part: part.expand(time, *part.shape[1:]))
    whole_frame = Crop(T_crop_frame=torch.eye(3), size_px=size_px)
    in_ndc = whole_frame.camera_in_crop(truth.camera)
    frames = []
    for view in range(views):
        light = random_lighting(generator, 1).map_tensors(lambda part: part.expand(time, *part.shape[1:]))
        backdrop = random_backgrounds(generator, 1, size_px)[0].permute(1, 2, 0)
        picture, mask = paint_heads(
            head, Painter(head), truth.params[view], in_ndc[view], look, light, size_px
        )
        composed = torch.where(mask[..., None], picture, backdrop)
        frames.append((composed * 255).round().clamp(0, 255).to(torch.uint8))
    clean = truth.camera.project(head.landmarks(truth.params, IBUG68.name))
    unposed = head.vertices(heads)
    pivot = head.joints(heads)[:, :1]
    return CalibratedClip(
        frames=torch.stack(frames),
        landmarks_px=clean + noise_px * torch.randn(clean.shape, generator=generator),
        cameras=cameras,
        truth=truth,
        vertices=(unposed - pivot) @ rotation.mT + sway[:, None],
    )


def ring_of_cameras(
    view_yaw_deg: Sequence[float], distance_m: float, size_px: int, generator: torch.Generator
) -> PerspectiveCamera:
    """Cameras around the origin of a world with x right, y down and z away from the camera of angle 0."""
    views = len(view_yaw_deg)
    turn = torch.zeros(views, 3)
    turn[:, 1] = torch.tensor(view_yaw_deg).deg2rad()
    translation = AIM_M * (2 * torch.rand(views, 3, generator=generator) - 1)
    translation[:, 2] = distance_m
    K = torch.zeros(views, 3, 3)
    K[:, 0, 0] = K[:, 1, 1] = FOCAL_PER_SIDE * size_px
    K[:, :2, 2] = (size_px - 1) / 2
    K[:, 2, 2] = 1.0
    return PerspectiveCamera(
        K=K, distortion=torch.zeros(views, 5), rotation=rotvec_to_rotmat(turn), translation=translation
    )


def seen_heads(
    head: HeadModel,
    heads: HeadParams,
    rotation: Float[Tensor, "time 3 3"],
    place: Float[Tensor, "time 3"],
    cameras: PerspectiveCamera,
) -> Prediction:
    """What a perfect fit would say of heads in the world, batch axes `views time`, frame pixels.

    Args:
        heads: unposed, batch axis `time`.
        rotation: their axes to world axes.
        place: where the root joint is in the world, metres.
        cameras: one batch axis, the views; of square pixels and without distortion.
    """
    signs = place.new_tensor(HEAD_TO_IMAGE_SIGNS)
    pivot = (signs * head.joints(heads)[:, 0])[..., None]
    turned = cameras.rotation[:, None] @ rotation
    place_in_camera = cameras.to_camera(place.expand(len(cameras.K), -1, -1))
    origin = place_in_camera
    for _ in range(FIXED_POINT_STEPS):
        # The root joint, which the rotation leaves where it is, is seen along the line of sight to the origin.
        origin = place_in_camera - (line_of_sight_rotation(origin) @ pivot)[..., 0]
    root = rotmat_to_rotvec(signs[:, None] * (line_of_sight_rotation(origin).mT @ turned))
    views, time = root.shape[:2]
    focal = cameras.K[:, None, 0, 0].expand(views, time)
    principal = cameras.K[:, None, :2, 2].expand(views, time, 2)
    params = heads.map_tensors(lambda tensor: tensor.expand(views, *tensor.shape))
    return Prediction(
        params=replace(params, root_rotvec=root),
        camera=Perspective(
            scale=focal / origin[..., 2],
            offset=principal + focal[..., None] * origin[..., :2] / origin[..., 2:],
            focal=focal,
            principal=principal,
        ),
    )
