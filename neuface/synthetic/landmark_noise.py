"""Landmarks as a detector gives them on real video: trembling, drifting, jumping, wrong or absent behind things.

Every amount is a standard deviation or a length in percent of the outer-eye distance, and every function is pure:
the same generator or seed gives the same answer. The amounts of `DETECTOR` were measured on MediaPipe's landmarks of
real video (the 68 counterparts; figures are per axis):

    trembling   Second differences over sqrt(6), the still half of five clips of the GRID corpus: 0.12 to 0.18 % for
                brows and nose, 0.18 to 0.19 % for the contour. Eyes blink and lips talk, so they tell nothing.
                What is left of neighbouring points after a smooth fit correlates by 0.85.
    drift       Four calibrated cameras, 6 frames per second: what two of them disagree in, less its mean over time,
                is 0.5 to 0.6 % for inner points and 1.3 % for the contour; 1.2 to 1.6 % and 3 % with a third camera,
                which sees the face from the side. Of its variance 60 % lasts longer than 1/6 s and 40 % longer than
                1 s. It correlates by 0.84 over a tenth of the eye distance, 0.41 over a quarter, 0.16 over one.
                On frames of hard clips with a free face, MediaPipe's distance from truth plus its own mean deviation
                is 1.3 to 1.6 % from the front and 2.7 % from the side.
    no face     In 12 and in 14 of 111 frames of two of these cameras, before which hands and a board pass, in runs of
                1 to 9 frames.
    jumps       By 5 to 50 % from one frame to the next around those frames.
    hidden      On frames of hard clips, MediaPipe's points behind hands and boards are 7 to 12 % off.

Left out are lasting deviations (2.5 to 3.5 % between two cameras for inner points): where on a face a detector has
its points is a matter of definition.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from neuface.errors import InputError
from neuface.landmarks.schemes import GROUPS_IBUG68, IBUG68, outer_eye_distance_px
from neuface.structs import Landmarks
from neuface.synthetic.occluders import pass_by

CONTOUR_FACTOR = 1.7
"""How much worse the contour's points are than the inner ones."""
PARTS_IBUG68 = (
    tuple(range(48, 68)),  # mouth
    tuple(range(17, 22)),  # right brow
    tuple(range(22, 27)),  # left brow
    tuple(range(0, 8)),  # right side of the contour
    tuple(range(9, 17)),  # left side of the contour
)
"""What jumps as one."""
# Of a jump: its length varies by this share of it, and each point's own deviation is this share of it.
JUMP_VARIETY, JUMP_UNREST = 0.4, 0.15
# Closed lips have points in one place, whose noise must be drawn as one all the same.
OWN_NOISE_SHARE = 1e-4
# A thing has to be before a point for this many frames until the point has left its place altogether.
LOSING_FRAMES = 3


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Normal noise in x and y, alike in kind for all points, frames and views."""

    percent: float
    """Standard deviation of an inner point per axis; the contour's is CONTOUR_FACTOR times that."""
    memory: float = 0.0
    """Correlation of one frame's noise with the next one's (AR(1)); 0 is white noise."""
    reach_percent: float = 0.0
    """Distance between two points at which their noises correlate by 1/e; 0: every point on its own."""

    def __post_init__(self) -> None:
        if not (self.percent >= 0 and 0 <= self.memory < 1 and self.reach_percent >= 0):
            raise InputError(
                f"expected a percent and a reach of at least 0 and a memory in [0, 1), got {self.percent}, "
                f"{self.reach_percent} and {self.memory}"
            )


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """What is done to a clip. Shares are of a view's frames; at least one frame of each."""

    noise: tuple[Noise, ...]
    """Added to every point that is seen."""
    outlier_share: float
    """Frames in which one part jumps, and is back in the next one."""
    outlier_percent: float
    """How far it jumps."""
    hand_share: float
    """Frames during which a hand stays before a part of the face."""
    board_share: float
    """Frames during which a board stays before most of it."""
    hidden_noise: Noise
    """Added to a hidden point besides, in full after LOSING_FRAMES frames."""
    hidden_confidence: float = 1.0
    """What the detector says of hidden points."""
    lost_share: float = 0.7
    """A frame of which more than this share of the points is hidden has no landmarks at all."""


DETECTOR = Corruption(
    noise=(
        Noise(percent=0.08, reach_percent=30.0),
        Noise(percent=1.00, memory=0.98, reach_percent=30.0),
    ),
    outlier_share=0.06,
    outlier_percent=12.0,
    hand_share=0.2,
    board_share=0.1,
    hidden_noise=Noise(percent=8.0, memory=0.9, reach_percent=100.0),
)
"""As measured: see the module. The drift is a rough path: its second differences over sqrt(6) are 0.12 %, those of
both noises together 0.14 %."""


@dataclass(frozen=True, kw_only=True)
class Damage:
    """What is wrong with a corrupted clip besides noise, and where."""

    hidden: Bool[Tensor, "views time points"]
    """Points behind a hand or a board."""
    jumped: Bool[Tensor, "views time points"]
    """Points of a part that jumped."""
    lost: Bool[Tensor, "views time"]
    """Frames without landmarks."""


@dataclass(frozen=True, kw_only=True)
class Corrupted:
    """A corrupted clip. The truth is the caller's: it has not changed."""

    landmarks: Landmarks
    frames: UInt8[Tensor, "views time h w 3"]
    """With the things painted into them."""
    damage: Damage


