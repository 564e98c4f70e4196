"""Rendered clips of two people who cross, leave, come closer or turn back, with the truth of who is where.

Both people talk and move their heads. Who is nearer to the camera hides the other: a face is found by no detector
where the nearer one covers more than HIDDEN_SHARE of its landmarks, or where it is mostly outside the picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from neuface.head.model import HeadModel
from neuface.landmarks.schemes import IBUG68
from neuface.structs import HeadParams, WeakPerspective, ndc_to_px
from neuface.synthetic.appearance import Painter, random_looks
from neuface.synthetic.backdrop import random_backgrounds
from neuface.synthetic.clips import head_motion, talking
from neuface.synthetic.scenes import paint_heads, random_lighting

Story = Literal["crossing", "leaving", "closer", "meeting"]
"""crossing: both walk past each other. leaving: one goes out of the picture and comes back elsewhere. closer: one who
is further away comes until the face is the larger of both. meeting: both come close and turn back."""
STORIES: tuple[Story, ...] = get_args(Story)

# Height of a face in the picture, as a share of the picture's side, of the person in front and of the other.
FACE_SHARE = (0.24, 0.20)
# Height of the open head's landmarks, metres: the box from the brows to the chin.
FACE_HEIGHT_M = 0.125
# Share of a face's landmarks behind the other head, or outside of the picture, from which it is not found.
HIDDEN_SHARE, OUTSIDE_SHARE = 0.35, 0.4
# Number of frames that are painted at once.
FRAMES_AT_A_TIME = 8
# Half the width and half the height of a head over the size of its face's landmarks, for what it hides.
HEAD_HALF_SIZE = (0.62, 0.75)


@dataclass(frozen=True, kw_only=True)
class TwoPeople:
    """The truth of a clip of two people; axis 0 of every field counts them, and person 0 is in front."""

    params: HeadParams
    camera: WeakPerspective
    """For a square crop that is the whole frame."""
    points_px: Float[Tensor, "2 time 68 2"]
    """Exact iBUG-68 landmarks, frame pixels."""
    visible: Bool[Tensor, "2 time"]
    """Whether a detector can find the face."""
    size_px: int
    """Side of the square frame."""
    seed: int
    """Of looks and light, and of the backdrop."""
    order: tuple[int, int] = (0, 1)
    """Who person 0 and person 1 are, if another camera sees them in another order: a number of each one's look."""


def two_people(
    head: HeadModel,
    identity: Float[Tensor, "2 identity"],
    story: Story,
    *,
    time: int = 60,
    size_px: int = 384,
    seed: int = 0,
) -> TwoPeople:
    """Two people of known identity who act a story; `paint_two_people` gives the frames."""
    generator = torch.Generator().manual_seed(seed)
    motion = torch.stack([head_motion(time, generator) for _ in range(2)])
    params = replace(
        head.neutral(2, time),
        identity=identity[:, None].expand(-1, time, -1),
        expression=torch.stack([talking(head, time, generator) for _ in range(2)]),
        root_rotvec=motion,
    )
    place, growth = _paths(story, time, generator)
    size = torch.tensor(FACE_SHARE)[:, None] * growth
    scale = 2 * size / FACE_HEIGHT_M
    centred = WeakPerspective(scale=scale, offset=torch.zeros(2, time, 2))
    middle = centred.project(head.landmarks(params, IBUG68.name)).mean(-2)
    # The path is of the face's middle at rest, so that nodding and turning move the face about it.
    camera = replace(centred, offset=place - middle.mean(1, keepdim=True))
    points_px = ndc_to_px(camera.project(head.landmarks(params, IBUG68.name)), size_px)
    return TwoPeople(
        params=params,
        camera=camera,
        points_px=points_px,
        visible=visible_faces(points_px, size_px),
        size_px=size_px,
        seed=seed,
    )


def _paths(
    story: Story, time: int, generator: torch.Generator
) -> tuple[Float[Tensor, "2 time 2"], Float[Tensor, "2 time"]]:
    """Where the faces are (crop NDC), and how much larger than at first."""
    t = torch.linspace(0, 1, time)
    draw = torch.rand(8, generator=generator)
    side = 1.0 if draw[0] < 0.5 else -1.0
    height = 0.2 * (torch.rand(2, generator=generator) - 0.5)
    sway = 0.03 * torch.sin(2 * torch.pi * (t * (0.5 + draw[1]) + draw[2]))
    growth = torch.ones(2, time)
    reach = 0.45 + 0.25 * draw[3]
    if story == "crossing":
        # One of them may walk faster, or stop on the other side.
        first, second = (
            -reach + 2 * reach * _eased(t, 0.2 * draw[4]),
            reach - 2 * reach * _eased(t, 0.2 * draw[5]),
        )
    elif story == "leaving":
        gone, back = 0.25 + 0.15 * draw[4], 0.6 + 0.15 * draw[5]
        out = 0.35 + (t / gone).clamp(max=1) * 1.3
        # Back from the same side, nearer to the middle or further up.
        returning = 1.65 - ((t - back) / 0.2).clamp(0, 1) * (1.0 + 0.4 * draw[6])
        second = torch.where(t < 0.5 * (gone + back), out, returning)
        first = torch.full_like(t, -0.45) + 0.1 * t
    elif story == "closer":
        first, second = -reach + 0.1 * t, reach - 0.25 * t
        growth[1] = 0.75 + (0.9 + 0.5 * draw[4]) * _eased(t, 0.1)
    else:
        near = torch.sin(torch.pi * t) ** 2
        gap = 0.18 + 0.15 * draw[4]
        first, second = -reach + (reach - gap) * near, reach - (reach - gap) * near
    x = side * torch.stack((first + sway, second - sway))
    y = height[:, None] + 0.05 * torch.sin(2 * torch.pi * (t + draw[7])) * torch.tensor([[1.0], [-1.0]])
    return torch.stack((x, y), -1), growth


