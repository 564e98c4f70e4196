"""The calibration that a caller gives for a recording, matched to its views."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from neuface.errors import InputError
from neuface.geometry.perspective import PerspectiveCamera
from neuface.io.cameras.camera_set import CameraSet, SizeHw
from neuface.io.cameras.reading import read_cameras


@dataclass(frozen=True, kw_only=True)
class GivenCameras:
    """The cameras of a recording's views."""

    cameras: PerspectiveCamera | None
    """One batch axis, the views; None if none are given."""
    metric: bool
    """Whether their unit is the metre."""
    remarks: tuple[str, ...]


def given_cameras(
    given: Any, metres_per_unit: float | None, names: Sequence[str], sizes_hw: Sequence[SizeHw]
) -> GivenCameras:
    """The cameras of a recording, from what `neuface.read_clip` takes.

    Args:
        given: the path of a calibration, a `CameraSet`, or None.
        metres_per_unit: for a calibration that does not state its unit.
        names, sizes_hw: of the views.

    Raises:
        InputError: it cannot be read, or does not fit the views.
    """
    if given is None:
        if metres_per_unit is not None:
            raise InputError("calibration scale: is for a calibration; give that, too")
        return GivenCameras(cameras=None, metric=True, remarks=())
    if isinstance(given, str | os.PathLike):
        given = read_cameras(given)
    if not isinstance(given, CameraSet):
        raise InputError(
            f"cameras: expected the path of a calibration or a CameraSet from neuface.io.cameras, got "
            f"{type(given).__name__}"
        )
    chosen = given if metres_per_unit is None else given.scaled(metres_per_unit)
    cameras, remarks = chosen.for_views(names, sizes_hw)
    if not chosen.metric:
        remarks += (
            "calibration: does not state its unit of length, so that the size of the fitted head gives the scale of "
            "the world; say how many metres a unit is to have it from the calibration (--calibration-scale)",
        )
    return GivenCameras(cameras=cameras, metric=chosen.metric, remarks=remarks)
