"""Videos of several cameras on one time line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from neuface.errors import InputError
from neuface.frames import check_range, check_view, files_of
from neuface.structs import FrameSource

ABSENT = -1
"""Stands for a frame that a view does not have."""
SAME_TIME_STEPS = 0.5
"""Bounds how far apart frames of one time are, in steps of the view to which they are matched."""
SAME_SPAN_STEPS = 1.5
"""Bounds the difference in length of videos that are taken to begin together, in steps of the slowest."""
MOST_ENCODER_DELAY_S = 0.15
"""Bounds the difference of the containers' first times that encoders cause; more than that is said by someone."""


@dataclass(frozen=True, kw_only=True)
class ViewTimes:
    """When one camera's frames were taken."""

    name: str
    timestamps_s: tuple[float, ...]
    """Seconds since the camera's first frame."""
    start_s: float
    """The first frame's time on the file's own clock."""
    step_s: float
    """The usual time between two frames."""


@dataclass(frozen=True, kw_only=True)
class TimeLine:
    """Which frame of every view belongs to which frame of the recording."""

    timestamps_s: tuple[float, ...]
    chosen: tuple[tuple[int, ...], ...]
    """For every view, the number of its frame at every frame of the recording, or `ABSENT`."""
    remarks: tuple[str, ...]


class AlignedViews:
    """Sources of one view each as the views of one recording; an absent frame is black."""

    def __init__(self, sources: Sequence[FrameSource], chosen: Sequence[Sequence[int]]) -> None:
        self._sources, self._chosen = tuple(sources), tuple(tuple(view) for view in chosen)
        self.views, self.time = len(self._sources), len(self._chosen[0])
        self.files = tuple(file for source in self._sources for file in files_of(source))

    def size_hw(self, view: int) -> tuple[int, int]:
        """Height and width of one camera's frames."""
        check_view(self, view)
        return self._sources[view].size_hw(0)

    def read(self, view: int, start: int, stop: int) -> UInt8[Tensor, "n h w 3"]:
        """The frames `start <= t < stop`."""
        check_range(self, view, start, stop)
        frames = torch.zeros((stop - start, *self.size_hw(view), 3), dtype=torch.uint8)
        for place, number in enumerate(self._chosen[view][start:stop]):
            if number != ABSENT:
                frames[place] = self._sources[view].read(0, number, number + 1)[0]
        return frames


def align(views: Sequence[ViewTimes], offsets_s: Sequence[int | float] | None = None) -> TimeLine:
    """One time line for the cameras of a recording.

    The slowest camera gives the times of the frames, the others the frame that is nearest in time. A frame that a
    camera missed (no frame within half a step) is absent there and stays in the others.

    Args:
        views: the frames of every camera.
        offsets_s: when each camera's first frame was taken, seconds on a common clock. None: the first frames belong
            together, which is believed of videos of equal length whose own clocks do not contradict.

    Raises:
        InputError: nothing says how the videos belong together, or they share no time.

    >>> fast = ViewTimes(name="a", timestamps_s=(0.0, 0.02, 0.04, 0.06), start_s=0.0, step_s=0.02)
    >>> slow = ViewTimes(name="b", timestamps_s=(0.0, 0.04), start_s=0.0, step_s=0.04)
    >>> align([fast, slow]).chosen
    ((0, 2), (0, 1))
    """
    slowest = max(views, key=lambda view: view.step_s)
    if offsets_s is None:
        _check_belong_together(views, slowest.step_s)
        offsets_s = [0.0] * len(views)
    if len(offsets_s) != len(views) or not np.isfinite(offsets_s).all():
        raise InputError(
            f"offsets_s: expected {len(views)} times in seconds, one per view, got {list(offsets_s)}"
        )
    times = [np.array(view.timestamps_s) + offset for view, offset in zip(views, offsets_s, strict=True)]
    if _one_clock(times, views):
        same = tuple(range(len(times[0])))
        # Equal up to the rounding of containers: the first view's own times are kept.
        return TimeLine(timestamps_s=views[0].timestamps_s, chosen=(same,) * len(views), remarks=())
    frame_times = _frame_times(times, views)
    chosen, largest_s = [], 0.0
    for own, view in zip(times, views, strict=True):
        nearest = np.abs(own[None] - frame_times[:, None]).argmin(1)
        distance = np.abs(own[nearest] - frame_times)
        absent = distance > SAME_TIME_STEPS * view.step_s * (1 + 1e-6)
        largest_s = max(largest_s, float(distance[~absent].max(initial=0.0)))
        chosen.append(tuple(np.where(absent, ABSENT, nearest).tolist()))
    if all(ABSENT in numbers and set(numbers) == {ABSENT} for numbers in chosen):
        raise InputError("the views share no time")
    return TimeLine(
        timestamps_s=tuple((frame_times - frame_times[0]).tolist()),
        chosen=tuple(chosen),
        remarks=tuple(_alignment_remarks(views, chosen, largest_s)),
    )


