"""The people in a recording, and the track of whoever is chosen."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuface.errors import InputError
from neuface.landmarks.tracking.choice import (
    At,
    AtInViews,
    Choice,
    Everyone,
    Largest,
    MostPresent,
    Numbered,
)
from neuface.landmarks.tracking.cuts import common_cuts
from neuface.landmarks.tracking.found_faces import FoundFaces
from neuface.landmarks.tracking.observations import Faces, jumps_of_all_faces, observed_faces
from neuface.landmarks.tracking.people import Path, find_people
from neuface.landmarks.tracking.views import matched
from neuface.structs import Selection, Status, Track

FRAMES_PER_PIECE = 512
LEAST_SCORE = 0.6
"""Bounds the median of the scores of a person's faces from below, if somebody else's reaches it: fists that hold
something, and patterns, make tracks with a median of about 0.5; the median of half hidden faces is 0.8."""
# How the same person is named in several views.
A_POINT_PER_VIEW = (
    "Give a point in the person's face for every view, faces=[(x, y, time), ...] "
    "(--faces 'x,y,time;x,y,time'), or the landmarks of one person"
)


@dataclass(frozen=True, kw_only=True)
class Person:
    """One person's track, and how it was chosen."""

    track: Track
    selection: Selection


@dataclass(frozen=True, kw_only=True)
class People:
    """Everyone in a recording, camera by camera, the most present first; made by `people_in`."""

    found: FoundFaces
    observed: tuple[Faces, ...]
    """Of every view."""
    paths: tuple[tuple[Path, ...], ...]
    """Of every view."""
    starts: tuple[int, ...]
    """The first frames of the shots."""

    @property
    def count(self) -> int:
        """The number of people in the view that has most."""
        return max(len(paths) for paths in self.paths)

    def choose(self, choice: Choice, timestamps_s: Sequence[float]) -> list[Person]:
        """The tracks of whoever is meant: one, or with `Everyone` all.

        A recording in which nobody was found gives one track without landmarks.

        Raises:
            InputError: nobody is there or has this number, or people of several cameras cannot be told apart.
        """
        if isinstance(choice, AtInViews):
            return [self._person_in_views(choice, timestamps_s)]
        if isinstance(choice, At):
            if not 0 <= choice.view < len(self.paths):
                raise InputError(
                    f"faces: view {choice.view} does not exist: expected 0 to {len(self.paths) - 1}"
                )
            return [self._person(choice.view, self._number_at(choice, timestamps_s), choice)]
        if isinstance(choice, Everyone):
            return [self._person(self._fullest, number, choice) for number in range(max(1, self.count))]
        if isinstance(choice, Numbered) and choice.number >= max(1, self.count):
            raise InputError(f"faces: there is no person number {choice.number}: {self._listed()}")
        if isinstance(choice, Numbered):
            return [self._person(self._fullest, choice.number, choice)]
        number = self._largest(self._fullest) if isinstance(choice, Largest) else 0
        return [self._person(self._fullest, number, choice)]

    @property
    def _fullest(self) -> int:
        """The view in which people are counted: the first of those in which there are most."""
        return [len(paths) for paths in self.paths].index(self.count)

    def _person(self, view: int, number: int, choice: Choice) -> Person:
        """The person who has a number in a view."""
        numbers = [
            number if other == view else self._number_in(other, view, number)
            for other in range(len(self.paths))
        ]
        return self._joined(numbers, choice)

    def _number_in(self, other: int, view: int, number: int) -> int | None:
        """Who a person of one view is in another one; None if nobody was seen there at that time.

        Raises:
            InputError: more than one person may be meant.
        """
        present = [np.array([path.present for path in self.paths[item]]) for item in (view, other)]
        if not all(len(item) for item in present):
            return None
        matches = matched(*present)
        if matches.doubtful[number]:
            raise InputError(
                f"faces: {self._listed()}; which of them are the same person in several views is not known: in view "
                f"{view} and view {other} more than one is there at the same time. {A_POINT_PER_VIEW}"
            )
        return matches.number[number]

    def _joined(self, numbers: Sequence[int | None], choice: Choice) -> Person:
        tracks = [self._track(view, who) for view, who in enumerate(numbers)]
        counted = numbers[self._fullest]
        known = next((number for number in numbers if number is not None), 0)
        selection = Selection(
            people=self.count, number=known if counted is None else counted, rule=choice.sentence
        )
        return Person(track=Track.cat(tracks), selection=selection)

    def _person_in_views(self, choice: AtInViews, timestamps_s: Sequence[float]) -> Person:
        points = choice.points
        if len(points) != len(self.paths) or not any(points):
            raise InputError(
                f"faces: expected {len(self.paths)} points, one per view (None where the person is not seen, but not "
                f"in all), got {len(points)}"
            )
        numbers = [None if point is None else self._number_at(point, timestamps_s) for point in points]
        return self._joined(numbers, choice)

    def _number_at(self, choice: At, timestamps_s: Sequence[float]) -> int:
        """The number of the person at a point of a view."""
        frame = int(np.abs(np.asarray(timestamps_s) - timestamps_s[0] - choice.seconds).argmin())
        faces, point = self.observed[choice.view], np.array([choice.x_px, choice.y_px])
        for number, path in enumerate(self.paths[choice.view]):
            face = int(path.face[frame])
            if face >= 0:
                distance = np.abs(faces.centre_px[frame, face] - point).max()
                if distance <= faces.size_px[frame, face] / 2:
                    return number
        raise InputError(
            f"faces: nobody is at x {choice.x_px:g}, y {choice.y_px:g} in frame {frame} of view {choice.view}: "
            f"{self._listed(frame, choice.view)}"
        )

    def _largest(self, view: int) -> int:
        faces, paths = self.observed[view], self.paths[view]
        frames = np.arange(len(faces.size_px))
        sizes = [np.median(faces.size_px[frames[path.present], path.face[path.present]]) for path in paths]
        return int(np.argmax(sizes)) if sizes else 0

    def _listed(self, frame: int | None = None, view: int = 0) -> str:
        """Who there is, for messages; with a frame, the places of one view's faces."""
        if frame is None:
            return "there are " + ", ".join(
                f"{len(paths)} people in view {view}" for view, paths in enumerate(self.paths)
            )
        faces = self.observed[view]
        places = [f"x {x:.0f}, y {y:.0f}" for x, y in faces.centre_px[frame][faces.present[frame]]]
        return "faces there are at " + ("; ".join(places) or "no place")

    def _track(self, view: int, number: int | None) -> Track:
        """The track of one person in one view; without landmarks if the view has no such person."""
        found, paths = self.found[view : view + 1], self.paths[view]
        time = found.points_px.shape[1]
        path = None if number is None or number >= len(paths) else paths[number]
        face = torch.full((time,), -1) if path is None else torch.from_numpy(path.face)
        frames, there = torch.arange(time), face >= 0
        anyone = np.zeros((1, time), bool) if not paths else np.stack([item.present for item in paths])
        status = torch.full((time,), int(Status.NO_FACE))
        status[torch.from_numpy(anyone.any(0))] = int(Status.ANOTHER_PERSON)
        status[there] = int(Status.FITTED)

        def of_person(values: Tensor) -> Tensor:
            if values.shape[2] == 1 and bool(there.all()):
                # The only face of every frame needs no copy.
                return values[:, :, 0]
            taken = values[:, frames, face.clamp(min=0)]
            return taken.masked_fill_(~there.view(1, time, *(1,) * (taken.dim() - 2)), 0)

        uncertainty = found.uncertainty_px
        return Track(
            points_px=of_person(found.points_px),
            confidence=of_person(found.confidence),
            uncertainty_px=None if uncertainty is None else of_person(uncertainty),
            scheme=found.scheme,
            status=status[None],
        )


