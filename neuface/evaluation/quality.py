"""How far every image of a fit can be trusted: a score with its parts, and the status that follows from it.

Each part is 1 / (1 + (x / limit)^SHARPNESS) of a measure x, so that it is 1/2 at the part's limit; the score is the
least of the parts, and an image is bad below BAD_BELOW. Lengths are in outer-eye distances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuface.evaluation.figures import landmarks68
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import outer_eye_distance_px, to_ibug68
from neuface.metrics import box_length_px
from neuface.structs import Prediction, Status, TensorStruct, Track

BAD_BELOW = 0.5
"""Score below which an image is bad: its status is not `FITTED`."""
SHARPNESS = 4
"""Exponent of the parts: how steeply a part falls around its limit."""
RESIDUAL_LIMIT = 0.04
"""Limit of the error of a part of the face beyond its median in the clip, outer-eye distances."""
NME_LIMIT = 0.10
"""Limit of the mean error of all landmarks, outer-eye distances."""
JUMP_LIMIT = 0.06
"""Limit of the deviation of a part of the face from its position in the frames beside, outer-eye distances."""
JUMPS_OVER_USUAL = 6.0
"""The same as a multiple of the clip's median deviation, which is the limit where it is more."""
UNCERTAIN_LIMIT = 0.3
"""Limit of the loss of mean confidence, as a share of the clip's median; a missing landmark has none."""
OUTSIDE_LIMIT = 0.2
"""Limit of the share of the landmarks that lie outside the picture."""
DEVIATION_OVER_USUAL, DEVIATION_LIMITS = 2.2, (0.04, 0.10)
"""Limit of the standard deviation that the detector states for its points (median over the face): a multiple of the
clip's usual one, but at least the first and at most the second of the other two, outer-eye distances."""
FRAMES_BESIDE = 2
"""Number of frames on each side with which a frame is compared."""
LONGEST_GAP = 8
"""Largest number of consecutive frames without landmarks over which a head counts as interpolated."""
GAP_MOTION = 0.5
"""Largest motion of the face's centre over such a gap, in sizes of the face's box."""
INTERPOLATED_SHARE = 0.45
"""Score of an interpolated frame, as a share of the lesser score of the frames around it."""
BOX_OVER_EYES = 1.6
"""Size of the box of the 68 points over the outer-eye distance of a frontal face. In a profile, where the observed
distance vanishes, the box gives the unit of length."""
FRAMES_PER_PIECE = 512
"""Number of frames whose landmarks are looked at together, which bounds the memory."""
PARTS_OF_FACE = (
    tuple(range(0, 8)),
    tuple(range(9, 17)),
    tuple(range(17, 22)),
    tuple(range(22, 27)),
    tuple(range(27, 36)),
    tuple(range(36, 42)),
    tuple(range(42, 48)),
    tuple(range(48, 60)),
)
"""Points of iBUG-68: both sides of the contour, both brows, the nose, both eyes, the lips."""


@dataclass(frozen=True, kw_only=True)
class Quality(TensorStruct):
    """How far every image can be trusted, 0 to 1."""

    score: Float[Tensor, "views time"]
    """The least of the parts; 0 without landmarks, and low where the head is interpolated over a short gap."""
    residual: Float[Tensor, "views time"]
    """Whether the fitted head meets the landmarks of every part of the face."""
    steadiness: Float[Tensor, "views time"]
    """Whether the landmarks are where they are in the frames beside."""
    certainty: Float[Tensor, "views time"]
    """Whether the landmarks are as many, and as certain, as is usual in the clip."""
    inside: Float[Tensor, "views time"]
    """Whether the face is in the picture."""


def judge(
    head: HeadModel,
    prediction: Prediction,
    track: Track,
    sizes_hw: Sequence[tuple[int, int]],
    starts: Sequence[int] = (0,),
) -> tuple[Quality, Int[Tensor, "views time"]]:
    """The quality of every image, and its `Status`.

    Args:
        prediction: the fitted heads, batch axes `views time`; the camera projects to frame pixels.
        track: the landmarks that were fitted; its status says why frames have none.
        sizes_hw: frame height and width of every view.
        starts: the first frames of the shots.
    """
    observed = to_ibug68(track)
    found = observed.confidence > 0
    length_px = torch.maximum(
        outer_eye_distance_px(track), box_length_px(observed.points_px, observed.confidence) / BOX_OVER_EYES
    ).clamp(min=1.0)
    predicted_px = prediction.camera.project(landmarks68(head, prediction.params, track.scheme))
    error = (observed.points_px - predicted_px) / length_px[..., None, None]
    usable = track.usable
    residual = _residual(error, found, usable)
    # Frames that are bad already do not count for the frames beside them.
    sound = usable & (residual >= BAD_BELOW)
    place = observed.points_px / length_px[..., None, None]
    steadiness = _steadiness(place, error, found, usable, sound, starts)
    certainty = _certainty(track, length_px)
    inside = _inside(observed.points_px, found, predicted_px, sizes_hw)
    parts = torch.stack((residual, steadiness, certainty, inside))
    parts = parts.nan_to_num(0.0) * usable
    score = parts.amin(0)
    status = _status_of_missing(track, parts[3], starts)
    short_gap = status == Status.INTERPOLATED
    score = torch.where(short_gap, INTERPOLATED_SHARE * _score_beside(score, usable), score)
    by_part = (Status.POOR, Status.POOR, Status.OCCLUDED, Status.CUT_OFF)
    reason = torch.tensor([int(item) for item in by_part])[parts.argmin(0)]
    of_usable = torch.where(score >= BAD_BELOW, int(Status.FITTED), reason)
    names = ("residual", "steadiness", "certainty", "inside")
    quality = Quality(score=score, **dict(zip(names, parts, strict=True)))
    return quality, torch.where(usable, of_usable, status)