def _check_belong_together(views: Sequence[ViewTimes], slowest_step_s: float) -> None:
    """Raises InputError unless the videos have one length and their clocks begin together."""
    remedy = "say when each first frame was taken: offsets_s=(0.0, 0.48, ...)"
    lengths = [view.timestamps_s[-1] + view.step_s for view in views]
    if max(lengths) - min(lengths) > SAME_SPAN_STEPS * slowest_step_s:
        listed = ", ".join(
            f"{view.name}: {len(view.timestamps_s)} in {length:.2f} s"
            for view, length in zip(views, lengths, strict=True)
        )
        raise InputError(
            f"the views have different numbers of frames ({listed}); expected synchronised views of equal length: "
            f"cut them to the time they share, or {remedy}"
        )
    starts = [view.start_s for view in views]
    if max(starts) - min(starts) > max(MOST_ENCODER_DELAY_S, slowest_step_s):
        listed = ", ".join(f"{view.name}: {view.start_s:.3f} s" for view in views)
        raise InputError(
            f"the clocks of the videos begin at different times ({listed}), and whether they are one clock is not "
            f"known; {remedy}, or zeros if the first frames belong together"
        )


def _one_clock(times: Sequence[np.ndarray], views: Sequence[ViewTimes]) -> bool:
    """Whether frame by frame all views were taken together."""
    first = times[0]
    if any(len(own) != len(first) for own in times):
        return False
    return all(
        bool((np.abs(own - first) <= SAME_TIME_STEPS / 2 * view.step_s).all())
        for own, view in zip(times, views, strict=True)
    )


def _frame_times(times: Sequence[np.ndarray], views: Sequence[ViewTimes]) -> np.ndarray:
    """The slowest view's times within the span that all share; its gaps are filled with even steps."""
    begin, end = max(own[0] for own in times), min(own[-1] for own in times)
    if end < begin:
        spans = ", ".join(
            f"{view.name}: {own[0]:.2f} to {own[-1]:.2f} s" for own, view in zip(times, views, strict=True)
        )
        raise InputError(f"the views share no time ({spans}); check offsets_s")
    slowest = max(range(len(views)), key=lambda index: views[index].step_s)
    own, step_s = times[slowest], views[slowest].step_s
    filled: list[float] = [float(own[0])]
    for time in own[1:]:
        steps = round((time - filled[-1]) / step_s)
        filled += np.linspace(filled[-1], time, max(steps, 1) + 1)[1:].tolist()
    frame_times = np.array(filled)
    slack = SAME_TIME_STEPS * min(view.step_s for view in views)
    return frame_times[(frame_times >= begin - slack) & (frame_times <= end + slack)]


def _alignment_remarks(
    views: Sequence[ViewTimes], chosen: Sequence[Sequence[int]], largest_s: float
) -> list[str]:
    count = len(chosen[0])
    texts = [f"the views are matched by time: {count} frames, views at most {largest_s * 1000:.0f} ms apart"]
    for view, numbers in zip(views, chosen, strict=True):
        absent = sum(number == ABSENT for number in numbers)
        if absent:
            texts.append(f"{view.name}: misses {absent} of {count} frames")
    return texts
