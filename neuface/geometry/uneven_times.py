"""Trajectories whose frames are not evenly spaced in time, for filters that count frames.

Times are in units of the usual step between frames, so that an even clip has the times 0, 1, 2, ...
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

EVEN_STEP_TOLERANCE = 0.25
"""Bounds how far a step may be from a whole number of usual steps to count as that number; containers with
milliseconds round the steps of 240 frames/s by 0.12."""
LONGEST_GAP = 100.0
"""Bounds a gap that is filled, usual steps; no filter's window reaches across it."""


def frame_times_of(timestamps_s: Sequence[float]) -> tuple[float, ...] | None:
    """Times in units of the usual step; None if the frames are evenly spaced.

    >>> frame_times_of([0.0, 0.04, 0.08, 0.2])
    (0.0, 1.0, 2.0, 5.0)
    >>> frame_times_of([0.0, 0.033, 0.067, 0.1]) is None
    True
    """
    times = torch.tensor(timestamps_s, dtype=torch.float64)
    if len(times) < 3:
        return None
    steps = times.diff()
    # The lower of two middle steps: a gap is no usual step.
    steps = steps / steps.median()
    whole = steps.round().clamp(min=1)
    steps = torch.where((steps - whole).abs() <= EVEN_STEP_TOLERANCE, whole, steps)
    if bool((steps == 1).all()):
        return None
    return (0.0, *steps.cumsum(0).tolist())


def on_even_grid(
    smoother: Callable[[Tensor], Tensor], values: Float[Tensor, "*batch time c"], frame_times: Sequence[float]
) -> Float[Tensor, "*batch time c"]:
    """A filter of even frames applied to uneven ones: interpolated to an even grid, filtered, interpolated back.

    Frames that lie on the grid are filtered as if the missing ones between them had been there, on the line between
    their neighbours.

    >>> line = torch.tensor([[0.0], [1.0], [4.0], [5.0]])
    >>> on_even_grid(lambda even: even[..., :1, :] + torch.arange(6.0)[:, None], line, [0.0, 1.0, 4.0, 5.0])[:, 0]
    tensor([0., 1., 4., 5.])
    """
    times = torch.tensor(frame_times, dtype=torch.float64)
    steps = times.diff().clamp(max=LONGEST_GAP)
    if len(times) < 2 or bool((steps == 1).all()):
        return smoother(values)
    times = torch.cat([times.new_zeros(1), steps.cumsum(0)])
    grid = torch.arange(int(times[-1].ceil()) + 1, dtype=torch.float64)
    return _interpolated(smoother(_interpolated(values, times, grid)), grid, times)


def _interpolated(
    values: Float[Tensor, "*batch time c"], times: Float[Tensor, " time"], wanted: Float[Tensor, " other"]
) -> Float[Tensor, "*batch other c"]:
    """The values at other times, on straight lines; the last line goes on behind its end."""
    before = (torch.searchsorted(times, wanted, right=True) - 1).clamp(0, len(times) - 2)
    weight = (wanted - times[before]) / (times[before + 1] - times[before])
    first, second = before.to(values.device), (before + 1).to(values.device)
    return torch.lerp(values[..., first, :], values[..., second, :], weight.to(values)[:, None])
