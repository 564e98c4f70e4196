"""A model of a landmark detector's errors on real video: jitter, drift, jumps, and errors under occlusion.

Every amount is a standard deviation or a length in percent of the outer-eye distance. Every function is pure: the
same generator or seed gives the same result. The amounts of `DETECTOR` were measured on MediaPipe's landmarks of
real video (the 68 counterparts; figures are per axis):

    jitter      Second differences over sqrt(6), in the still half of five clips of the GRID corpus: 0.12 to 0.18 %
                for brows and nose, 0.18 to 0.19 % for the contour. Eyes and lips are excluded, because they blink and
                talk. The residuals of neighbouring points after a smooth fit have a correlation of 0.85.
    drift       Four calibrated cameras, 6 frames per second: the disagreement of two of them, minus its mean over
                time, is 0.5 to 0.6 % for inner points and 1.3 % for the contour; 1.2 to 1.6 % and 3 % with a third
                camera, which sees the face from the side. Of its variance, 60 % lasts longer than 1/6 s and 40 %
                longer than 1 s. Its correlation is 0.84 over a tenth of the eye distance, 0.41 over a quarter, 0.16
                over one. On unoccluded frames of hard clips, MediaPipe's distance from the truth plus its own mean
                deviation is 1.3 to 1.6 % from the front and 2.7 % from the side.
    no face     In 12 and in 14 of 111 frames of two of these cameras, in front of which hands and a board pass, in
                runs of 1 to 9 frames.
    jumps       By 5 to 50 % from one frame to the next around those frames.
    hidden      On frames of hard clips, MediaPipe's points behind hands and boards have errors of 7 to 12 %.

The model has no constant deviations (2.5 to 3.5 % between two cameras for inner points): the position of a detector's
points on a face is a matter of definition.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from neuface.errors import InputError
from neuface.landmarks.schemes import IBUG68, outer_eye_distance_px
from neuface.structs import Track
from neuface.synthetic.occluders import pass_by

PARTS_IBUG68 = (
    tuple(range(48, 68)),  # mouth
    tuple(range(17, 22)),  # right brow
    tuple(range(22, 27)),  # left brow
    tuple(range(0, 8)),  # right side of the contour
    tuple(range(9, 17)),  # left side of the contour
)
"""Groups of points that jump together."""
# Largest relative deviation of a jump's length from its mean, and standard deviation of each point relative to the
# jump.
JUMP_LENGTH_VARIATION, JUMP_POINT_DEVIATION = 0.4, 0.15
# Share of independent variance, which keeps the covariance regular where points coincide, as on closed lips.
INDEPENDENT_SHARE = 1e-4
# Number of hidden frames after which the error of a hidden point has its full size.
FRAMES_TO_FULL_ERROR = 3


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Gaussian noise along x and y, stationary in time, independent between views."""

    percent: float
    """Standard deviation of an inner point per axis; that of the contour is `IBUG68.contour_noise` times larger."""
    memory: float = 0.0
    """Correlation of the noise in neighbouring frames (an AR(1) process); 0 is white noise."""
    reach_percent: float = 0.0
    """Distance between two points at which the correlation of their noise is 1/e; 0 for independent points."""

    def __post_init__(self) -> None:
        if not (self.percent >= 0 and 0 <= self.memory < 1 and self.reach_percent >= 0):
            raise InputError(
                f"expected a percent and a reach of at least 0 and a memory in [0, 1), got {self.percent}, "
                f"{self.reach_percent} and {self.memory}"
            )


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """The errors added to a clip. Shares are of a view's frames; each applies to at least one frame."""

    noise: tuple[Noise, ...]
    """Added to every point; the terms are independent of each other."""
    outlier_share: float
    """Share of frames in which one part jumps, for a single frame."""
    outlier_percent: float
    """Mean length of a jump."""
    hand_share: float
    """Share of frames in which a hand hides a part of the face."""
    board_share: float
    """Share of frames in which a board hides most of the face."""
    hidden_noise: Noise
    """Additional noise of hidden points, at its full size after FRAMES_TO_FULL_ERROR frames."""
    hidden_confidence: float = 1.0
    """The detector's confidence in hidden points."""
    lost_share: float = 0.7
    """Share of hidden points above which a frame has no landmarks."""


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
"""The measured amounts of the module's docstring. The drift is an AR(1) process and not smooth: its second
differences over sqrt(6) are 0.12 %, those of both noises together 0.14 %."""


@dataclass(frozen=True, kw_only=True)
class Damage:
    """The errors of a corrupted clip other than noise."""

    hidden: Bool[Tensor, "views time points"]
    """Points behind a hand or a board."""
    jumped: Bool[Tensor, "views time points"]
    """Points of a part that jumped."""
    lost: Bool[Tensor, "views time"]
    """Frames without landmarks."""


@dataclass(frozen=True, kw_only=True)
class Corrupted:
    """A corrupted clip. The truth is unchanged and not repeated here."""

    landmarks: Track
    frames: UInt8[Tensor, "views time h w 3"]
    """The frames with hands and boards painted into them."""
    damage: Damage