def _part(measure: Tensor, limit: float | Tensor) -> Tensor:
    return 1 / (1 + (measure / limit).clamp(min=0) ** SHARPNESS)


def _by_part(
    values: Float[Tensor, "views time 68 c"], found: Bool[Tensor, "views time 68"]
) -> Float[Tensor, "views time parts c"]:
    """The mean over the found points of every part of the face; NaN for a part without any."""
    means = []
    for points in PARTS_OF_FACE:
        seen = found[..., list(points), None].to(values)
        means.append((values[..., list(points), :] * seen).sum(-2) / seen.sum(-2))
    return torch.stack(means, -2)


def _usual(values: Float[Tensor, "views time *c"], usable: Bool[Tensor, "views time"]) -> Tensor:
    """The median over the usable frames of every view, for every frame alike; 0 without any."""
    mask = usable.view(*usable.shape, *(1,) * (values.dim() - 2))
    return values.masked_fill(~mask, torch.nan).nanmedian(1, keepdim=True).values.nan_to_num(0.0)


def _residual(
    error: Float[Tensor, "views time 68 2"],
    found: Bool[Tensor, "views time 68"],
    usable: Bool[Tensor, "views time"],
) -> Float[Tensor, "views time"]:
    distance = torch.linalg.vector_norm(error, dim=-1, keepdim=True)
    of_parts = _by_part(distance, found)[..., 0]
    # A part may always be off by a little, because a detector's points are not those of the head model.
    beyond = (of_parts - _usual(of_parts, usable)).nan_to_num(0.0).amax(-1)
    whole = (distance[..., 0] * found).sum(-1) / found.sum(-1).clamp(min=1)
    return torch.minimum(_part(beyond, RESIDUAL_LIMIT), _part(whole, NME_LIMIT))


def _steadiness(
    points: Float[Tensor, "views time 68 2"],
    error: Float[Tensor, "views time 68 2"],
    found: Bool[Tensor, "views time 68"],
    usable: Bool[Tensor, "views time"],
    sound: Bool[Tensor, "views time"],
    starts: Sequence[int],
) -> Float[Tensor, "views time"]:
    # Relative to the middle of the parts the motion of the whole head is gone; relative to the fitted head its
    # rotation is, too. A part that jumps does so in both, a head that turns quickly in one of them.
    place = _by_part(points, found)
    place = place - place.nanmedian(-2, keepdim=True).values
    jump = torch.minimum(*(_jump(values, sound, starts) for values in (place, _by_part(error, found))))
    # Where frames are far apart in time, or the landmarks noisy, all parts move.
    limit = torch.clamp(JUMPS_OVER_USUAL * _usual(jump, usable), min=JUMP_LIMIT)
    return _part((jump / limit).nan_to_num(0.0).amax(-1), 1.0)


def _jump(
    values: Float[Tensor, "views time parts 2"], sound: Bool[Tensor, "views time"], starts: Sequence[int]
) -> Float[Tensor, "views time parts"]:
    """Distance of every part from its place in the sound frames beside, of the same shot; NaN without any.

    Of four frames beside the second nearest counts: a bad one among them harms no good frame, and two bad frames in a
    row do not vouch for each other. Of one or two, as at the ends of a shot, the nearest counts.
    """
    time = sound.shape[1]
    shot = torch.searchsorted(torch.tensor(starts), torch.arange(time), right=True)
    beside = []
    for offset in (*range(-FRAMES_BESIDE, 0), *range(1, FRAMES_BESIDE + 1)):
        frame = torch.arange(time) + offset
        there = (frame >= 0) & (frame < time)
        frame = frame.clamp(0, time - 1)
        known = (there & (shot[frame] == shot)) & sound[:, frame]
        beside.append(values[:, frame].masked_fill(~known[..., None, None], torch.nan))
    distance = torch.linalg.vector_norm(torch.stack(beside) - values, dim=-1)
    known = distance.isfinite()
    nearest = distance.masked_fill(~known, torch.inf).sort(0).values
    chosen = torch.where(known.sum(0) > 2, nearest[1], nearest[0])
    return chosen.masked_fill(~known.any(0), torch.nan)


