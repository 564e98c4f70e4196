"""How often people are matched rightly from camera to camera, wrongly, or refused: simulated, and from pictures.

    python -m studies.people_across_cameras --seed 1 --json people.json

Two people talk before two and three cameras, both all the time, or one leaves; their landmarks are the true ones with
a detector's noise and drift, and some are missed. With `--pictures N`, N of the clips are painted and their faces
found by the networks in the package. Apart from these, people who come and go are simulated by when they are seen
alone; their faces do not move. The tables are in docs/results.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from jaxtyping import Bool, Int

from neuface import HeadModel
from neuface.io.detectors import load_detector
from neuface.landmarks.candidates import FoundFrames
from neuface.landmarks.mean_face import MEAN_FACE_MM
from neuface.landmarks.schemes import IBUG68
from neuface.landmarks.tracking.found_faces import FoundFaces, join_views
from neuface.landmarks.tracking.movements import Movements, movements
from neuface.landmarks.tracking.presence import presence_of
from neuface.landmarks.tracking.selection import People, people_in
from neuface.landmarks.tracking.views import MARGIN, NONE, Division, Group, ViewTracks, people_across
from neuface.models import load_head
from neuface.synthetic.conversations import FPS, TALKS, Talk, conversation
from neuface.synthetic.landmark_noise import DETECTOR, added_noise
from neuface.synthetic.people import open_head_identities
from neuface.synthetic.two_people import TwoPeople, paint_two_people

VIEW_YAW_DEG = {2: (-25.0, 25.0), 3: (-35.0, 0.0, 35.0)}
"""Angles of the cameras about the people."""
FRAMES_AT_A_TIME = 16
# Of the simulated presence: frames, largest share of missed frames, and longest gap.
PRESENCE_FRAMES, MOST_MISSED, LONGEST_GAP = 120, 0.7, 50


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much is simulated, and where the figures go."""

    seed: int = 1
    clips: int = 10
    """For each number of cameras and each way of talking."""
    seconds: float = 4.0
    noise: float = 1.0
    """Factor of the measured noise of a detector."""
    missed_share: float = 0.05
    """Faces that are missed, each frame alone."""
    pictures: int = 0
    """Number of clips that are painted, for each number of cameras."""
    presence: int = 500
    """Number of simulated pairs of cameras."""
    json: Path | None = None
    """File for the figures; without it they are only printed."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One person of a clip."""

    right: bool
    """All their tracks, and nobody else's."""
    margin: float


def main(options: Options) -> None:
    """Simulate, match and count."""
    head = load_head("open")
    figures: dict[str, Any] = {}
    for views, yaws in VIEW_YAW_DEG.items():
        for talk in TALKS:
            for leaves in (False, True):
                name = f"{views} cameras, {talk}, {'one leaves' if leaves else 'both stay'}"
                found = [
                    outcome
                    for number in range(options.clips)
                    for outcome in _of_clip(head, talk, yaws, leaves, number, options)
                ]
                if not found:
                    continue
                figures[name] = summary(found)
                print(name, json.dumps(figures[name]), flush=True)
        found = [
            outcome
            for number in range(options.pictures)
            for outcome in _of_pictures(head, yaws, number, options)
        ]
        if found:
            figures[f"{views} cameras, pictures"] = summary(found)
            print(views, "cameras, pictures", json.dumps(summary(found)), flush=True)
    generator = np.random.default_rng(options.seed)
    found = [outcome for _ in range(options.presence) for outcome in _of_presence(generator)]
    if found:
        figures["presence alone"] = summary(found)
        print("presence alone", json.dumps(figures["presence alone"]))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def summary(found: Sequence[Outcome]) -> dict[str, Any]:
    """How many people are matched rightly, wrongly, and not at all, and the margins of those who would be wrong."""
    accepted = [outcome for outcome in found if outcome.margin >= MARGIN]
    wrong = sorted((outcome.margin for outcome in found if not outcome.right), reverse=True)
    return {
        "right": sum(outcome.right for outcome in accepted),
        "wrong": sum(not outcome.right for outcome in accepted),
        "refused": len(found) - len(accepted),
        "largest_margins_of_wrong": [round(margin, 1) for margin in wrong[:3]],
        "margins": [
            round(float(value), 1) for value in np.quantile([item.margin for item in found], (0.05, 0.5))
        ],
    }


# --- Conversations


def _clip(
    head: HeadModel, talk: Talk, yaws: Sequence[float], leaves: bool, number: int, options: Options
) -> list[TwoPeople]:
    seed = 1000 * options.seed + number
    time = round(options.seconds * FPS)
    people = open_head_identities(2, seed)
    return conversation(head, people, talk, view_yaw_deg=yaws, leaves=leaves, time=time, seed=seed)


def _of_clip(
    head: HeadModel, talk: Talk, yaws: Sequence[float], leaves: bool, number: int, options: Options
) -> Iterator[Outcome]:
    clip = _clip(head, talk, yaws, leaves, number, options)
    generator = torch.Generator().manual_seed(number)
    views, whose = zip(*(_found(view, options, generator) for view in clip), strict=True)
    time = len(whose[0])
    yield from outcomes(people_in(join_views(views), _times(time)), whose)


def _times(time: int) -> list[float]:
    return [frame / FPS for frame in range(time)]


