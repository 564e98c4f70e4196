"""Rendered clips of one person whose frames are damaged in known ways."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from neuface.evaluation.quality import PARTS_OF_FACE
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import IBUG68, outer_eye_distance_px
from neuface.structs import Track, ndc_to_px
from neuface.synthetic.clips import make_talking_clip
from neuface.synthetic.landmark_noise import Corruption, Noise, corrupted

TIME, SIZE_PX = 60, 160
CORRUPTION = Corruption(
    noise=(Noise(percent=0.3, reach_percent=30.0), Noise(percent=0.8, memory=0.98, reach_percent=30.0)),
    outlier_share=0.05,
    outlier_percent=20.0,
    hand_share=0.12,
    board_share=0.08,
    hidden_noise=Noise(percent=10.0, memory=0.7, reach_percent=100.0),
)
"""Jitter and drift like a detector's, jumps of parts of the face, a hand and a board that pass by."""
# Frames of each further damage: without a picture, cut off by the border, and with another person's landmarks.
EMPTY_FRAMES, CUT_FRAMES, OTHER_FRAMES, LOST_FRAMES = 2, 4, 3, 3
# A frame is bad if the mean error of a part of the face exceeds the first of these, in outer-eye distances, and
# good if it is smaller than the second. Frames between the two are neither.
BAD_ERROR, GOOD_ERROR = 0.05, 0.035
# The same for the share of landmarks outside of the picture.
BAD_OUTSIDE, GOOD_OUTSIDE = 0.25, 0.15


@dataclass(frozen=True, kw_only=True)
class DamagedClip:
    """A clip as a user would give it, and which of its frames are bad."""

    frames: UInt8[Tensor, "1 time s s 3"]
    landmarks: Float[Tensor, "1 time 68 3"]
    """Frame pixels and confidence; NaN where a frame has none."""
    bad: Bool[Tensor, " time"]
    good: Bool[Tensor, " time"]
    exact_px: Float[Tensor, "1 time 68 2"]
    """Where the landmarks truly are in the frames."""
    kind: list[str]
    """What happened to each frame, `-` for nothing."""


def damaged_clip(head: HeadModel, identity: Float[Tensor, " identity"], seed: int) -> DamagedClip:
    """One clip, with every kind of damage in it; the same seed gives the same clip."""
    generator = torch.Generator().manual_seed(seed)
    yaw = float(50 * (torch.rand((), generator=generator) - 0.5))
    clip = make_talking_clip(
        head, identity, view_yaw_deg=(yaw,), time=TIME, size_px=SIZE_PX, noise_px=0.0, seed=seed
    )
    exact = ndc_to_px(clip.camera.project(head.landmarks(clip.truth, "ibug68")), SIZE_PX)
    # Smaller in the picture, so that the face can move to its border and another face has room.
    track = Track(points_px=exact, confidence=torch.ones(1, TIME, 68), scheme=IBUG68)
    eye_px = float(outer_eye_distance_px(track).amax())
    worse = corrupted(track, clip.frames, seed, CORRUPTION)
    frames, points = worse.frames.clone(), worse.landmarks.points_px.clone()
    confidence = worse.landmarks.confidence.clone()
    kind = ["-"] * TIME
    for frame in range(TIME):
        if bool(worse.damage.lost[0, frame]):
            kind[frame] = "lost"
        elif bool(worse.damage.jumped[0, frame].any()):
            kind[frame] = "jump"
        elif bool(worse.damage.hidden[0, frame].any()):
            kind[frame] = "hidden"
    spans = _free_spans(kind, (EMPTY_FRAMES, CUT_FRAMES, OTHER_FRAMES, LOST_FRAMES), generator)
    outside = torch.zeros(TIME)
    for name, (start, stop) in zip(("empty", "cut off", "other", "lost"), spans, strict=True):
        for frame in range(start, stop):
            kind[frame] = name
        span = slice(start, stop)
        if name == "empty":
            frames[:, span], confidence[:, span] = 0, 0
        elif name == "cut off":
            shift = _shift_to_border(exact[0, span])
            frames[:, span] = torch.roll(frames[:, span], shift, dims=3)
            points[:, span, :, 0] += shift
            outside[span] = (
                ((points[0, span] < -0.5) | (points[0, span] > SIZE_PX - 0.5)).any(-1).float().mean(-1)
            )
        elif name == "other":
            # The face beside: smaller, elsewhere, and with another expression.
            middle = points[:, span].mean(2, keepdim=True)
            points[:, span] = (
                0.8 * (points[:, [0]] - points[:, [0]].mean(2, keepdim=True)) + middle + 0.9 * eye_px
            )
        else:
            confidence[:, span] = 0
    exact_then = exact.clone()
    for frame, name in enumerate(kind):
        if name == "cut off":
            exact_then[:, frame] = points[:, frame]
    error = torch.linalg.vector_norm(points - exact_then, dim=-1)[0] / eye_px
    of_parts = torch.stack([error[:, list(part)].mean(-1) for part in PARTS_OF_FACE], -1).amax(-1)
    missing = confidence[0].amax(-1) <= 0
    bad = missing | (of_parts > BAD_ERROR) | (outside > BAD_OUTSIDE)
    good = ~missing & (of_parts < GOOD_ERROR) & (outside < GOOD_OUTSIDE)
    given = torch.cat((points, confidence[..., None]), -1)
    given[confidence <= 0] = torch.nan
    return DamagedClip(frames=frames, landmarks=given, bad=bad, good=good, exact_px=exact_then, kind=kind)


def _free_spans(
    kind: list[str], lengths: tuple[int, ...], generator: torch.Generator
) -> list[tuple[int, int]]:
    """A span of undamaged frames for each length, with an undamaged frame on both sides where there is room."""
    free = [name == "-" for name in kind]
    spans = []
    for length in lengths:
        starts = [t for t in range(1, TIME - length) if all(free[t - 1 : t + length + 1])]
        start = starts[int(torch.randint(len(starts), (), generator=generator))] if starts else 0
        stop = start + length if starts else 0
        free[start:stop] = [False] * (stop - start)
        spans.append((start, stop))
    return spans


def _shift_to_border(points_px: Float[Tensor, "time 68 2"]) -> int:
    """Pixels to the right that bring 40 % of the points out of the picture."""
    return int(SIZE_PX - float(points_px[..., 0].quantile(0.6)))
