"""Training pictures for the open encoder: random people, expressions, poses and crops with exact truth."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from neuface.geometry.meshes import vertex_normals
from neuface.geometry.rotations import (
    quaternion_product,
    quaternion_to_rotvec,
    rotvec_to_quaternion,
    rotvec_to_rotmat,
)
from neuface.head.expressions import sample_expressions
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import IBUG68
from neuface.structs import HeadParams, Prediction, TensorStruct, WeakPerspective
from neuface.synthetic.appearance import Look, Painter, random_looks, smooth_noise
from neuface.synthetic.backdrop import add_body, add_occluders, random_backgrounds
from neuface.synthetic.photography import cast_shadows, degrade
from neuface.synthetic.scenes import paint_vertices, random_lighting

# Side of a picture: the size of the open encoder's inputs.
TRAINING_PX = 112
# Mean side of the crop over that of the landmarks' box.
CROP_MARGIN = 1.45
# Bounds of yaw, and of pitch and roll.
LARGEST_YAW_DEG, LARGEST_TILT_DEG = 70.0, 35.0
# Points of the template: the neck's lower end and the middle of the skull.
NECK_POINT = (0.0, -0.116, 0.0)
SKULL_POINT = (0.0, 0.055, 0.04)


@dataclass(frozen=True, kw_only=True)
class TrainingPictures(TensorStruct):
    """Pictures of heads and the true parameters of the open head."""

    pictures: UInt8[Tensor, "n 3 s s"]
    identity: Float[Tensor, "n identity"]
    expression: Float[Tensor, "n expression"]
    root_rotvec: Float[Tensor, "n 3"]
    scale: Float[Tensor, " n"]
    offset: Float[Tensor, "n 2"]

    def truth(self, head: HeadModel) -> Prediction:
        """The true heads and cameras; neck, jaw and eyes are at rest."""
        params = replace(
            head.neutral(len(self.identity)),
            identity=self.identity,
            expression=self.expression,
            root_rotvec=self.root_rotvec,
        )
        return Prediction(params=params, camera=WeakPerspective(scale=self.scale, offset=self.offset))


def make_training_pictures(
    head: HeadModel, painter: Painter, identity: Float[Tensor, "n identity"], seed: int
) -> tuple[TrainingPictures, Bool[Tensor, "n s s"]]:
    """One picture of each person, and the pixels of the bare head in it; the same seed gives the same bytes."""
    generator = torch.Generator().manual_seed(seed)
    count = len(identity)
    params = replace(
        head.neutral(count),
        identity=identity,
        expression=sample_expressions(head.expression_names, count, generator),
        root_rotvec=sample_rotations(generator, count),
    )
    camera = crop_camera(head, params, generator)
    pictures, mask = _photograph(head, painter, params, camera, generator)
    return TrainingPictures(
        pictures=(pictures * 255).round().to(torch.uint8),
        identity=identity,
        expression=params.expression,
        root_rotvec=params.root_rotvec,
        scale=camera.magnification,
        offset=camera.position,
    ), mask


def sample_rotations(generator: torch.Generator, count: int) -> Float[Tensor, "count 3"]:
    """Rotation vectors of heads, radians: yaw up to 70 degrees, pitch and roll up to 35, most near frontal."""

    def angles(spread: int | float, largest: float, even: float) -> Tensor:
        normal = spread * torch.randn(count, generator=generator)
        uniform = largest * (2 * torch.rand(count, generator=generator) - 1)
        is_even = torch.rand(count, generator=generator) < even
        return torch.where(is_even, uniform, normal).clamp(-largest, largest).deg2rad()

    yaw = angles(14, LARGEST_YAW_DEG, 0.4)
    pitch = angles(10, LARGEST_TILT_DEG, 0.25)
    roll = angles(8, LARGEST_TILT_DEG, 0.2)
    zero = torch.zeros(count)
    turn = rotvec_to_quaternion(torch.stack((zero, yaw, zero), -1))
    nod = rotvec_to_quaternion(torch.stack((pitch, zero, zero), -1))
    tilt = rotvec_to_quaternion(torch.stack((zero, zero, roll), -1))
    return quaternion_to_rotvec(quaternion_product(tilt, quaternion_product(turn, nod)))


def crop_camera(head: HeadModel, params: HeadParams, generator: torch.Generator) -> WeakPerspective:
    """The camera of a crop by the rule of `neuface.cropping`, with random errors of its position and size."""
    count = len(params.identity)
    unit = WeakPerspective(scale=torch.ones(count), offset=torch.zeros(count, 2))
    points = unit.project(head.landmarks(params, IBUG68.name))
    lowest, highest = points.amin(1), points.amax(1)
    side = CROP_MARGIN * (highest - lowest).amax(-1)
    side = side * (0.85 + 0.35 * torch.rand(count, generator=generator))
    shift = 0.14 * (torch.rand(count, 2, generator=generator) - 0.5)
    centre = (lowest + highest) / 2 + shift * side[:, None]
    scale = 2 / side
    return WeakPerspective(scale=scale, offset=-centre * scale[:, None])


def _photograph(
    head: HeadModel,
    painter: Painter,
    params: HeadParams,
    camera: WeakPerspective,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "n 3 s s"], Bool[Tensor, "n s s"]]:
    count = len(params.identity)
    look = random_looks(generator, count)
    light = random_lighting(generator, count)
    vertices = _with_hair(head, head.vertices(params), params.root_rotvec, look, generator)
    drawn, mask = paint_vertices(head, painter, vertices, camera, look, light, TRAINING_PX)
    exposure = _exposure(look, light.ambient + 0.5 * light.color.sum(1))
    picture = random_backgrounds(generator, count, TRAINING_PX)
    picture = add_body(
        picture,
        generator,
        neck_ndc=_seen(params, camera, NECK_POINT, head),
        crown_ndc=_seen(params, camera, SKULL_POINT, head),
        hair=exposure[:, 1],
        skin=exposure[:, 0],
        cloth=exposure[:, 2],
        long_hair=look.side_hair,
    )
    picture = torch.where(mask[:, None], drawn.permute(0, 3, 1, 2), picture)
    picture = cast_shadows(picture, generator)
    picture = add_occluders(picture, generator, exposure[:, 0])
    return degrade(picture, generator), mask


def _with_hair(
    head: HeadModel, vertices: Tensor, turn: Tensor, look: Look, generator: torch.Generator
) -> Float[Tensor, "n vertices 3"]:
    """Vertices with the scalp moved outwards by 0 to 3 cm of uneven hair; the truth does not include the hair."""
    count = len(vertices)
    volume = 0.03 * torch.rand(count, 1, 1, generator=generator) ** 1.5 * look.hair_alpha[:, None, None]
    at = (head.template[:, :2] / 0.15)[None, :, None].expand(count, -1, -1, -1)
    uneven = torch.nn.functional.grid_sample(
        smooth_noise(generator, count, 1, 16), at, align_corners=False, padding_mode="border"
    )[:, 0]
    # The volume is full only well above the hairline, so that the outline of the face is unchanged.
    height = torch.sigmoid((head.template[:, 1] - 0.06) / 0.012) * torch.sigmoid(
        (0.105 - head.template[:, 2]) / 0.008
    )
    scalp = (head.regions["scalp"].float() * height)[:, None]
    outward = vertex_normals(head.template, head.faces) @ rotvec_to_rotmat(turn).mT
    return vertices + outward * scalp * volume * (1 + 0.4 * uneven).clamp(min=0)


def _exposure(look: Look, light: Tensor) -> Float[Tensor, "n 3 3"]:
    """Display colours of skin, hair and clothes outside of the mesh, lit roughly like the head."""
    linear = torch.stack((look.skin, look.hair, look.cloth), dim=1) * light[:, None]
    return linear.clamp(1e-4, 1) ** (1 / 1.6)


def _seen(
    params: HeadParams, camera: WeakPerspective, point: tuple[float, float, float], head: HeadModel
) -> Tensor:
    """Position in the image (crop NDC) of a point of the template that moves with the head."""
    joint = head.joint_template[0]
    turned = rotvec_to_rotmat(params.root_rotvec) @ (joint.new_tensor(point) - joint) + joint
    return camera.project(turned[:, None])[:, 0]
