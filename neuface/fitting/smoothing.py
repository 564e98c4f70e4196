"""How the E-step smooths trajectories: one class for every filter of `neuface.geometry.smoothing`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from neuface.geometry.smoothing import released_window_mean, smooth, smooth_quaternions
from neuface.settings import OddCount, Setting


@dataclass(frozen=True, kw_only=True)
class WindowFilter(Setting):
    """A filter that looks at a centred window of frames."""

    kind: ClassVar[str]
    """The filter's name in `neuface.geometry.smoothing`, where the formula stands."""
    linear: ClassVar[bool] = True
    """Whether the smoothed trajectory is a linear function of the trajectory."""
    window: OddCount = 7
    """Frames that the filter looks at, odd."""

    def values(
        self, trajectory: Float[Tensor, "views time c"], segments: tuple[int, ...]
    ) -> Float[Tensor, "views time c"]:
        """Every channel smoothed over time, within the segments that start at these frames."""
        return smooth(trajectory, self.window, self.kind, segments)

    def rotations(
        self, quaternion: Float[Tensor, "views time 4"], segments: tuple[int, ...]
    ) -> Float[Tensor, "views time 4"]:
        """Unit quaternions smoothed over time (the target of Eq. 3), within the segments."""
        return smooth_quaternions(quaternion, self.window, self.kind, segments)


@dataclass(frozen=True, kw_only=True)
class LocalQuadratic(WindowFilter):
    """The value of the parabola that fits the window best: motion of constant acceleration stays unchanged."""

    kind: ClassVar[str] = "local_quadratic"


@dataclass(frozen=True, kw_only=True)
class MovingMean(WindowFilter):
    """The mean of the window (paper)."""

    kind: ClassVar[str] = "mean"
    window: OddCount = 5


@dataclass(frozen=True, kw_only=True)
class MovingMedian(WindowFilter):
    """The median of the window (paper, Table S2)."""

    kind: ClassVar[str] = "median"
    linear: ClassVar[bool] = False
    window: OddCount = 5


@dataclass(frozen=True, kw_only=True)
class Gaussian(WindowFilter):
    """The mean of the window with Gaussian weights, whose standard deviation is a quarter of the window."""

    kind: ClassVar[str] = "gaussian"


@dataclass(frozen=True, kw_only=True)
class Adaptive(WindowFilter):
    """The mean where the trajectory is still, the parabola where it moves; single outliers are replaced."""

    kind: ClassVar[str] = "adaptive"
    linear: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class ReleasedMean(Setting):
    """The mean of the frames t-2 to t+1, as in the authors' released code.

    It smooths rotations only: of a trajectory of values it would make one that is half a frame late.
    """

    def rotations(
        self, quaternion: Float[Tensor, "views time 4"], segments: tuple[int, ...]
    ) -> Float[Tensor, "views time 4"]:
        """As `WindowFilter.rotations`."""
        return released_window_mean(quaternion, segments)


Smoother = LocalQuadratic | MovingMean | MovingMedian | Gaussian | Adaptive | ReleasedMean
