"""The E-step: what it starts from, and the targets that it makes for the terms of the objective (paper, Sec. 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from neuface.errors import InputError
from neuface.fitting.problem import Problem
from neuface.fitting.smoothing import LocalQuadratic, ReleasedMean, Smoother
from neuface.geometry.interpolation import interpolate_missing
from neuface.geometry.rotations import continuous_signs, rotvec_to_quaternion
from neuface.geometry.uneven_times import on_even_grid
from neuface.head.model import HeadModel
from neuface.losses import log_scale
from neuface.settings import Setting
from neuface.structs import Camera, HeadParams, Prediction, TensorStruct


@dataclass(frozen=True, kw_only=True)
class EStep(Setting):
    """How trajectories are smoothed, for the terms that have smoothed targets."""

    smoothing: Smoother = LocalQuadratic()
    """The filter."""
    interpolate_missing: bool = True
    """Trajectories are interpolated through frames without landmarks; otherwise their predictions count, too."""


@dataclass(frozen=True, kw_only=True)
class Target(TensorStruct):
    """What a term compares the predictions of a clip with."""

    value: Any
    """A tensor, or a noun of tensors, whose leading axes `per` names; None for a term that needs no target."""
    per: Literal["image", "frame", "clip"]
    """Leading axes of the value: `views time`, `time`, or none."""

    def of_images(self, index: Int[Tensor, " images"], time: int) -> Any:
        """The value for some images of the flattened (views, time) clip; for the clip's value, that value."""
        if self.value is None or self.per == "clip":
            return self.value
        if self.per == "frame":
            return self.value[index % time]
        flat = self.value.flatten(0, 1) if isinstance(self.value, Tensor) else self.value.flatten_batch(2)
        return flat[index]


NO_TARGET = Target(value=None, per="clip")
"""Of terms that compare predictions with observations or with a constant."""
Targets = dict[str, Target]
"""The targets of a clip by the names of their terms; terms that do not apply to the clip are missing."""


@dataclass(frozen=True, kw_only=True)
class Priors:
    """What is known about the person before the first gradient step."""

    identity: Float[Tensor, " identity"]
    """The mean of the identity prior."""
    expression_points: Float[Tensor, "time points 3"] | None = None
    """`expression_landmarks` of the most probable expressions; None if they were not estimated."""


@dataclass(frozen=True, kw_only=True)
class ClipState:
    """The current predictions for a clip, or for a chunk of it: what the E-step makes targets of."""

    head: HeadModel
    prediction: Prediction
    """Batch axes `views time`; the targets carry a gradient where it does."""
    problem: Problem
    e_step: EStep
    segments: tuple[int, ...]
    """First frames of the pieces that are smoothed alone."""
    priors: Priors

    @property
    def params(self) -> HeadParams:
        return self.prediction.params

    @property
    def known(self) -> Bool[Tensor, "views time"]:
        """The frames whose predictions are part of a trajectory."""
        valid = self.problem.valid
        return valid if self.e_step.interpolate_missing else torch.ones_like(valid)

    def smoothed_rotations(self, rotvec: Float[Tensor, "views time 3"]) -> Float[Tensor, "views time 4"]:
        """A trajectory of rotation vectors, smoothed as quaternions."""
        quaternion = rotvec_to_quaternion(rotvec)
        if not bool(self.known.all()):
            quaternion = normalize(
                interpolate_missing(continuous_signs(quaternion), self.known, self.segments), dim=-1
            )
        if self.problem.frame_times is None:
            return self.e_step.smoothing.rotations(quaternion, self.segments)
        smoothed = _smoothed_in_time(
            continuous_signs(quaternion),
            lambda piece: self.e_step.smoothing.rotations(normalize(piece, dim=-1), (0,)),
            self.segments,
            self.problem.frame_times,
        )
        return normalize(smoothed, dim=-1)

    def smoothed_values(self, values: Float[Tensor, "views time c"]) -> Float[Tensor, "views time c"]:
        """A trajectory of values, every channel smoothed.

        Raises InputError if the filter is for rotations only.
        """
        values = interpolate_missing(values, self.known, self.segments)
        return smooth_values(self.e_step.smoothing, values, self.segments, self.problem.frame_times)

    def smoothed_camera(self) -> Camera:
        """The camera smoothed in frame pixels, because crops move and change size, then in each crop's units."""
        camera, problem = self.prediction.camera, self.problem
        per_px, centre = problem.ndc_per_frame_px, problem.centre_px
        log_size = log_scale(camera.magnification) - per_px.log()
        position_px = centre + camera.position / per_px[..., None]
        size = self.smoothed_values(log_size[..., None])[..., 0].exp()
        position = self.smoothed_values(position_px)
        return camera.placed((position - centre) * per_px[..., None], size * per_px)


def smooth_values(
    smoother: Smoother,
    values: Float[Tensor, "views time c"],
    segments: tuple[int, ...],
    frame_times: tuple[float, ...] | None,
) -> Float[Tensor, "views time c"]:
    """A trajectory without missing frames, every channel smoothed.

    Args:
        segments: the first frames of the pieces that are smoothed alone.
        frame_times: when the frames were taken, as in `Problem`.

    Raises:
        InputError: the filter is for rotations only.
    """
    if isinstance(smoother, ReleasedMean):
        raise InputError("ReleasedMean smooths rotations only: choose another EStep.smoothing")
    if frame_times is None:
        return smoother.values(values, segments)
    return _smoothed_in_time(values, lambda piece: smoother.values(piece, (0,)), segments, frame_times)


def _smoothed_in_time(
    values: Float[Tensor, "views time c"],
    smoother: Callable[[Tensor], Tensor],
    segments: tuple[int, ...],
    frame_times: tuple[float, ...],
) -> Float[Tensor, "views time c"]:
    """Every segment smoothed alone, with the real times of its frames."""
    pieces = []
    for start, end in pairwise((*segments, values.shape[1])):
        pieces.append(on_even_grid(smoother, values[:, start:end], frame_times[start:end]))
    return torch.cat(pieces, 1)


def expression_landmarks(
    head: HeadModel, params: HeadParams, scheme: str
) -> Float[Tensor, "*batch points 3"]:
    """Landmarks of the unposed mean face with this expression and jaw, metres."""
    zero = torch.zeros_like(params.root_rotvec)
    neutral_pose = replace(
        params, identity=torch.zeros_like(params.identity), root_rotvec=zero, neck_rotvec=zero
    )
    return head.landmarks(neutral_pose, scheme)


def smoothing_starts(starts: Sequence[int], time: int, chunk_frames: int | None) -> tuple[int, ...]:
    """First frames of the pieces that are smoothed alone: the clips that were joined, or chunks of them."""
    if chunk_frames is None:
        return tuple(starts)
    ends = (*starts[1:], time)
    return tuple(
        first for start, end in zip(starts, ends, strict=True) for first in range(start, end, chunk_frames)
    )
