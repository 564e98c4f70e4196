"""The people in a recording, and the track of whoever is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuface.errors import InputError
from neuface.landmarks.tracking.choice import At, Choice, Everyone, Largest, MostPresent, Numbered
from neuface.landmarks.tracking.cuts import common_cuts
from neuface.landmarks.tracking.found_faces import FoundFaces
from neuface.landmarks.tracking.observations import Faces, jumps_of_all_faces, observed_faces
from neuface.landmarks.tracking.people import Path, find_people
from neuface.structs import Selection, Status, Track

FRAMES_PER_PIECE = 512


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
        if isinstance(choice, Everyone):
            self._check_numbers_mean_one_person()
            numbers = range(max(1, self.count))
            return [self._person([number] * len(self.paths), number, choice) for number in numbers]
        if isinstance(choice, Numbered):
            if choice.number >= max(1, self.count):
                raise InputError(f"faces: there is no person number {choice.number}: {self._listed()}")
            self._check_numbers_mean_one_person()
            return [self._person([choice.number] * len(self.paths), choice.number, choice)]
        if isinstance(choice, At):
            return [self._person_at(choice, timestamps_s)]
        numbers = [
            self._largest(view) if isinstance(choice, Largest) else 0 for view in range(len(self.paths))
        ]
        return [self._person(numbers, max(numbers), choice)]

    def _person(self, numbers: Sequence[int], number: int, choice: Choice) -> Person:
        tracks = [self._track(view, who) for view, who in enumerate(numbers)]
        selection = Selection(people=self.count, number=number, rule=choice.sentence)
        return Person(track=Track.cat(tracks), selection=selection)

    def _person_at(self, choice: At, timestamps_s: Sequence[float]) -> Person:
        if not 0 <= choice.view < len(self.paths):
            raise InputError(f"faces: view {choice.view} does not exist: expected 0 to {len(self.paths) - 1}")
        others = [len(paths) for view, paths in enumerate(self.paths) if view != choice.view]
        if max(others, default=0) > 1:
            raise InputError(
                "faces: a point in one view does not tell who it is in another view with several people; "
                "give the landmarks of one person, or fit the views alone"
            )
        frame = int(np.abs(np.asarray(timestamps_s) - timestamps_s[0] - choice.seconds).argmin())
        faces, point = self.observed[choice.view], np.array([choice.x_px, choice.y_px])
        for number, path in enumerate(self.paths[choice.view]):
            face = int(path.face[frame])
            if face >= 0:
                distance = np.abs(faces.centre_px[frame, face] - point).max()
                if distance <= faces.size_px[frame, face] / 2:
                    numbers = [number if view == choice.view else 0 for view in range(len(self.paths))]
                    return self._person(numbers, number, choice)
        raise InputError(
            f"faces: nobody is at x {choice.x_px:g}, y {choice.y_px:g} in frame {frame}: {self._listed(frame)}"
        )

    def _largest(self, view: int) -> int:
        faces, paths = self.observed[view], self.paths[view]
        frames = np.arange(len(faces.size_px))
        sizes = [np.median(faces.size_px[frames[path.present], path.face[path.present]]) for path in paths]
        return int(np.argmax(sizes)) if sizes else 0

    def _check_numbers_mean_one_person(self) -> None:
        if len(self.paths) > 1 and self.count > 1:
            raise InputError(
                f"faces: {self._listed()}; which of them are the same person in several views is not known. "
                "Take 'most present' or 'largest', or give the landmarks of one person"
            )

    def _listed(self, frame: int | None = None) -> str:
        """Who there is, for messages."""
        if frame is None:
            return "there are " + ", ".join(
                f"{len(paths)} people in view {view}" for view, paths in enumerate(self.paths)
            )
        places = [
            f"x {x:.0f}, y {y:.0f}"
            for faces in self.observed
            for x, y in faces.centre_px[frame][faces.present[frame]]
        ]
        return "faces there are at " + ("; ".join(places) or "no place")

    def _track(self, view: int, number: int) -> Track:
        """The track of one person in one view; without landmarks if the view has no such person."""
        found, paths = self.found[view : view + 1], self.paths[view]
        time = found.points_px.shape[1]
        face = torch.from_numpy(paths[number].face) if number < len(paths) else torch.full((time,), -1)
        frames, there = torch.arange(time), face >= 0
        everyone = torch.from_numpy(self.observed[view].present.any(-1))
        status = torch.full((time,), int(Status.NO_FACE))
        status[everyone] = int(Status.ANOTHER_PERSON)
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
        paths = tuple(tuple(find_people(faces, starts)) for faces in observed)
    return People(found=found, observed=observed, paths=paths, starts=starts)


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