def corrupted(
    landmarks: Landmarks,
    frames: UInt8[Tensor, "views time h w 3"],
    seed: int,
    corruption: Corruption = DETECTOR,
) -> Corrupted:
    """Corrupt exact landmarks and put what hides them into the pictures.

    Args:
        landmarks: exact, iBUG-68, none missing.

    Raises:
        InputError: another scheme, missing landmarks, or too few frames for the occlusions.
    """
    if landmarks.scheme != IBUG68:
        raise InputError(f"expected {IBUG68} landmarks, got {landmarks.scheme}: use to_ibug68 first")
    if not bool((landmarks.confidence > 0).all()):
        raise InputError("expected exact landmarks, every point in every frame; some are missing")
    generator = torch.Generator().manual_seed(seed)
    # In the frame that is nearest to a frontal one; turning the head does not make a detector better.
    eye_px = float(outer_eye_distance_px(landmarks).amax())
    true_px, time = landmarks.points_px, landmarks.points_px.shape[1]
    shifts = [added_noise(true_px, eye_px, noise, generator) for noise in corruption.noise]
    astray = added_noise(true_px, eye_px, corruption.hidden_noise, generator)
    hidden, painted = [], []
    for view in range(len(true_px)):
        things = pass_by(
            true_px[view],
            frames[view],
            eye_px,
            hand_frames=_count(corruption.hand_share, time),
            board_frames=_count(corruption.board_share, time),
            generator=generator,
        )
        hidden.append(things[0].covers(true_px[view]) | things[1].covers(true_px[view]))
        painted.append(things[1].paint(things[0].paint(frames[view])))
    behind = torch.stack(hidden)
    lost = behind.double().mean(-1) > corruption.lost_share
    jumps = part_jumps(
        ~lost,
        _count(corruption.outlier_share, time),
        corruption.outlier_percent / 100 * eye_px,
        generator,
    ).to(true_px)
    points = true_px + torch.stack(shifts).sum(0) + jumps + losing(behind)[..., None].to(true_px) * astray
    return Corrupted(
        landmarks=told(landmarks, points, behind, lost, corruption.hidden_confidence),
        frames=torch.stack(painted),
        damage=Damage(hidden=behind, jumped=(jumps != 0).any(-1), lost=lost),
    )


def added_noise(
    points_px: Float[Tensor, "views time points 2"],
    eye_px: float,
    noise: Noise,
    generator: torch.Generator,
) -> Float[Tensor, "views time points 2"]:
    """Noise in pixels for iBUG-68 points, each view on its own.

    Args:
        points_px: tells how far points are from each other, by each view's mean over time.
        eye_px: the outer-eye distance.
    """
    views, time, count = points_px.shape[:3]
    fresh = torch.randn(views, time, count, 2, generator=generator, dtype=torch.float64)
    if noise.reach_percent > 0:
        places = points_px.double().mean(1)
        reach_px = noise.reach_percent / 100 * eye_px
        shared = torch.exp(-torch.cdist(places, places) / reach_px)
        own = OWN_NOISE_SHARE * torch.eye(count, dtype=torch.float64)
        mixing = torch.linalg.cholesky((1 - OWN_NOISE_SHARE) * shared + own)
        fresh = mixing[:, None] @ fresh
    steps = [fresh[:, 0]]
    for frame in range(1, time):
        steps.append(noise.memory * steps[-1] + (1 - noise.memory**2) ** 0.5 * fresh[:, frame])
    spread = torch.full((count, 1), noise.percent / 100 * eye_px, dtype=torch.float64)
    spread[GROUPS_IBUG68["contour"]] *= CONTOUR_FACTOR
    return (torch.stack(steps, 1) * spread).to(points_px)


def part_jumps(
    seen: Bool[Tensor, "views time"], count: int, length_px: float, generator: torch.Generator
) -> Float[Tensor, "views time 68 2"]:
    """Shifts in pixels: in `count` frames of every view one part of PARTS_IBUG68 is elsewhere; else 0.

    Args:
        seen: frames that may be chosen; a view with fewer than `count` of them has that many jumps.
        length_px: mean length of a jump.
    """
    jumps = torch.zeros(*seen.shape, 68, 2)
    for view, frames in enumerate(seen):
        possible = frames.nonzero()[:, 0]
        chosen = possible[torch.randperm(len(possible), generator=generator)[:count]]
        for frame in chosen.tolist():
            part = list(PARTS_IBUG68[int(torch.randint(len(PARTS_IBUG68), (), generator=generator))])
            angle = 2 * torch.pi * torch.rand((), generator=generator)
            length = 1 + JUMP_VARIETY * (2 * torch.rand((), generator=generator) - 1)
            unrest = JUMP_UNREST * torch.randn(len(part), 2, generator=generator)
            jumps[view, frame, part] = length_px * length * (torch.stack((angle.cos(), angle.sin())) + unrest)
    return jumps


def losing(hidden: Bool[Tensor, "views time points"]) -> Float[Tensor, "views time points"]:
    """How far a hidden point has left its place: 1/LOSING_FRAMES in its first hidden frame, 1 in the last of
    LOSING_FRAMES; 0 for a point that is seen."""
    share = torch.zeros(hidden.shape)
    before = torch.zeros_like(share[:, 0])
    for frame in range(hidden.shape[1]):
        before = (before + 1 / LOSING_FRAMES).clamp(max=1) * hidden[:, frame]
        share[:, frame] = before
    return share


def told(
    landmarks: Landmarks,
    points_px: Float[Tensor, "views time points 2"],
    hidden: Bool[Tensor, "views time points"],
    lost: Bool[Tensor, "views time"],
    hidden_confidence: float,
) -> Landmarks:
    """The landmarks that a detector reports which finds these points."""
    trust = torch.where(hidden, hidden_confidence, 1.0).to(points_px) * landmarks.confidence
    trust = trust * ~lost[..., None]
    return replace(landmarks, points_px=points_px * (trust > 0)[..., None], confidence=trust)


def _count(share: float, time: int) -> int:
    return max(1, round(share * time))
