"""The people in a recording, and the track of whoever is chosen."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
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
from neuface.landmarks.tracking.movements import movements
from neuface.landmarks.tracking.observations import Faces, jumps_of_all_faces, observed_faces
from neuface.landmarks.tracking.people import Path, find_people
from neuface.landmarks.tracking.presence import presence_of
from neuface.landmarks.tracking.views import NONE, Division, Group, ViewTracks, people_across
from neuface.structs import Selection, Status, Track

FRAMES_PER_PIECE = 512
USUAL_FPS = 25.0
"""Frames per second where no time stamps are known."""
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
    groups: tuple[Group, ...]
    """Everyone's path in every view."""
    division: Division | None
    """How sure the groups are; None with one view."""

    @property
    def count(self) -> int:
        """The number of people."""
        return len(self.groups)

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
            path = self._number_at(choice, timestamps_s)
            whose = [group[choice.view] for group in self.groups].index(path)
            return [self._person(whose, choice)]
        if isinstance(choice, Everyone):
            return [self._person(number, choice) for number in range(max(1, self.count))]
        if isinstance(choice, Numbered) and choice.number >= max(1, self.count):
            raise InputError(f"faces: there is no person number {choice.number}: {self._listed()}")
        if isinstance(choice, Numbered):
            return [self._person(choice.number, choice)]
        return [self._person(self._largest() if isinstance(choice, Largest) else 0, choice)]

    def _person(self, number: int, choice: Choice) -> Person:
        """The person who has a number.

        Raises:
            InputError: somebody else may be meant in some view.
        """
        if not self.groups:
            return self._joined((NONE,) * len(self.paths), 0, choice)
        group = self.groups[number]
        if self.division is not None and self.division.is_doubtful(group):
            raise InputError(
                f"faces: {self._listed()}; which of them are the same person in several views is not known: they are "
                "there at the same time, and their faces do not move enough, or not differently enough, to tell. "
                f"{A_POINT_PER_VIEW}"
            )
        return self._joined(group, number, choice)

    def _joined(self, group: Group, number: int, choice: Choice) -> Person:
        tracks = [self._track(view, path) for view, path in enumerate(group)]
        return Person(
            track=Track.cat(tracks),
            selection=Selection(people=self.count, number=number, rule=choice.sentence),
        )

    def _person_in_views(self, choice: AtInViews, timestamps_s: Sequence[float]) -> Person:
        points = choice.points
        if len(points) != len(self.paths) or not any(points):
            raise InputError(
                f"faces: expected {len(self.paths)} points, one per view (None where the person is not seen, but not "
                f"in all), got {len(points)}"
            )
        group = tuple(NONE if point is None else self._number_at(point, timestamps_s) for point in points)
        return self._joined(group, self._named(group), choice)

    def _named(self, group: Group) -> int:
        """The number of the person who has most of these paths, and of equals the first."""
        shared = [sum(a == b != NONE for a, b in zip(group, other, strict=True)) for other in self.groups]
        return int(np.argmax(shared))

    def _number_at(self, choice: At, timestamps_s: Sequence[float]) -> int:
        """The number of the path at a point of a view."""
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

    def _largest(self) -> int:
        """The person with the largest face in the first of the views that see most people."""
        paths = max(self.paths, key=len)
        view = self.paths.index(paths)
        sizes = [_size_px(self.observed[view], path) for path in paths]
        return [group[view] for group in self.groups].index(int(np.argmax(sizes))) if sizes else 0

    def _listed(self, frame: int | None = None, view: int = 0) -> str:
        """Who there is, for messages; with a frame, the places of one view's faces."""
        if frame is None:
            return "there are " + ", ".join(
                f"{len(paths)} people in view {view}" for view, paths in enumerate(self.paths)
            )
        faces = self.observed[view]
        places = [f"x {x:.0f}, y {y:.0f}" for x, y in faces.centre_px[frame][faces.present[frame]]]
        return "faces there are at " + ("; ".join(places) or "no place")

    def _track(self, view: int, number: int) -> Track:
        """The track of one path of one view; without landmarks if the view has none of the person."""
        found, paths = self.found[view : view + 1], self.paths[view]
        time = found.points_px.shape[1]
        path = None if number == NONE else paths[number]
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


def people_in(
    found: FoundFaces,
    timestamps_s: Sequence[float],
    cuts_of_views: Sequence[Sequence[int]] | None = None,
) -> People:
    """Follow everyone through a recording; nobody is followed from one shot into another.

    Args:
        timestamps_s: of every frame, rising.
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
    division = None
    groups: Sequence[Group] = [(number,) for number in range(len(paths[0]))]
    if len(paths) > 1 and found.one_person:
        # Whoever gave the landmarks says that they are the same person in all views.
        group = tuple(0 if of_view else NONE for of_view in paths)
        groups = [group] if any(paths) else []
    elif len(paths) > 1:
        division = _division(found, paths, np.asarray(timestamps_s, dtype=float))
        groups = sorted(division.groups, key=lambda group: _presence_and_size(observed, paths, group))
    return People(
        found=found,
        observed=observed,
        paths=paths,
        starts=starts,
        groups=tuple(groups),
        division=division,
    )


def _division(
    found: FoundFaces, paths: Sequence[Sequence[Path]], seconds: Float[np.ndarray, " time"]
) -> Division:
    """The paths of several views, divided into people."""
    chosen, frames = list(found.scheme.to_ibug68), np.arange(len(seconds))
    step_s = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1.0
    views = []
    for points_px, confidence, of_view in zip(found.points_px, found.confidence, paths, strict=True):
        moves = []
        for path in of_view:
            face = path.face.clip(min=0)
            points = points_px[frames, face][:, chosen].double().cpu().numpy()
            there = (confidence[frames, face][:, chosen] > 0).cpu().numpy() & path.present[:, None]
            points[~there] = np.nan
            moves.append(movements(points, seconds))
        presence = tuple(presence_of(path.present, step_s) for path in of_view)
        views.append(ViewTracks(presence=presence, movements=tuple(moves)))
    return people_across(views)


def _presence_and_size(
    observed: Sequence[Faces], paths: Sequence[Sequence[Path]], group: Group
) -> tuple[int, float]:
    """By which people are sorted: who is seen, by any camera, in most frames, and among equals the largest."""
    own = [(observed[view], paths[view][number]) for view, number in enumerate(group) if number != NONE]
    frames = np.any([path.present for _, path in own], axis=0)
    return -int(frames.sum()), -max(_size_px(faces, path) for faces, path in own)


def _size_px(faces: Faces, path: Path) -> float:
    """The median size of a path's faces."""
    return float(np.median(faces.size_px[np.flatnonzero(path.present), path.face[path.present]]))


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
    """The track of the person who is in most frames of one view."""
    seconds = [frame / USUAL_FPS for frame in range(found.points_px.shape[1])]
    return people_in(found, seconds).choose(MostPresent(), seconds)[0].track