def _found(
    view: TwoPeople, options: Options, generator: torch.Generator
) -> tuple[FoundFaces, Int[np.ndarray, "time faces"]]:
    """What a detector finds in one view, in random order, and whose each face is."""
    noisy = []
    for points_px in view.points_px:
        eye_px = float((points_px[:, 36] - points_px[:, 45]).norm(dim=-1).amax())
        shifts = [added_noise(points_px[None], eye_px, noise, generator)[0] for noise in DETECTOR.noise]
        noisy.append(points_px + options.noise * torch.stack(shifts).sum(0))
    points_px = torch.stack(noisy, 1)
    there = view.visible.T & (torch.rand(view.visible.T.shape, generator=generator) >= options.missed_share)
    order = torch.rand(there.shape, generator=generator).argsort(-1)
    shown = there.gather(1, order)
    points_px = points_px.gather(1, order[..., None, None].expand_as(points_px))
    found = FoundFaces(
        points_px=(points_px * shown[..., None, None])[None],
        confidence=shown[..., None].expand(*shown.shape, 68).float()[None],
        scheme=IBUG68,
    )
    return found, torch.tensor(view.order)[order].numpy()


def outcomes(people: People, whose: Sequence[Int[np.ndarray, "time faces"]]) -> Iterator[Outcome]:
    """What became of everyone; `whose` says of every view's faces whose they are."""
    assert people.division is not None, "there are several views"
    owners = [
        [_owner(path.face, of_view) for path in paths]
        for paths, of_view in zip(people.paths, whose, strict=True)
    ]
    for group in people.groups:
        yield _outcome(people.division, group, owners)


def _outcome(division: Division, group: Group, owners: Sequence[Sequence[int]]) -> Outcome:
    """`owners` says of every view's tracks whose they are."""
    known = [owners[view][path] for view, path in enumerate(group) if path != NONE]
    seen = sum(known[0] in of_view for of_view in owners)
    return Outcome(right=len(set(known)) == 1 and len(known) == seen, margin=division.margin(group))


def _owner(face: Int[np.ndarray, " time"], whose: Int[np.ndarray, "time faces"]) -> int:
    frames = np.flatnonzero(face >= 0)
    return int(np.bincount(whose[frames, face[frames]]).argmax())


# --- Pictures


def _of_pictures(head: HeadModel, yaws: Sequence[float], number: int, options: Options) -> Iterator[Outcome]:
    """The same from painted frames; the ways of talking alternate."""
    clip = _clip(head, TALKS[number % 3], yaws, number % 4 == 3, number, options)
    detector = load_detector()
    views, whose = [], []
    for view in clip:
        frames = paint_two_people(head, view)
        found = FoundFrames(detector.scheme)
        for start in range(0, len(frames), FRAMES_AT_A_TIME):
            found.append(detector.detect(frames[start : start + FRAMES_AT_A_TIME]))
        faces = found.joined()
        views.append(faces)
        middle = faces.points_px[0].mean(-2)
        nearest = torch.cdist(middle, view.points_px.mean(-2).transpose(0, 1)).argmin(-1)
        whose.append(torch.tensor(view.order)[nearest].numpy())
    yield from outcomes(people_in(join_views(views), _times(len(whose[0]))), whose)


# --- Presence alone


def _of_presence(generator: np.random.Generator) -> Iterator[Outcome]:
    """Two or three people before two cameras, which see their still faces for some of the time."""
    people = int(generator.integers(2, 4))
    there = np.stack([_there(generator) for _ in range(people)])
    views, whose = [], []
    for _ in range(2):
        seen = there & np.stack([_not_missed(generator) for _ in range(people)])
        owners = [person for person in generator.permutation(people).tolist() if seen[person].sum() >= 3]
        views.append(
            ViewTracks(
                presence=tuple(presence_of(seen[person], 1 / FPS) for person in owners),
                movements=tuple(_still(seen[person]) for person in owners),
            )
        )
        whose.append(owners)
    division = people_across(views)
    for group in division.groups:
        yield _outcome(division, group, whose)


def _still(seen: Bool[np.ndarray, " time"]) -> Movements:
    face = np.array(MEAN_FACE_MM)[:, :2] * (1, -1) + 200.0
    points_px = np.where(seen[:, None, None], face, np.nan)
    return movements(points_px, np.arange(len(seen)) / FPS)


def _there(generator: np.random.Generator) -> Bool[np.ndarray, " time"]:
    """A person who stays, comes late, leaves early, or passes by."""
    first, last = np.sort(generator.integers(0, PRESENCE_FRAMES, 2))
    kind = generator.integers(0, 4)
    frame = np.arange(PRESENCE_FRAMES)
    return (frame >= (first if kind in {1, 3} else 0)) & (
        frame <= (last if kind in {2, 3} else PRESENCE_FRAMES)
    )


def _not_missed(generator: np.random.Generator) -> Bool[np.ndarray, " time"]:
    """The frames in which a camera finds a face that is there: single misses, and a gap."""
    frame = np.arange(PRESENCE_FRAMES)
    start, length = generator.integers(0, PRESENCE_FRAMES), generator.integers(0, LONGEST_GAP + 1)
    in_gap = (frame >= start) & (frame < start + length) & (generator.random() < 0.5)
    return (generator.random(PRESENCE_FRAMES) >= MOST_MISSED * generator.random()) & ~in_gap


if __name__ == "__main__":
    main(tyro.cli(Options))
