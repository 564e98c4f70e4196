"""The faces of one camera's frames, which arrive in blocks and are not kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from neuface.landmarks.candidates import FoundFrames, FrameFaces
from neuface.landmarks.detectors import Detector, FollowingDetector
from neuface.landmarks.steadiness import LARGEST_JUMP, smooth_path, squashed
from neuface.landmarks.tracking.found_faces import FoundFaces
from neuface.structs import FrameSource, Status, Track

# Largest number of frames that are read at a time, and of their bytes.
MOST_FRAMES, MOST_BYTES = 16, 200_000_000
# Number of times that a person's path is followed: what was found in one round carries the next into longer gaps.
ROUNDS = 3


def frames_at_a_time(size_hw: tuple[int, int]) -> int:
    """The number of frames of a size that are looked at together: a block bounds the memory.

    >>> frames_at_a_time((720, 1280)), frames_at_a_time((2160, 3840))
    (16, 8)
    """
    return min(MOST_FRAMES, max(1, MOST_BYTES // (3 * size_hw[0] * size_hw[1])))


class FaceSearch:
    """Looks at blocks of frames in time order, and then once more, backwards, at those that may hide a known face."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._found = FoundFrames(detector.scheme)
        self._starts: list[int] = []

    def look(self, frames: UInt8[Tensor, "n h w 3"]) -> None:
        """Find the faces of the next block."""
        start = len(self._found)
        self._starts.append(start)
        if isinstance(self._detector, FollowingDetector):
            before = self._found.between(start - self._detector.memory, start)
            self._found.append(self._detector.detect(frames, before))
        else:
            self._found.append(self._detector.detect(frames))

    def finish(self, read: Callable[[int, int], UInt8[Tensor, "n h w 3"]]) -> FoundFaces:
        """The faces of all blocks; `read(start, stop)` gives frames again."""
        if isinstance(self._detector, FollowingDetector):
            self._look_back(self._detector, read)
        return self._found.joined()

    def _look_back(self, detector: FollowingDetector, read: Callable[[int, int], Tensor]) -> None:
        stop = len(self._found)
        after: list[FrameFaces] = []
        for start in reversed(self._starts):
            block = self._found.between(start, stop)
            if detector.lacks(block[-1], after):
                block = detector.look_back(read(start, stop), block, after)
                self._found.replace(start, block)
            after = [*block, *after][: detector.memory]
            stop = start


def without_jumps(
    track: Track, detector: FollowingDetector, frames: FrameSource, starts: Sequence[int]
) -> Track:
    """One person's landmarks on a smooth path: jumps are left out, and gaps are looked at where the path leads.

    A hand that was taken for the face, or a face that was found badly, lies off the path of the frames around it;
    a face of which a hand hides a half may be squashed into the other half.

    Args:
        starts: the first frames of the shots.
    """
    uncertainty_px = track.uncertainty_px
    assert uncertainty_px is not None, "the detector that follows estimates it"
    assert track.status is not None, "the tracker gives it"
    points_px, confidence, status = track.points_px.clone(), track.confidence.clone(), track.status.clone()
    uncertainty_px = uncertainty_px.clone()
    ibug68 = list(track.scheme.to_ibug68)
    for view in range(len(points_px)):
        for last in (*[False] * ROUNDS, True):
            found = confidence[view].amax(-1) > 0
            path = smooth_path(points_px[view].numpy(), found.numpy(), track.scheme.outer_eyes, starts)
            wrong = np.nan_to_num(path.jump) > LARGEST_JUMP
            wrong |= squashed(points_px[view][:, ibug68], confidence[view][:, ibug68] > 0, starts)
            jumps = torch.from_numpy(wrong)
            for values in (points_px, confidence, uncertainty_px):
                values[view, jumps] = 0
            status[view, jumps] = int(Status.OCCLUDED)
            expected_px = torch.from_numpy(path.points_px)
            missing = (~found | jumps) & expected_px.isfinite().all(-1).all(-1)
            if last or not missing.any():
                break
            for frame, face in _looks_near(detector, frames, view, missing, expected_px):
                assert face.uncertainty_px is not None, "the detector that follows estimates it"
                points_px[view, frame] = face.points_px[0]
                confidence[view, frame] = face.confidence[0]
                uncertainty_px[view, frame] = face.uncertainty_px[0]
                status[view, frame] = int(Status.FITTED)
    return replace(
        track, points_px=points_px, confidence=confidence, uncertainty_px=uncertainty_px, status=status
    )


def _looks_near(
    detector: FollowingDetector,
    frames: FrameSource,
    view: int,
    wanted: Bool[Tensor, " time"],
    expected_px: Float[Tensor, "time points 2"],
) -> Iterator[tuple[int, FrameFaces]]:
    """The faces in those frames of a view in which a look at where one is expected finds one."""
    block = frames_at_a_time(frames.size_hw(view))
    for start in range(0, len(wanted), block):
        stop = min(start + block, len(wanted))
        chosen = wanted[start:stop].nonzero()[:, 0]
        if len(chosen):
            pictures = frames.read(view, start, stop)[chosen]
            seen = detector.look_near(pictures, expected_px[start + chosen])
            for offset, face in zip(chosen.tolist(), seen, strict=True):
                if len(face.score):
                    yield start + offset, face
