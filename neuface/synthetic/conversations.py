"""Two people before several cameras, with the truth of who is where: both stay, or one leaves and comes back.

They stand side by side, a forearm's length apart, and each talks, turns and nods as its own. The cameras stand
around them and are far away (weak perspective); who is nearer to one of them looks larger there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.geometry.rotations import compose_rotvecs, rotvec_to_rotmat
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import IBUG68
from neuface.structs import HeadParams, WeakPerspective, ndc_to_px
from neuface.synthetic.clips import head_motion, talking
from neuface.synthetic.two_people import TwoPeople, visible_faces

Talk = Literal["both", "turns", "one", "still"]
"""both: each all the time. turns: one after the other. one: the first only, the other blinks and moves the head.
still: nobody, and nobody moves."""
TALKS: tuple[Talk, ...] = get_args(Talk)

FPS = 25.0
# How far from the middle each person stands along x, and forwards or backwards at most, metres.
ASIDE_M, FORWARD_M = 0.19, 0.06
# Frame half-widths per metre, and the cameras' distance, metres.
SCALE, DISTANCE_M = 3.2, 2.0
# Largest angle by which a person turns towards the other, radians.
TOWARDS_RAD = 0.35
# Share of `head_motion` and of `talking` that the people show: those of a single person are livelier than a
# conversation.
MOTION, TALKING = 0.4, 0.6
# Largest way of the body from its place along x and y, metres.
SWAY_M = 0.01
# Bounds of the length of a turn, and time in which it begins or ends, seconds.
TURN_S, FADE_S = (0.8, 2.5), 0.2
# Usual time between blinks, and their duration, seconds.
BLINK_EVERY_S, BLINK_S = 3.0, 0.25
# How far to the side who leaves goes, metres.
WAY_OUT_M = 0.5


def conversation(
    head: HeadModel,
    identity: Float[Tensor, "2 identity"],
    talk: Talk,
    *,
    view_yaw_deg: Sequence[float] = (-25.0, 25.0),
    leaves: bool = False,
    time: int = 100,
    size_px: int = 448,
    seed: int = 0,
) -> list[TwoPeople]:
    """Two people of known identity as each camera sees them; `paint_two_people` gives its frames.

    Args:
        view_yaw_deg: angle of each camera about the people, one per view.
        leaves: the second person is away for about a third of the clip.

    Returns:
        One clip per view, 25 frames per second. The nearer person comes first; `order` says who that is.
    """
    generator = torch.Generator().manual_seed(seed)
    motion = torch.stack([_turning(talk, person, time, generator) for person in range(2)])
    params = replace(
        head.neutral(2, time),
        identity=identity[:, None].expand(-1, time, -1),
        expression=_expressions(head, talk, time, generator),
    )
    place = _places(talk, leaves, time, generator)
    views = [
        _seen(head, params, motion, place, yaw, size_px)
        for yaw in torch.tensor(view_yaw_deg).deg2rad().tolist()
    ]
    return [replace(view, seed=seed) for view in views]


def _turning(talk: Talk, person: int, time: int, generator: torch.Generator) -> Float[Tensor, "time 3"]:
    """The head's rotation in the world: a little towards the other person, and its own motion."""
    towards = torch.zeros(3)
    towards[1] = (1 - 2 * person) * TOWARDS_RAD * torch.rand((), generator=generator)
    own = MOTION * head_motion(time, generator) * (talk != "still")
    return compose_rotvecs(towards.expand(time, 3).contiguous(), own)


def _expressions(
    head: HeadModel, talk: Talk, time: int, generator: torch.Generator
) -> Float[Tensor, "2 time expression"]:
    """What each person's face does."""
    seconds = torch.arange(time) / FPS
    floor = _turns(seconds, generator)
    speaks = {
        "both": torch.ones(2, time),
        "turns": torch.stack((floor, 1 - floor)),
        "one": torch.stack((torch.ones(time), torch.zeros(time))),
        "still": torch.zeros(2, time),
    }[talk]
    expressions = []
    for person in range(2):
        rate, phase = torch.rand(2, generator=generator).tolist()
        spoken = talking(head, time, generator, syllables_hz=2.5 + 2.5 * rate, phase_rad=2 * torch.pi * phase)
        face = TALKING * speaks[person, :, None] * spoken
        closed = _blinks(seconds, generator) * (talk != "still")
        for side in ("Left", "Right"):
            lid = head.expression_names.index(f"eyeBlink{side}")
            face[:, lid] = torch.maximum(face[:, lid], closed)
        expressions.append(face)
    return torch.stack(expressions)