def _certainty(track: Track, length_px: Float[Tensor, "views time"]) -> Float[Tensor, "views time"]:
    confidence = track.confidence.mean(-1)
    usual = _usual(confidence, track.usable).clamp(min=torch.finfo(confidence.dtype).tiny)
    certainty = _part(1 - confidence / usual, UNCERTAIN_LIMIT)
    if track.uncertainty_px is None:
        return certainty
    deviation = track.uncertainty_px.median(-1).values / length_px
    limit = (DEVIATION_OVER_USUAL * _usual(deviation, track.usable)).clamp(*DEVIATION_LIMITS)
    return torch.minimum(certainty, _part(deviation, limit))


def _inside(
    points_px: Float[Tensor, "views time 68 2"],
    found: Bool[Tensor, "views time 68"],
    predicted_px: Float[Tensor, "views time 68 2"],
    sizes_hw: Sequence[tuple[int, int]],
) -> Float[Tensor, "views time"]:
    size_xy = points_px.new_tensor([(width, height) for height, width in sizes_hw])[:, None, None]

    def outside(points: Tensor) -> Tensor:
        return ((points < -0.5) | (points > size_xy - 0.5)).any(-1)

    # Detectors leave out points beyond the border, or move them onto it: the fitted head determines where they are.
    share = torch.maximum(
        (outside(points_px) & found).double().mean(-1), outside(predicted_px).double().mean(-1)
    )
    return _part(share, OUTSIDE_LIMIT).to(points_px)


def _status_of_missing(
    track: Track, inside: Float[Tensor, "views time"], starts: Sequence[int]
) -> Int[Tensor, "views time"]:
    """Why a frame has no landmarks: the track's status, or a short gap, or a face that has left the picture."""
    usable, time = track.usable, track.usable.shape[1]
    status = torch.full(usable.shape, int(Status.NO_FACE))
    if track.status is not None:
        status = torch.where(track.status == Status.FITTED, status, track.status)
    low, high = _boxes_px(track)
    centre, size = (low + high) / 2, (high - low).amax(-1)
    for view in range(len(usable)):
        for start, stop in zip(starts, (*starts[1:], time), strict=True):
            frames = (usable[view, start:stop].nonzero()[:, 0] + start).tolist()
            if not frames:
                continue
            for before, after in zip((None, *frames), (*frames, None), strict=True):
                first = start if before is None else before + 1
                gap = range(first, stop if after is None else after)
                if not gap:
                    continue
                ends = [end for end in (before, after) if end is not None]
                left = min(float(inside[view, end]) for end in ends) < BAD_BELOW
                if left:
                    new = Status.CUT_OFF
                elif before is not None and after is not None and len(gap) <= LONGEST_GAP:
                    moved = torch.linalg.vector_norm(centre[view, after] - centre[view, before])
                    if float(moved) > GAP_MOTION * float(size[view, before]):
                        continue
                    new = Status.INTERPOLATED
                else:
                    continue
                missing = torch.tensor(gap)
                readable = status[view, missing] != Status.UNREADABLE
                status[view, missing[readable]] = int(new)
    return status


def _boxes_px(track: Track) -> tuple[Float[Tensor, "views time 2"], Float[Tensor, "views time 2"]]:
    """The corners of the box around the landmarks of every image; infinite, and the wrong way round, without any."""
    low = track.points_px.new_empty(*track.usable.shape, 2)
    high = torch.empty_like(low)
    for start in range(0, low.shape[1], FRAMES_PER_PIECE):
        frames = slice(start, start + FRAMES_PER_PIECE)
        points_px, missing = track.points_px[:, frames], (track.confidence[:, frames] <= 0)[..., None]
        low[:, frames] = points_px.masked_fill(missing, torch.inf).amin(-2)
        high[:, frames] = points_px.masked_fill(missing, -torch.inf).amax(-2)
    return low, high


def _score_beside(
    score: Float[Tensor, "views time"], usable: Bool[Tensor, "views time"]
) -> Float[Tensor, "views time"]:
    """The lesser score of the nearest usable frames before and after; 1 where there is none."""
    time = score.shape[1]
    frame = torch.arange(time).expand(score.shape)
    before = torch.where(usable, frame, -1).cummax(1).values
    after = torch.where(usable, frame, time).flip(1).cummin(1).values.flip(1)
    padded = torch.nn.functional.pad(score, (1, 1), value=1.0)
    return torch.minimum(padded.gather(1, before + 1), padded.gather(1, after + 1))
