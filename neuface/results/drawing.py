"""A result drawn over its frames."""

from __future__ import annotations

import os
from collections.abc import Iterator

from jaxtyping import UInt8
from torch import Tensor

from neuface.devices import one_thread_per_operation
from neuface.errors import InputError
from neuface.frames import files_of
from neuface.head.model import HeadModel
from neuface.results.fit_result import FitResult
from neuface.structs import (
    FrameSource,
)


def overlay_pictures(
    result: FitResult, head: HeadModel, frames: FrameSource | None = None
) -> Iterator[UInt8[Tensor, "_ _ 3"]]:
    """One picture per time: each view is a row of the frame, the encoder's mesh and the optimised mesh.

    Args:
        result: the fit of a clip.
        head: the model of its parameters.
        frames: the frames of the clip; None takes those that the result holds.

    Raises:
        InputError: a result that was read from a file holds no frames, or the given ones are of another clip.
    """
    # On use: drawing loads the renderer.
    from neuface.viz.overlay_video import overlay_frames

    source = frames_of(result, frames)
    yield from overlay_frames(source, head, {"encoder alone": result.initial, "optimised": result.prediction})


def frames_of(result: FitResult, frames: FrameSource | None = None) -> FrameSource:
    """The frames of the clip of a result: the given ones, or those that the result holds.

    Raises InputError if there are none, or if they are of another clip.
    """
    source = frames or result.frames
    if source is None:
        raise InputError(
            "this result was loaded from a file and does not hold its video; give it again: "
            "overlay(path, frames=neuface.read_clip('talk.mp4', landmarks=...).recording.frames), or for other uses "
            "dataclasses.replace(result, frames=...)"
        )
    sizes_hw = tuple(tuple(source.size_hw(view)) for view in range(source.views))
    if source.time != result.status.shape[1] or sizes_hw != result.frame_sizes_hw:
        raise InputError(
            f"the video has {source.time} frames of (height, width) {sizes_hw}, but the result has "
            f"{result.status.shape[1]} frames of {result.frame_sizes_hw}: give the video that was fitted"
        )
    return source


@one_thread_per_operation()
def write_overlay(
    result: FitResult,
    head: HeadModel,
    path: str | os.PathLike[str],
    frames: FrameSource | None = None,
    *,
    progress: bool = False,
) -> None:
    """Write `overlay_pictures` as an mp4, with a progress bar if asked for."""
    # On use: both load slowly, and most results are never drawn.
    from tqdm import tqdm

    from neuface.io.atomic import check_is_no_input
    from neuface.io.video import write_video

    source = frames or result.frames
    check_is_no_input(path, () if source is None else files_of(source))
    pictures = tqdm(
        overlay_pictures(result, head, frames),
        total=result.status.shape[1],
        desc="overlay",
        unit="frame",
        disable=not progress,
    )
    write_video(path, pictures, result.fps, timestamps_s=result.timestamps_s.tolist())
