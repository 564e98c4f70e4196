"""What the settings of every study have: the sizes of its clips, and the check of its counts."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from neuface.errors import InputError


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """How large a study is."""

    MAY_BE_ZERO: ClassVar[tuple[str, ...]] = ()

    frames: int
    """Length of a clip from one camera."""
    frames_of_three: int
    """Length of a clip from three cameras, frames of each."""
    size_px: int = 320
    """Side of rendered frames."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            least = 0 if item.name in self.MAY_BE_ZERO else 1
            if isinstance(value, int) and not isinstance(value, bool) and value < least:
                raise InputError(f"{type(self).__name__}.{item.name} must be at least {least}, got {value}")
