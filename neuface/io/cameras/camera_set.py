"""`CameraSet`: the cameras of a calibration, and which of them belongs to which view of a recording."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from neuface.errors import InputError
from neuface.geometry.perspective import PerspectiveCamera

SizeHw = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class CameraSet:
    """The cameras of one recording."""

    cameras: PerspectiveCamera
    """One batch axis, the cameras in the order of the file; float64."""
    names: tuple[str, ...]
    sizes_hw: tuple[SizeHw | None, ...]
    """Height and width in pixels of the frames that each camera is calibrated for; None where the file is silent."""
    metric: bool = True
    """Whether translations are metres; otherwise their unit is not known."""

    def scaled(self, metres_per_unit: Any) -> CameraSet:
        """The cameras in metres, of those whose unit is so many metres.

        Raises:
            InputError: the number is not positive and finite, or the cameras are in metres already.
        """
        number = isinstance(metres_per_unit, int | float) and not isinstance(metres_per_unit, bool)
        if not (number and math.isfinite(metres_per_unit) and metres_per_unit > 0):
            raise InputError(
                f"calibration scale: expected a positive number of metres per unit, got {metres_per_unit!r}"
            )
        if self.metric:
            raise InputError("calibration scale: the calibration states that its unit is the metre")
        cameras = replace(self.cameras, translation=self.cameras.translation * metres_per_unit)
        return replace(self, cameras=cameras, metric=True)

    def for_views(
        self, names: Sequence[str], sizes_hw: Sequence[SizeHw]
    ) -> tuple[PerspectiveCamera, tuple[str, ...]]:
        """The cameras of the views of a recording, in the views' order, and sentences about how they were matched.

        Cameras and views belong together by their names; else by the number at the end of their names (`cam_0` and
        `0`); else, if no name is found among both, by their order.

        Args:
            names: of the views: the names of their files, without the ending.
            sizes_hw: height and width of each view's frames. Frames that are an enlarged or reduced copy, not cut,
                have their camera scaled.

        Raises:
            InputError: a view has no camera, a camera has no view, or frames have another size or shape than those
                of the calibration.
        """
        order, remarks = self._order(names)
        scales = []
        for view, camera in enumerate(order):
            scale, remark = self._scale(camera, names[view], sizes_hw[view])
            scales.append(scale)
            remarks += remark
        chosen = self.cameras[order]
        scale = chosen.K.new_tensor(scales)
        K = chosen.K.clone()
        K[:, :2, :2] *= scale[:, None, None]
        # Pixel centres are at integers, so that the frame's corner, which stays where it is, is at -0.5.
        K[:, :2, 2] = scale[:, None] * (K[:, :2, 2] + 0.5) - 0.5
        return replace(chosen, K=K), tuple(remarks)

    def _order(self, names: Sequence[str]) -> tuple[list[int], list[str]]:
        """The number of each view's camera."""
        if sorted(names) == sorted(self.names):
            return [self.names.index(name) for name in names], []
        numbers, own_numbers = _last_numbers(names), _last_numbers(self.names)
        shared = set(names) & set(self.names)
        if (
            not shared
            and numbers is not None
            and own_numbers is not None
            and set(numbers) == set(own_numbers)
        ):
            order = [own_numbers.index(number) for number in numbers]
            return order, [f"calibration: matched by the numbers in the names: {self._pairs(names, order)}"]
        if not shared and len(names) == len(self.names):
            order = list(range(len(names)))
            return order, [
                f"calibration: its names are none of the views', so that the order counts: "
                f"{self._pairs(names, order)}"
            ]
        missing = [name for name in names if name not in self.names]
        additional = [name for name in self.names if name not in names]
        parts = [f"no camera for the view(s) {', '.join(missing)}"] if missing else []
        parts += [f"no view for the camera(s) {', '.join(additional)}"] if additional else []
        raise InputError(
            f"calibration: there is {' and '.join(parts)}; expected one camera per view, of the same name as the "
            "view's file (without its ending), or as many cameras as views, in the same order"
        )

    def _pairs(self, names: Sequence[str], order: Sequence[int]) -> str:
        return ", ".join(f"{name}: {self.names[camera]}" for name, camera in zip(names, order, strict=True))

    def _scale(self, camera: int, view: str, size_hw: SizeHw) -> tuple[float, list[str]]:
        """By how much the frames of a view are larger than those of the calibration, and a sentence about it."""
        own, label = self.sizes_hw[camera], f"camera {self.names[camera]!r}"
        if own is None:
            x, y = self.cameras.K[camera, :2, 2].tolist()
            if not (-0.5 <= x <= size_hw[1] - 0.5 and -0.5 <= y <= size_hw[0] - 0.5):
                raise InputError(
                    f"calibration: {label} has its principal point at ({x:.1f}, {y:.1f}), outside of the frames of "
                    f"view {view!r} with {in_px(size_hw)} px; expected a calibration for frames of this size"
                )
            return 1.0, []
        if own == tuple(size_hw):
            return 1.0, []
        if own[0] * size_hw[1] != own[1] * size_hw[0]:
            raise InputError(
                f"calibration: {label} is calibrated for frames of {in_px(own)} px, but view {view!r} has "
                f"{in_px(size_hw)} px, which is no scaled copy; expected the video as it was recorded, not cut"
            )
        return size_hw[0] / own[0], [
            f"calibration: {label} is for frames of {in_px(own)} px and was scaled to the {in_px(size_hw)} px of "
            f"view {view!r}"
        ]


def in_px(size_hw: SizeHw) -> str:
    """A frame's width and height as people write them.

    >>> in_px((720, 1280))
    '1280 x 720'
    """
    return f"{size_hw[1]} x {size_hw[0]}"


def _last_numbers(names: Sequence[str]) -> list[int] | None:
    """The number at the end of every name; None unless each has one of its own."""
    found = [re.search(r"(\d{1,9})$", name) for name in names]
    numbers = [int(match[1]) for match in found if match]
    return numbers if len(numbers) == len(names) and len(set(numbers)) == len(names) else None
