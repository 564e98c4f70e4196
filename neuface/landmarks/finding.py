"""The faces of one camera's frames, which arrive in blocks and are not kept."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import UInt8
from torch import Tensor

from neuface.landmarks.candidates import FrameFaces, faces_of_view
from neuface.landmarks.detectors import Detector, FollowingDetector
from neuface.landmarks.tracking.found_faces import FoundFaces


class FaceSearch:
    """Looks at blocks of frames in time order, and then once more, backwards, at those that may hide a known face."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._blocks: list[list[FrameFaces]] = []

    def look(self, frames: UInt8[Tensor, "n h w 3"]) -> None:
        """Find the faces of the next block."""
        if isinstance(self._detector, FollowingDetector):
            before = [item for block in self._blocks[-self._detector.memory :] for item in block]
            self._blocks.append(self._detector.detect(frames, before[-self._detector.memory :]))
        else:
            self._blocks.append(self._detector.detect(frames))

    def finish(self, read: Callable[[int, int], UInt8[Tensor, "n h w 3"]]) -> FoundFaces:
        """The faces of all blocks; `read(start, stop)` gives frames again."""
        if isinstance(self._detector, FollowingDetector):
            self._look_back(self._detector, read)
        return faces_of_view([item for block in self._blocks for item in block], self._detector.scheme)

    def _look_back(self, detector: FollowingDetector, read: Callable[[int, int], Tensor]) -> None:
        stop = sum(len(block) for block in self._blocks)
        after: list[FrameFaces] = []
        for index in range(len(self._blocks) - 1, -1, -1):
            block = self._blocks[index]
            start = stop - len(block)
            if detector.lacks(block[-1], after):
                self._blocks[index] = block = detector.look_back(read(start, stop), block, after)
            after = [*block, *after][: detector.memory]
            stop = start
