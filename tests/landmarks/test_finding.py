"""Following a face through frames in which it was not found, and leaving out what is not on its path."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from neuface.frames import ArraySource
from neuface.landmarks.candidates import FrameFaces
from neuface.landmarks.finding import FaceSearch, without_jumps
from neuface.landmarks.schemes import IBUG68
from neuface.structs import Status, Track

SHAPE = 60 * torch.rand(68, 2, generator=torch.Generator().manual_seed(0))
"""A face of 60 pixels."""


class MovingFace:
    """Sees one face that moves by two pixels a frame.

    In the frames `blind` it must know where to look, in `hidden` there is nothing to see, and in `wrong` it takes
    something 40 pixels away for the face at first sight.
    """

    scheme = IBUG68
    memory = 3

    def __init__(
        self, *, blind: Sequence[int] = (), hidden: Sequence[int] = (), wrong: Sequence[int] = ()
    ) -> None:
        self.blind, self.hidden, self.wrong = set(blind), set(hidden), set(wrong)
        self.looked_back: list[int] = []

    def face(self, frame: int, away_px: float = 0.0) -> FrameFaces:
        return FrameFaces(
            points_px=(SHAPE + 100 + 2 * frame + away_px)[None],
            confidence=torch.ones(1, 68),
            score=torch.ones(1),
            uncertainty_px=torch.ones(1, 68),
        )

    def detect(self, frames: Tensor, before: Sequence[FrameFaces] = ()) -> list[FrameFaces]:
        numbers = numbers_of(frames)
        found: list[FrameFaces] = []
        for number in numbers:
            known = self._seen_in([*before, *found][-self.memory :])
            found.append(self._look(number, known))
        # And backwards within the block.
        for place in range(len(numbers) - 1, -1, -1):
            if not len(found[place].score):
                known = self._seen_in(found[place + 1 : place + 1 + self.memory])
                found[place] = self._look(numbers[place], known)
        return found

    def _look(self, number: int, known: bool) -> FrameFaces:
        if number in self.hidden or (number in self.blind and not known):
            return FrameFaces.none(68)
        return self.face(number, 40.0 if number in self.wrong else 0.0)

    @staticmethod
    def _seen_in(faces: Sequence[FrameFaces]) -> bool:
        return any(len(item.score) for item in faces)

    def lacks(self, found: FrameFaces, after: Sequence[FrameFaces]) -> bool:
        return not len(found.score) and any(len(item.score) for item in after)

    def look_back(
        self, frames: Tensor, found: Sequence[FrameFaces], after: Sequence[FrameFaces]
    ) -> list[FrameFaces]:
        numbers = numbers_of(frames)
        self.looked_back += numbers
        return [
            self.face(number) if not len(item.score) and number not in self.hidden else item
            for number, item in zip(numbers, found, strict=True)
        ]

    def look_near(self, frames: Tensor, expected_px: Tensor) -> list[FrameFaces]:
        return [
            FrameFaces.none(68) if number in self.hidden else self.face(number)
            for number in numbers_of(frames)
        ]


def numbers_of(frames: Tensor) -> list[int]:
    return frames[:, 0, 0, 0].tolist()


def numbered_frames(time: int) -> ArraySource:
    """Frames whose first pixel is their number."""
    frames = np.zeros((time, 4, 4, 3), np.uint8)
    frames[:, 0, 0, 0] = np.arange(time)
    return ArraySource(frames)


def found_in(detector: MovingFace, time: int = 24, block: int = 4) -> list[int]:
    """The frames in which the search finds the face."""
    source, search = numbered_frames(time), FaceSearch(detector)
    for start in range(0, time, block):
        search.look(source.read(0, start, start + block))
    faces = search.finish(lambda start, stop: source.read(0, start, stop))
    return (faces.confidence[0, :, 0, 0] > 0).nonzero()[:, 0].tolist()


def test_a_face_is_followed_into_the_frames_after_it() -> None:
    detector = MovingFace(blind=range(5, 20))
    assert found_in(detector) == list(range(24))
    assert detector.looked_back == []


def test_frames_before_a_face_are_looked_at_again() -> None:
    detector = MovingFace(blind=range(0, 10))
    assert found_in(detector) == list(range(24))
    # Blocks of four, from the last one in which nobody was found to the first; in the one after it the detector
    # itself looks from each frame into its neighbours.
    assert detector.looked_back == [4, 5, 6, 7, 0, 1, 2, 3]


def test_nobody_is_found_where_nobody_is() -> None:
    assert found_in(MovingFace(hidden=[3, 4, 15])) == [n for n in range(24) if n not in (3, 4, 15)]
    assert found_in(MovingFace(hidden=range(24))) == []


def tracked(detector: MovingFace, time: int = 24) -> tuple[Track, ArraySource]:
    """What a tracker makes of the first look at every frame."""
    source = numbered_frames(time)
    faces = [detector.detect(source.read(0, frame, frame + 1))[0] for frame in range(time)]
    there = torch.tensor([bool(len(item.score)) for item in faces])
    filled = [item if len(item.score) else detector.face(0) for item in faces]
    points, confidence = (
        torch.cat([getattr(item, name) for item in filled]) for name in ("points_px", "confidence")
    )
    return Track(
        points_px=(points * there[:, None, None])[None],
        confidence=(confidence * there[:, None])[None],
        uncertainty_px=there[None, :, None].float().expand(1, time, 68).clone(),
        scheme=IBUG68,
        status=torch.where(there, int(Status.FITTED), int(Status.NO_FACE))[None],
    ), source


@pytest.mark.parametrize("wrong", [[7], [7, 8], [3, 12, 20]])
def test_what_is_off_the_path_is_replaced_by_what_is_on_it(wrong: list[int]) -> None:
    detector = MovingFace(wrong=wrong)
    track, source = tracked(detector)
    found = without_jumps(track, detector, source, (0,))
    expected = torch.stack([detector.face(frame).points_px[0] for frame in range(24)])
    torch.testing.assert_close(found.points_px[0], expected)
    assert found.status is not None
    assert (found.status == Status.FITTED).all()


def test_what_is_off_the_path_is_left_out_where_nothing_is_on_it() -> None:
    detector = MovingFace(wrong=[9])
    track, source = tracked(detector)
    detector.hidden = {9}
    found = without_jumps(track, detector, source, (0,))
    assert found.status is not None
    assert found.status[0, 9] == Status.OCCLUDED
    assert not found.confidence[0, 9].any()
    assert int(found.usable.sum()) == 23


def test_a_gap_is_looked_at_where_the_path_leads() -> None:
    detector = MovingFace(hidden=[10, 11])
    track, source = tracked(detector)
    detector.hidden = set()
    found = without_jumps(track, detector, source, (0,))
    assert bool(found.usable.all())
    torch.testing.assert_close(found.points_px[0, 11], detector.face(11).points_px[0])


def test_the_path_ends_at_a_cut() -> None:
    """A jump at a cut is another place in another shot, and no error."""
    detector = MovingFace(wrong=range(12, 24))
    track, source = tracked(detector)
    cut = without_jumps(track, detector, source, (0, 12))
    assert torch.equal(cut.points_px, track.points_px)
