"""The observations of a clip as the loop sees them: tensors on one device, in the units of the crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuface.errors import InputError
from neuface.geometry.perspective import PerspectiveCamera
from neuface.structs import Crop, Scheme, TensorStruct, Track


@dataclass(frozen=True, kw_only=True)
class Problem(TensorStruct):
    """What is known about every image of a clip.

    Landmarks stay in pixels of the frame, where the track of a long clip has them in memory already.
    """

    observed_px: Float[Tensor, "views time points 2"]
    confidence: Float[Tensor, "views time points"]
    """0 for every point of a frame that is not valid."""
    valid: Bool[Tensor, "views time"]
    scheme: Scheme
    ndc_per_frame_px: Float[Tensor, "views time"]
    """Crop half-widths per pixel of the frame."""
    centre_px: Float[Tensor, "views time 2"]
    """The frame position of the crop's centre."""
    pictures: Float[Tensor, "views time 3 side side"] | None = None
    """RGB crops, 0 to 1, for the photometric term; None without it."""
    cameras: PerspectiveCamera | None = None
    """The calibrated cameras of the images, batch axes `views time`; None if they are not known."""
    starts: tuple[int, ...] = (0,)
    """First frames of the shots, and of the clips that were joined along time; trajectories are not smoothed across
    them."""
    frame_times: tuple[float, ...] | None = None
    """When each frame was taken, in units of the usual step between frames; None if they are evenly spaced."""

    @classmethod
    def in_one_crop(
        cls,
        *,
        observed_ndc: Float[Tensor, "views time points 2"],
        confidence: Float[Tensor, "views time points"],
        valid: Bool[Tensor, "views time"],
        scheme: Scheme,
    ) -> Problem:
        """Observations in crops that neither move nor change their size, whose half-width is the frame's unit."""
        return cls(
            observed_px=observed_ndc,
            confidence=confidence,
            valid=valid,
            scheme=scheme,
            ndc_per_frame_px=torch.ones_like(observed_ndc[..., 0, 0]),
            centre_px=torch.zeros_like(observed_ndc[..., 0, :]),
        )

    def observed_ndc(self, index: Int[Tensor, " images"]) -> Float[Tensor, "images points 2"]:
        """The landmarks of some images of the flattened (views, time) clip, crop half-widths."""
        from_centre = self.observed_px.flatten(0, 1)[index] - self.centre_px.flatten(0, 1)[index][:, None]
        return from_centre * self.ndc_per_frame_px.flatten()[index][:, None, None]

    @property
    def views(self) -> int:
        return self.valid.shape[0]

    @property
    def time(self) -> int:
        return self.valid.shape[1]

    def cut(self, start: int, end: int) -> Problem:
        """The frames `start` to `end` of all views."""
        frame_times = None if self.frame_times is None else self.frame_times[start:end]
        starts = (0, *(first - start for first in self.starts if start < first < end))
        return replace(
            self.map_tensors(lambda tensor: tensor[:, start:end]), starts=starts, frame_times=frame_times
        )


def make_problem(
    landmarks: Track,
    crops: Crop,
    valid: Bool[Tensor, "views time"],
    *,
    use_confidence: bool = True,
    starts: tuple[int, ...] = (0,),
    frame_times: tuple[float, ...] | None = None,
    cameras: PerspectiveCamera | None = None,
) -> Problem:
    """The observations of a track, with confidence 0 in the frames that cannot be used.

    Without `use_confidence`, every landmark that was found has the same weight. `starts` are the first frames of the
    shots, `frame_times` the times in usual steps if they are uneven, `cameras` the calibration of each view.
    """
    confidence = landmarks.confidence
    if not use_confidence:
        confidence = (confidence > 0).to(confidence.dtype)
    # The track's own tensors are used where they can be: copies of all landmarks of a long clip are large.
    if bool((confidence.any(-1) & ~valid).any()):
        confidence = confidence * valid[..., None]
    observed_px = landmarks.points_px
    exact = crops.to(torch.float64)
    centre_px = exact.ndc_to_frame(exact.T_crop_frame.new_zeros(*valid.shape, 1, 2))[..., 0, :]
    return Problem(
        observed_px=observed_px,
        confidence=confidence,
        valid=valid,
        scheme=landmarks.scheme,
        ndc_per_frame_px=exact.ndc_per_frame_px.to(observed_px),
        centre_px=centre_px.to(observed_px),
        cameras=None if cameras is None else at_every_time(cameras.to(observed_px), valid.shape[1]),
        starts=starts,
        frame_times=frame_times,
    )


def at_every_time(cameras: PerspectiveCamera, time: int) -> PerspectiveCamera:
    """The cameras of the views with the axes of the images, `views time`."""
    return cameras.map_tensors(lambda tensor: tensor[:, None].expand(-1, time, *tensor.shape[1:]))


def join_problems(problems: Sequence[Problem]) -> Problem:
    """Several clips one after the other, with a cut between them; calibrated if all are.

    Raises InputError unless all have the same number of views.
    """
    if len(problems) == 1:
        return problems[0]
    views = sorted({problem.views for problem in problems})
    if len(views) != 1:
        raise InputError(
            f"clips that are fitted together must have the same number of cameras, got {', '.join(map(str, views))}: "
            "fit those with other numbers of cameras in calls of their own"
        )
    ends = list(accumulate(problem.time for problem in problems))
    offsets = (0, *ends[:-1])
    starts = tuple(
        offset + start for offset, problem in zip(offsets, problems, strict=True) for start in problem.starts
    )
    frame_times = None
    if any(problem.frame_times is not None for problem in problems):
        # Nothing is smoothed across the joints, so that every clip may begin at 0.
        frame_times = tuple(
            float(time) for problem in problems for time in problem.frame_times or range(problem.time)
        )
    if any(problem.cameras is None for problem in problems):
        problems = [replace(problem, cameras=None) for problem in problems]
    return replace(Problem.cat(problems, dim=1), starts=starts, frame_times=frame_times)