def _turns(seconds: Float[Tensor, " time"], generator: torch.Generator) -> Float[Tensor, " time"]:
    """How much the first of two people has the floor, 0..1."""
    floor = torch.zeros_like(seconds)
    end, sign = 0.0, 1.0 if float(torch.rand((), generator=generator)) < 0.5 else -1.0
    while end < float(seconds[-1]):
        floor = floor + sign * torch.sigmoid((seconds - end) / (FADE_S / 4)) * (1 if end == 0 else 2)
        end += TURN_S[0] + (TURN_S[1] - TURN_S[0]) * float(torch.rand((), generator=generator))
        sign = -sign
    return ((floor + 1) / 2).clamp(0, 1)


def _blinks(seconds: Float[Tensor, " time"], generator: torch.Generator) -> Float[Tensor, " time"]:
    """How far the lids are closed, 0..1."""
    closed = torch.zeros_like(seconds)
    at = BLINK_EVERY_S * float(torch.rand((), generator=generator))
    while at < float(seconds[-1]):
        closed = torch.maximum(closed, 1 - ((seconds - at) / (BLINK_S / 2)).abs()).clamp(min=0)
        at += BLINK_EVERY_S * (0.3 + 1.4 * float(torch.rand((), generator=generator)))
    return closed


def _places(talk: Talk, leaves: bool, time: int, generator: torch.Generator) -> Float[Tensor, "2 time 3"]:
    """Where both are in the world, metres, axes of a head that looks at the camera of angle 0."""
    seconds = torch.arange(time) / FPS
    side = torch.tensor([-1.0, 1.0])
    forward = FORWARD_M * (2 * torch.rand(2, generator=generator) - 1)
    place = torch.stack((side * ASIDE_M, torch.zeros(2), forward), -1)[:, None].repeat(1, time, 1)
    rate, phase = torch.rand(2, 2, 1, 2, generator=generator)
    sway = SWAY_M * torch.sin(2 * torch.pi * ((0.2 + 0.4 * rate) * seconds[:, None] + phase))
    place[..., :2] += sway * (talk != "still")
    if leaves:
        share, draw = torch.linspace(0, 1, time), torch.rand(2, generator=generator)
        away = torch.sigmoid((share - 0.25 - 0.15 * draw[0]) / 0.02) - torch.sigmoid(
            (share - 0.65 - 0.15 * draw[1]) / 0.02
        )
        place[1, :, 0] += WAY_OUT_M * away
    return place


def _seen(
    head: HeadModel,
    params: HeadParams,
    motion: Float[Tensor, "2 time 3"],
    place: Float[Tensor, "2 time 3"],
    yaw_rad: float,
    size_px: int,
) -> TwoPeople:
    """What a camera sees of them; the nearer one first."""
    turn = torch.tensor([0.0, yaw_rad, 0.0])
    before = place @ rotvec_to_rotmat(turn).mT
    order = before[..., 2].mean(1).argsort(descending=True)
    turned = replace(params, root_rotvec=compose_rotvecs(turn.expand_as(motion).contiguous(), motion))
    scale = SCALE / (1 - before[..., 2] / DISTANCE_M)
    # The image's y points down.
    camera = WeakPerspective(
        scale=scale, offset=scale[..., None] * before[..., :2] * torch.tensor([1.0, -1.0])
    )
    seen, camera = turned[order], camera[order]
    points_px = ndc_to_px(camera.project(head.landmarks(seen, IBUG68.name)), size_px)
    return TwoPeople(
        params=seen,
        camera=camera,
        points_px=points_px,
        visible=visible_faces(points_px, size_px),
        size_px=size_px,
        seed=0,
        order=(int(order[0]), int(order[1])),
    )