def people_in(found: FoundFaces, cuts_of_views: Sequence[Sequence[int]] | None = None) -> People:
    """Follow everyone through a recording; nobody is followed from one shot into another.

    Args:
        cuts_of_views: the frames at which the pictures of each view show a cut. Cuts are also where all faces jump,
            and are those of the recording if more than half of the views have them.
    """
    observed = tuple(_observed(found, view) for view in range(len(found.points_px)))
    shown = [()] * len(observed) if cuts_of_views is None else cuts_of_views
    starts = common_cuts(
        [{*cuts, *jumps_of_all_faces(faces)} for cuts, faces in zip(shown, observed, strict=True)]
    )
    if found.one_person:
        paths = tuple(_only_face(faces) for faces in observed)
    else:
        paths = _without_false_people(found, [find_people(faces, starts) for faces in observed])
    return People(found=found, observed=observed, paths=paths, starts=starts)


def _without_false_people(found: FoundFaces, paths: Sequence[Sequence[Path]]) -> tuple[tuple[Path, ...], ...]:
    """The paths of all views without those that are less surely faces than LEAST_SCORE, unless all are."""
    if found.score is None:
        return tuple(map(tuple, paths))
    frames = np.arange(found.score.shape[1])
    scores = [
        [np.median(score[frames[path.present], path.face[path.present]]) for path in people]
        for score, people in zip(found.score.cpu().numpy(), paths, strict=True)
    ]
    least = LEAST_SCORE if max(itertools.chain(*scores), default=0.0) >= LEAST_SCORE else 0.0
    return tuple(
        tuple(path for path, score in zip(people, of_view, strict=True) if score >= least)
        for people, of_view in zip(paths, scores, strict=True)
    )


def _observed(found: FoundFaces, view: int) -> Faces:
    """Place, size and shape of the faces of one view; a piece of frames at a time, to bound the memory."""
    pieces = []
    for start in range(0, found.points_px.shape[1], FRAMES_PER_PIECE):
        frames = slice(start, start + FRAMES_PER_PIECE)
        missing = (found.confidence[view, frames] <= 0)[..., None]
        points_px = found.points_px[view, frames].double().masked_fill(missing, torch.nan)
        pieces.append(observed_faces(points_px.cpu().numpy()))
    return Faces(
        centre_px=np.concatenate([item.centre_px for item in pieces]),
        size_px=np.concatenate([item.size_px for item in pieces]),
        shape=np.concatenate([item.shape.astype(np.float32) for item in pieces]),
    )


def _only_face(faces: Faces) -> tuple[Path, ...]:
    there = faces.present[:, 0]
    return (Path(face=np.where(there, 0, -1)),) if there.any() else ()


def most_present(found: FoundFaces) -> Track:
    """The track of the person who is in most frames."""
    return people_in(found).choose(MostPresent(), timestamps_s=[0.0])[0].track
