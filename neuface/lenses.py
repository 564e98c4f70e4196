"""The lenses of recordings: what is known of their focal lengths, and the estimate of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from neuface.encoders.calibration import EncoderCalibration
from neuface.errors import InputError
from neuface.fitting.config import FitConfig, PinholeCamera
from neuface.fitting.lens import FocalLength, Lens, SeenThroughLens, make_lens
from neuface.fitting.parameterisation import Parameterisation, predict_clip
from neuface.fitting.person.focal import LOG_FOCAL_STD, estimate_focal
from neuface.fitting.problem import Problem
from neuface.frames import Recording
from neuface.geometry.perspective import FOCAL_BOUNDS
from neuface.head.model import HeadModel
from neuface.io.focal_lengths import stated_focal_px
from neuface.model_inputs import ModelInputs

__all__ = ["through_lenses"]

USUAL_FOCAL = 1.2
"""Prior mean of a focal length, in longer sides of the frame: between those of phones and webcams, about 0.7 to 0.9,
and those of lenses for portraits, 2 and more."""


def through_lenses(
    encoder: Parameterisation,
    head: HeadModel,
    problem: Problem,
    clips: Sequence[ModelInputs],
    config: FitConfig,
    *,
    calibration: EncoderCalibration,
) -> tuple[SeenThroughLens, tuple[tuple[FocalLength, ...], ...]]:
    """The encoder's heads before perspective cameras, and the focal lengths of every clip's cameras.

    What `PinholeCamera` gives comes first, then the calibration, then what the footage says of itself; other focal
    lengths are estimated from the landmarks (`neuface.fitting.person.focal`).

    Args:
        problem: the observations of all clips, one after the other.

    Raises InputError for a given focal length that no camera with such frames has.
    """
    assert isinstance(config.camera, PinholeCamera), "a weak-perspective camera has no focal length"
    given = config.camera.focal_px
    known = [_known(clip.recording, given) for clip in clips]
    usual = [
        tuple(
            FocalLength(px=USUAL_FOCAL * max(size), source="landmarks", relative_std=LOG_FOCAL_STD)
            if length is None
            else length
            for length, size in zip(lengths, clip.recording.sizes_hw, strict=True)
        )
        for lengths, clip in zip(known, clips, strict=True)
    ]
    seen = SeenThroughLens(encoder, head, _lens(clips, usual))
    if all(length is not None for lengths in known for length in lengths):
        return seen, tuple(usual)
    shape = (problem.views, problem.time)
    initial = predict_clip(seen, shape, config.m_step.images_at_once, problem.valid.device)
    found, start = [], 0
    for lengths, before, clip in zip(known, usual, clips, strict=True):
        span = slice(start, start + clip.recording.time)
        start = span.stop
        of_clip = replace(problem.cut(span.start, span.stop), starts=clip.recording.shot_starts)
        if not bool(of_clip.valid.any()):
            found.append(before)
            continue
        unknown = torch.tensor([length is None for length in lengths])
        estimate = estimate_focal(head, initial[:, span], of_clip, unknown, calibration=calibration)
        found.append(
            tuple(
                length
                if length.source != "landmarks"
                else replace(length, px=length.px * factor, relative_std=deviation)
                for length, factor, deviation in zip(
                    before, estimate.factor.tolist(), estimate.log_std.tolist(), strict=True
                )
            )
        )
    return SeenThroughLens(encoder, head, _lens(clips, found)), tuple(found)


def _known(recording: Recording, given: float | None) -> list[FocalLength | None]:
    """What is known of every camera's focal length without looking at the pictures."""
    if given is not None:
        for name, size_hw in zip(recording.names, recording.sizes_hw, strict=True):
            shortest, longest = (bound * max(size_hw) for bound in FOCAL_BOUNDS)
            if not shortest <= given <= longest:
                raise InputError(
                    f"focal length: expected {shortest:.0f} to {longest:.0f} pixels for the frames of {name}, got "
                    f"{given:g}"
                )
        return [FocalLength(px=given, source="given")] * recording.views
    if recording.cameras is not None:
        lengths_px = recording.cameras.K.diagonal(dim1=-2, dim2=-1)[:, :2].prod(-1).sqrt().tolist()
        return [FocalLength(px=px, source="calibration") for px in lengths_px]
    stated = stated_focal_px(recording.frames)
    return [None if px is None else FocalLength(px=px, source="footage") for px in stated]


def _lens(clips: Sequence[ModelInputs], focal: Sequence[Sequence[FocalLength]]) -> Lens:
    """The lenses of all images, clip after clip; uncalibrated ones have their optical axis in the frame's centre."""
    lenses = []
    for clip, lengths in zip(clips, focal, strict=True):
        centre_px = torch.tensor([((w - 1) / 2, (h - 1) / 2) for h, w in clip.recording.sizes_hw])
        if clip.recording.cameras is not None:
            centre_px = clip.recording.cameras.K[:, :2, 2].to(centre_px)
        lenses.append(make_lens(torch.tensor([length.px for length in lengths]), centre_px, clip.crops))
    return Lens.cat(lenses, dim=1)
