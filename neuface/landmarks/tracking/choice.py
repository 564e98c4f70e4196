"""Who of several people is meant: each choice is a type that carries its own numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from neuface.errors import InputError

EXPECTED = (
    "faces: expected 'most present', 'largest', 'all', a number (0 is who is present in most frames), "
    "(x, y, time) with a point in that person's face in frame pixels and the time in seconds, or a list of such "
    "points, one per view (None where the person is not seen)"
)


@dataclass(frozen=True, kw_only=True)
class MostPresent:
    """The person who is in most frames; of two, the larger."""

    sentence = "the person who is present in most frames"


@dataclass(frozen=True, kw_only=True)
class Largest:
    """The person whose face is largest in the picture (median over the frames)."""

    sentence = "the person whose face is largest"


@dataclass(frozen=True, kw_only=True)
class Everyone:
    """All people, each alone."""

    sentence = "everyone, each in a result of their own"


@dataclass(frozen=True, kw_only=True)
class Numbered:
    """One person by number: people are counted from 0 by the frames in which they are present, most first."""

    number: int

    @property
    def sentence(self) -> str:
        return f"person number {self.number}, counted from 0 by presence"


@dataclass(frozen=True, kw_only=True)
class At:
    """The person whose face is at a point at some time."""

    x_px: float
    y_px: float
    seconds: float
    """Since the recording's first frame; the nearest frame is meant."""
    view: int = 0

    @property
    def sentence(self) -> str:
        return f"the person at x {self.x_px:g}, y {self.y_px:g} after {self.seconds:g} s in view {self.view}"


@dataclass(frozen=True, kw_only=True)
class AtInViews:
    """The person whose face is at a point in each view: nobody is recognised from one camera to another."""

    points: tuple[At | None, ...]
    """One per view; None where the person is not seen."""

    @property
    def sentence(self) -> str:
        return "; ".join(point.sentence for point in self.points if point is not None)


OnePerson = MostPresent | Largest | Numbered | At | AtInViews
Choice = OnePerson | Everyone


def as_choice(value: Any) -> Choice:
    """A choice from the short forms that users write.

    Raises:
        InputError: it is none of them.

    >>> as_choice("largest")
    Largest()
    >>> as_choice((120, 80, 1.5))
    At(x_px=120.0, y_px=80.0, seconds=1.5, view=0)
    """
    if isinstance(value, Choice):
        return value
    by_name = {"most present": MostPresent(), "largest": Largest(), "all": Everyone()}
    if isinstance(value, str):
        if value in by_name:
            return by_name[value]
        value = _from_command_line(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise InputError(f"{EXPECTED}; got {value}")
        return Numbered(number=value)
    if isinstance(value, tuple | list) and any(isinstance(item, tuple | list) for item in value):
        views = [None if item is None else _point(item, view) for view, item in enumerate(value)]
        return AtInViews(points=tuple(views))
    return _point(value, 0)


def _from_command_line(text: str) -> Any:
    """A number, or `x,y,time`, or several of these with `;` between the views."""
    if text.isdecimal():
        return int(text)
    views = [tuple(part.split(",")) if part.strip() else None for part in text.split(";")]
    return views if len(views) > 1 else views[0]


def _point(value: Any, view: int) -> At:
    if isinstance(value, tuple | list) and len(value) == 3:
        try:
            x_px, y_px, seconds = (float(item) for item in value)
        except (TypeError, ValueError) as error:
            raise InputError(f"{EXPECTED}; got {value!r}") from error
        if all(math.isfinite(item) for item in (x_px, y_px, seconds)):
            return At(x_px=x_px, y_px=y_px, seconds=seconds, view=view)
    raise InputError(f"{EXPECTED}; got {value!r}")
