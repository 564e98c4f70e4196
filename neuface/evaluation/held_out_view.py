"""The held-out-view error: how well a head fitted to some cameras explains another one, by its pose alone.

A camera that took no part in the fit sees the same face from another side. Identity and expression come from the
other views, so an error of depth shows as landmarks that no pose can explain. The error tests shape on real
footage, where the true shape is unknown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm

from neuface import metrics
from neuface.cropping import steady_crops
from neuface.errors import InputError
from neuface.evaluation.common_heads import common_heads
from neuface.evaluation.figures import image_nme_percent
from neuface.fitting.pose_only import resect
from neuface.frames import Clip
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import IBUG68, INNER51, to_ibug68
from neuface.structs import Prediction, Track


@runtime_checkable
class ClipFit(Protocol):
    """What is read from the fit of a clip; `neuface.FitResult` has it."""

    @property
    def initial(self) -> Prediction:
        """The predictions of the pretrained encoder, batch axes `views time`."""
        ...

    @property
    def prediction(self) -> Prediction:
        """The fitted predictions, batch axes `views time`."""
        ...

    @property
    def valid(self) -> Bool[Tensor, "views time"]:
        """Images that have landmarks."""
        ...

    @property
    def seconds(self) -> float:
        """Wall time of the fit."""
        ...


@runtime_checkable
class FitClip(Protocol):
    """How a clip is fitted, such as `lambda clip: neuface.optimize(clip, model=model, config=config)`."""

    def __call__(self, clip: Clip, /) -> ClipFit:
        """The fit of all views of `clip`."""
        ...


@dataclass(frozen=True, kw_only=True)
class ViewErrors:
    """Errors of every view while it was left out, inner 51 points, percent; NaN where a frame cannot be judged."""

    nme51_percent: Float[Tensor, "views time"]
    """In percent of the distance of the outer eye corners in the image, as elsewhere in the package. A profile
    shortens that distance, which raises the error in percent."""
    nme51_head_percent: Float[Tensor, "views time"]
    """In percent of the distance of the head's outer eye corners in 3D, at the scale of the camera: an error of one
    millimetre has the same value from every side."""


@dataclass(frozen=True, kw_only=True)
class HeldOutView:
    """The errors of each view, measured with heads that were fitted to the other views."""

    names: tuple[str, ...]
    """One name per view."""
    initial: ViewErrors
    """Errors of the pretrained encoder's predictions for the other views."""
    fitted: ViewErrors
    """Errors of the fits to the other views."""
    seconds: tuple[float | None, ...]
    """Wall time of each fit; None where the view or all others lack landmarks, so that no fit was made."""


def leave_one_view_out(clip: Clip, head: HeadModel, fit: FitClip, *, progress: bool = True) -> HeldOutView:
    """Fit a clip once without each of its views and measure the fit on the view that was left out.

    Args:
        clip: at least two views.
        head: the head model that `fit` fits.
        fit: fits the remaining views, such as a call of `neuface.optimize` with a model and a configuration.
        progress: show a progress bar, one step per fit.

    Raises:
        InputError: the clip has a single view; or as `fit` raises.
    """
    if clip.views < 2:
        raise InputError("leaving a view out needs a clip of at least two views, got one")
    if clip.track.scheme.name not in head.embeddings:
        clip = replace(clip, track=to_ibug68(clip.track))
    initial, fitted, seconds = [], [], []
    unknown = torch.full((2, clip.time), math.nan)
    views = tqdm(range(clip.views), desc="views left out", unit="fit", disable=not progress)
    for view in views:
        others = without_view(clip, view)
        if not bool(clip.track.usable[view].any() and others.track.usable.any()):
            found = (unknown, unknown, None)
        else:
            result = fit(others)
            landmarks = clip.track[view : view + 1]
            errors = [
                _both(held_out_view_error(head, prediction, result.valid, landmarks))
                for prediction in (result.initial, result.prediction)
            ]
            found = (*errors, result.seconds)
        initial.append(found[0])
        fitted.append(found[1])
        seconds.append(found[2])
    return HeldOutView(
        names=clip.recording.names, initial=_stacked(initial), fitted=_stacked(fitted), seconds=tuple(seconds)
    )