def _eased(t: Float[Tensor, " time"], rest: float | Tensor) -> Float[Tensor, " time"]:
    """0 to 1 with a rest at both ends."""
    moving = ((t - rest) / (1 - 2 * rest)).clamp(0, 1)
    return (1 - torch.cos(torch.pi * moving)) / 2


def visible_faces(points_px: Float[Tensor, "2 time 68 2"], size_px: int) -> Bool[Tensor, "2 time"]:
    """Whether a detector can find the faces of two people, of whom the first is in front."""
    low, high = points_px[0].amin(-2), points_px[0].amax(-2)
    half = (high - low).amax(-1, keepdim=True) * points_px.new_tensor(HEAD_HALF_SIZE)
    away = (points_px[1] - ((low + high) / 2)[:, None]) / half[:, None]
    behind = (away.square().sum(-1) < 1).float().mean(-1) > HIDDEN_SHARE
    inside = ((points_px > -0.5) & (points_px < size_px - 0.5)).all(-1).float().mean(-1)
    seen = inside > 1 - OUTSIDE_SHARE
    return torch.stack((seen[0], seen[1] & ~behind))


def paint_two_people(head: HeadModel, clip: TwoPeople) -> UInt8[Tensor, "time s s 3"]:
    """The frames of a clip, RGB; the same clip gives the same frames."""
    generator = torch.Generator().manual_seed(clip.seed)
    time = clip.visible.shape[1]
    backdrop = random_backgrounds(generator, 1, clip.size_px)[0].permute(1, 2, 0)
    light = random_lighting(generator, 1)
    looks = [random_looks(generator, 1) for _ in range(2)][::-1]
    painter = Painter(head)
    pieces = []
    # A few frames at a time bound the memory.
    for frames in torch.arange(time).split(FRAMES_AT_A_TIME):
        picture = backdrop.expand(len(frames), -1, -1, -1)

        def repeated(part: Tensor, count: int = len(frames)) -> Tensor:
            return part.expand(count, *part.shape[1:])

        # From the back to the front.
        for person in (1, 0):
            look = looks[clip.order[person]].map_tensors(repeated)
            lit = light.map_tensors(repeated)
            params, camera = clip.params[person, frames], clip.camera[person, frames]
            drawn, mask = paint_heads(head, painter, params, camera, look, lit, clip.size_px)
            picture = torch.where(mask[..., None], drawn, picture)
        pieces.append((picture * 255).round().clamp(0, 255).to(torch.uint8))
    return torch.cat(pieces)


# --- What a detector finds


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The faces that a detector reports, and whose they are."""

    points_px: Float[Tensor, "time faces 68 2"]
    """Frame pixels, NaN where a frame has fewer faces; in random order."""
    person: Int[Tensor, "time faces"]
    """0 or 1; -1 for a false detection, and where there is none."""


@dataclass(frozen=True, kw_only=True)
class DetectorErrors:
    """How bad a detector is; shares are probabilities for each face, or frame."""

    noise: float = 0.01
    """Standard deviation of the points per axis, face sizes."""
    missed_share: float = 0.1
    """Faces that are missed, each frame alone."""
    false_share: float = 0.1
    """Frames with a false face, anywhere in the picture."""


def found_by_detector(clip: TwoPeople, errors: DetectorErrors, seed: int) -> Candidates:
    """The candidates of every frame: noisy landmarks of visible faces, less the missed ones, and false ones."""
    generator = torch.Generator().manual_seed(seed)
    time = clip.visible.shape[1]
    size = (clip.points_px.amax(-2) - clip.points_px.amin(-2)).amax(-1)
    noise = errors.noise * size[..., None, None] * torch.randn(clip.points_px.shape, generator=generator)
    found = clip.visible & (torch.rand(2, time, generator=generator) >= errors.missed_share)
    # A false face has the shape of one of the true ones of another time, elsewhere and of another size.
    other = torch.randint(time, (time,), generator=generator)
    shape = clip.points_px[0, other] - clip.points_px[0, other].mean(-2, keepdim=True)
    factor = 0.5 + torch.rand(time, 1, 1, generator=generator)
    wrong = factor * shape + clip.size_px * torch.rand(time, 1, 2, generator=generator)
    is_wrong = torch.rand(time, generator=generator) < errors.false_share
    points = torch.stack((*(clip.points_px + noise), wrong), 1)
    there = torch.stack((*found, is_wrong), 1)
    person = torch.tensor([0, 1, -1]).expand(time, -1)
    order = torch.rand(time, 3, generator=generator).argsort(-1)
    shown = torch.where(there[..., None, None], points, torch.nan)
    return Candidates(
        points_px=shown.gather(1, order[..., None, None].expand_as(shown)),
        person=torch.where(there, person, -1).gather(1, order),
    )
