"""A rendered clip of a talking person, recorded by several cameras, with exact truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from neuface.devices import map_pieces, one_thread_per_operation
from neuface.geometry.head_perspective import Perspective
from neuface.geometry.rotations import compose_rotvecs
from neuface.head.expressions import sample_expressions
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import IBUG68
from neuface.structs import Camera, HeadParams, WeakPerspective, ndc_to_px
from neuface.synthetic.appearance import Look, Painter, random_looks
from neuface.synthetic.backdrop import random_backgrounds
from neuface.synthetic.scenes import Lighting, paint_heads, random_lighting

SceneT = TypeVar("SceneT", Look, Lighting)
HEAD_SCALE = 6.5
"""Frame half-widths per metre: the head fills about two thirds of the frame's height."""
FRAMES_AT_ONCE = 4
"""Number of frames that are painted at once, divided among threads; it bounds the memory for them."""


@dataclass(frozen=True, kw_only=True)
class SyntheticClip:
    """Frames, noisy landmarks, and the true parameters and cameras."""

    frames: UInt8[Tensor, "views time s s 3"]
    landmarks_px: Float[Tensor, "views time 68 2"]
    """iBUG-68, frame pixels, with white noise (independent between points and frames, unlike a detector's)."""
    truth: HeadParams
    """Batch axes `views time`; the views differ in root rotation only."""
    camera: Camera
    """Cameras for a crop that is the whole frame, in its half-widths."""
    fps: float


@one_thread_per_operation()
def make_talking_clip(
    head: HeadModel,
    identity: Float[Tensor, " identity"],
    *,
    view_yaw_deg: Sequence[float] = (-35.0, 0.0, 35.0),
    time: int = 24,
    size_px: int = 320,
    noise_px: float = 0.6,
    distance_m: float | None = None,
    seed: int = 0,
) -> SyntheticClip:
    """Render a person who talks and moves the head in front of synchronised cameras.

    Args:
        view_yaw_deg: angle of each camera about the head, one per view.
        noise_px: standard deviation of the landmarks' white noise along x and along y.
        distance_m: between each camera and the head frame's origin; None is weak perspective. The frame's centre is
            on the optical axis, and the focal length gives the head the same size in the frame at every distance.
    """
    generator = torch.Generator().manual_seed(seed)
    views = len(view_yaw_deg)
    motion = head_motion(time, generator)
    cameras = torch.zeros(views, 3)
    cameras[:, 1] = torch.tensor(view_yaw_deg).deg2rad()
    turns = compose_rotvecs(cameras[:, None].expand(-1, time, -1), motion.expand(views, -1, -1))
    truth = replace(
        head.neutral(views, time),
        identity=identity.expand(views, time, -1),
        expression=talking(head, time, generator).expand(views, -1, -1),
        root_rotvec=turns,
    )
    camera = _centred_camera(head, truth, distance_m)
    look, painter = random_looks(generator, 1), Painter(head)
    scenes = [
        (random_lighting(generator, 1), random_backgrounds(generator, 1, size_px)[0].permute(1, 2, 0))
        for _ in range(views)
    ]

    def paint(place: tuple[int, range]) -> UInt8[Tensor, "n s s 3"]:
        view, times = place
        images = (view, slice(times.start, times.stop))
        light, backdrop = scenes[view]
        looks, lights = _repeated(look, len(times)), _repeated(light, len(times))
        picture, mask = paint_heads(head, painter, truth[images], camera[images], looks, lights, size_px)
        composed = torch.where(mask[..., None], picture, backdrop)
        return (composed * 255).round().clamp(0, 255).to(torch.uint8)

    at_once = [range(time)[start : start + FRAMES_AT_ONCE] for start in range(0, time, FRAMES_AT_ONCE)]
    painted = map_pieces(paint, [(view, times) for view in range(views) for times in at_once])
    clean = ndc_to_px(camera.project(head.landmarks(truth, IBUG68.name)), size_px)
    return SyntheticClip(
        frames=torch.cat(painted).unflatten(0, (views, time)),
        landmarks_px=clean + noise_px * torch.randn(clean.shape, generator=generator),
        truth=truth,
        camera=camera,
        fps=25.0,
    )


def _repeated(one: SceneT, count: int) -> SceneT:
    """What is the same in some images, once for each of them."""
    return one.map_tensors(lambda tensor: tensor.expand(count, *tensor.shape[1:]))


def head_motion(time: int, generator: torch.Generator) -> Float[Tensor, "time 3"]:
    """Slow head motion as rotation vectors, radians: two sines per axis, at 25 frames per second."""
    seconds = torch.arange(time) / 25.0
    largest = torch.tensor((5.0, 12.0, 4.0)).deg2rad()
    rate = 0.4 + 0.6 * torch.rand(2, 3, generator=generator)
    phase = 2 * torch.pi * torch.rand(2, 3, generator=generator)
    waves = torch.sin(2 * torch.pi * rate * seconds[:, None, None] + phase)
    return largest * (waves * torch.tensor(((0.7,), (0.3,)))).sum(1)


def talking(
    head: HeadModel,
    time: int,
    generator: torch.Generator,
    *,
    syllables_hz: float = 3.0,
    phase_rad: float = 0.0,
) -> Float[Tensor, "time expression"]:
    """Random expressions every quarter of a second with smooth transitions, and a jaw that opens and closes.

    Args:
        syllables_hz: how often the jaw opens, per second.
        phase_rad: of its first opening.
    """
    keys = sample_expressions(head.expression_names, time // 6 + 2, generator)
    at = torch.arange(time) / 6.0
    before = at.long()
    share = ((1 - torch.cos(torch.pi * (at - before))) / 2)[:, None]
    blended = keys[before] * (1 - share) + keys[before + 1] * share
    jaw = head.expression_names.index("jawOpen")
    angle = 2 * torch.pi * syllables_hz * torch.arange(time) / 25.0 + phase_rad
    blended[:, jaw] = torch.maximum(blended[:, jaw], 0.18 * (1 - torch.cos(angle)))
    return blended


def _centred_camera(head: HeadModel, truth: HeadParams, distance_m: float | None) -> Camera:
    """Cameras with the face near the middle of the frame, constant over each view's clip."""
    views, time = truth.identity.shape[:2]
    scale, origin = torch.full((views, time), HEAD_SCALE), torch.zeros(views, time, 2)
    centred: Camera = WeakPerspective(scale=scale, offset=origin)
    if distance_m is not None:
        centred = Perspective(scale=scale, offset=origin, focal=scale * distance_m, principal=origin)
    middle = centred.project(head.landmarks(truth, IBUG68.name)).mean((1, 2), keepdim=True)[:, :, 0]
    return centred.placed(-middle.expand(-1, time, -1).contiguous(), scale)