def held_out_view_error(
    head: HeadModel,
    prediction: Prediction,
    valid: Bool[Tensor, "others time"],
    landmarks: Track,
) -> ViewErrors:
    """The error, in the view left out, of heads that were fitted without it.

    The identity code is the mean over the images with landmarks; the expression, neck, jaw and eyes of a frame are
    the means over the views that saw the face in it. Only orientation and camera are fitted to the view's own
    landmarks (`neuface.fitting.pose_only`). The error is NaN in frames that no other view saw, and in frames with
    fewer than six landmarks.

    Args:
        prediction: batch axes `others time`.
        valid: images of the fit that had landmarks.
        landmarks: those of the view that was left out, frame pixels, as their only view: `clip.track[2:3]`.

    Raises:
        InputError: the landmarks are of several views or another number of frames; no image is valid; or the head
            lacks the landmarks' scheme.
    """
    views, time = landmarks.confidence.shape[:2]
    if (views, time) != (1, valid.shape[1]):
        raise InputError(
            f"held_out_view_error: landmarks of {views} view(s) of {time} frame(s); expected the view left out "
            f"alone, with the fit's {valid.shape[1]} frame(s)"
        )
    if not bool(valid.any()):
        raise InputError(
            "held_out_view_error: the fit has no image with landmarks, so there is no head to test"
        )
    heads = common_heads(prediction.params, valid)
    # The pose is fitted in a square around the face. The frame's size, here any, would matter without landmarks only.
    crops = steady_crops(landmarks, [(1, 1)])
    observed = crops.frame_to_ndc(landmarks.points_px)[0]
    confidence = landmarks.confidence[0] * valid.any(0)[:, None]
    in_crop = resect(head, heads, observed, confidence, landmarks.scheme.name).prediction[None]
    posed = crops.prediction_in_frame(in_crop)
    return ViewErrors(
        nme51_percent=image_nme_percent(head, posed, landmarks, inner_only=True),
        nme51_head_percent=_head_nme_percent(head, posed, landmarks),
    )


def view_means(errors: Float[Tensor, "views time"]) -> tuple[float | None, ...]:
    """Mean over the frames of each view; None for a view of which no frame could be judged.

    >>> import torch
    >>> view_means(torch.tensor([[1.0, 3.0, torch.nan], [torch.nan] * 3]))
    (2.0, None)
    """
    return tuple(None if math.isnan(mean) else mean for mean in errors.nanmean(1).tolist())


def mean_over_views(errors: Float[Tensor, "views time"]) -> float | None:
    """Mean of `view_means`, over the views that have one; None if none has.

    >>> import torch
    >>> mean_over_views(torch.tensor([[1.0, 3.0, torch.nan], [5.0, torch.nan, torch.nan]]))
    3.5
    """
    known = [mean for mean in view_means(errors) if mean is not None]
    return sum(known) / len(known) if known else None


def without_view(clip: Clip, view: int) -> Clip:
    """The clip without one of its views.

    Raises:
        InputError: the clip lacks that view, or has no other one.
    """
    if not 0 <= view < clip.views or clip.views < 2:
        raise InputError(f"view {view} cannot be left out of a clip of {clip.views} view(s)")
    kept = [number for number in range(clip.views) if number != view]
    return Clip(recording=clip.recording.some_views(kept), track=clip.track[kept])


def _head_nme_percent(head: HeadModel, posed: Prediction, landmarks: Track) -> Float[Tensor, "1 time"]:
    """NME of the inner 51 points in percent of the eye corners' distance in 3D, at the scale of the camera."""
    scheme = landmarks.scheme
    points = head.landmarks(posed.params, scheme.name)[..., list(scheme.to_ibug68), :]
    observed = to_ibug68(landmarks)
    right, left = points[..., list(IBUG68.outer_eyes), :].unbind(-2)
    apart_px = torch.linalg.vector_norm(left - right, dim=-1) * posed.camera.magnification
    return metrics.nme_percent(
        posed.camera.project(points)[..., INNER51, :],
        observed.points_px[..., INNER51, :],
        observed.confidence[..., INNER51],
        apart_px,
    )


def _both(errors: ViewErrors) -> Float[Tensor, "2 time"]:
    return torch.cat((errors.nme51_percent, errors.nme51_head_percent))


def _stacked(rows: list[Tensor]) -> ViewErrors:
    both = torch.stack(rows, 1)
    return ViewErrors(nme51_percent=both[0], nme51_head_percent=both[1])