def corrupted(
    landmarks: Track,
    frames: UInt8[Tensor, "views time h w 3"],
    seed: int,
    corruption: Corruption = DETECTOR,
) -> Corrupted:
    """Corrupt exact landmarks, and paint the objects that hide them into the frames.

    Args:
        landmarks: exact, iBUG-68, none missing.

    Raises:
        InputError: another scheme, missing landmarks, or too few frames for the occlusions.
    """
    if landmarks.scheme != IBUG68:
        raise InputError(
            f"expected {IBUG68.name} landmarks, got {landmarks.scheme.name}: use to_ibug68 first"
        )
    if not bool((landmarks.confidence > 0).all()):
        raise InputError("expected exact landmarks, every point in every frame; some are missing")
    generator = torch.Generator().manual_seed(seed)
    # The unit is the eye distance of the frame nearest to a frontal one: a detector's errors do not shrink in
    # profiles.
    eye_px = float(outer_eye_distance_px(landmarks).amax())
    true_px, time = landmarks.points_px, landmarks.points_px.shape[1]
    shifts = [added_noise(true_px, eye_px, noise, generator) for noise in corruption.noise]
    displacement = added_noise(true_px, eye_px, corruption.hidden_noise, generator)
    hidden, painted = [], []
    for view in range(len(true_px)):
        hand, board = pass_by(
            true_px[view],
            frames[view],
            eye_px,
            hand_frames=_count(corruption.hand_share, time),
            board_frames=_count(corruption.board_share, time),
            generator=generator,
        )
        hidden.append(hand.covers(true_px[view]) | board.covers(true_px[view]))
        painted.append(board.paint(hand.paint(frames[view])))
    behind = torch.stack(hidden)
    lost = behind.double().mean(-1) > corruption.lost_share
    jumps = part_jumps(
        ~lost,
        _count(corruption.outlier_share, time),
        corruption.outlier_percent / 100 * eye_px,
        generator,
    ).to(true_px)
    points = (
        true_px
        + torch.stack(shifts).sum(0)
        + jumps
        + error_share(behind)[..., None].to(true_px) * displacement
    )
    return Corrupted(
        landmarks=reported(landmarks, points, behind, lost, corruption.hidden_confidence),
        frames=torch.stack(painted),
        damage=Damage(hidden=behind, jumped=(jumps != 0).any(-1), lost=lost),
    )


def added_noise(
    points_px: Float[Tensor, "views time points 2"],
    eye_px: float,
    noise: Noise,
    generator: torch.Generator,
) -> Float[Tensor, "views time points 2"]:
    """Noise in pixels for iBUG-68 points, independent between views.

    Args:
        points_px: their mean over time in each view gives the distances between points.
        eye_px: the outer-eye distance, pixels.
    """
    views, time, count = points_px.shape[:3]
    fresh = torch.randn(views, time, count, 2, generator=generator, dtype=torch.float64)
    if noise.reach_percent > 0:
        positions = points_px.double().mean(1)
        reach_px = noise.reach_percent / 100 * eye_px
        shared = torch.exp(-torch.cdist(positions, positions) / reach_px)
        independent = INDEPENDENT_SHARE * torch.eye(count, dtype=torch.float64)
        mixing = torch.linalg.cholesky((1 - INDEPENDENT_SHARE) * shared + independent)
        fresh = mixing[:, None] @ fresh
    steps = [fresh[:, 0]]
    for frame in range(1, time):
        steps.append(noise.memory * steps[-1] + (1 - noise.memory**2) ** 0.5 * fresh[:, frame])
    spread = torch.full((count, 1), noise.percent / 100 * eye_px, dtype=torch.float64)
    spread[list(IBUG68.contour)] *= IBUG68.contour_noise
    return (torch.stack(steps, 1) * spread).to(points_px)


def part_jumps(
    seen: Bool[Tensor, "views time"], count: int, length_px: float, generator: torch.Generator
) -> Float[Tensor, "views time 68 2"]:
    """Displacements in pixels: in `count` random frames of every view, one of PARTS_IBUG68 is displaced; 0 elsewhere.

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
            length = 1 + JUMP_LENGTH_VARIATION * (2 * torch.rand((), generator=generator) - 1)
            deviation = JUMP_POINT_DEVIATION * torch.randn(len(part), 2, generator=generator)
            jumps[view, frame, part] = (
                length_px * length * (torch.stack((angle.cos(), angle.sin())) + deviation)
            )
    return jumps


def error_share(hidden: Bool[Tensor, "views time points"]) -> Float[Tensor, "views time points"]:
    """Share of its full error that a hidden point has: it rises by 1/FRAMES_TO_FULL_ERROR per hidden frame up to 1.

    It is 0 for a visible point.
    """
    share = torch.zeros(hidden.shape)
    before = torch.zeros_like(share[:, 0])
    for frame in range(hidden.shape[1]):
        before = (before + 1 / FRAMES_TO_FULL_ERROR).clamp(max=1) * hidden[:, frame]
        share[:, frame] = before
    return share


def reported(
    landmarks: Track,
    points_px: Float[Tensor, "views time points 2"],
    hidden: Bool[Tensor, "views time points"],
    lost: Bool[Tensor, "views time"],
    hidden_confidence: float,
) -> Track:
    """The landmarks that a detector reports if it finds these points."""
    confidence = torch.where(hidden, hidden_confidence, 1.0).to(points_px) * landmarks.confidence
    confidence = confidence * ~lost[..., None]
    return replace(landmarks, points_px=points_px * (confidence > 0)[..., None], confidence=confidence)


def _count(share: float, time: int) -> int:
    return max(1, round(share * time))
