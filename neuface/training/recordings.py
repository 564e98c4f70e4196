"""Recordings of real people as training data: crops and landmarks by person, without any 3D truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from neuface.clips import read_clip
from neuface.cropping import OPEN_CROP, iterate_crops, steady_crops
from neuface.encoders.open_encoder import shrunk
from neuface.errors import InputError
from neuface.io.training_folder import FootageFile
from neuface.structs import Scheme, TensorStruct

# Number of frames of one person in a row in a batch; their identity codes are compared.
FRAMES_OF_A_PERSON = 4
# Share of the frames that are mirrored.
MIRRORED_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class RecordedFrames(TensorStruct):
    """Frames with landmarks of one scheme; frames without usable landmarks are left out."""

    pictures: UInt8[Tensor, "n 3 s s"]
    """Crops at the size of the open encoder's inputs."""
    points_ndc: Float[Tensor, "n points 2"]
    confidence: Float[Tensor, "n points"]
    clip: Int[Tensor, " n"]
    """Index into `clip_names`."""
    person: Int[Tensor, " n"]
    """Index into `persons`."""
    scheme: Scheme
    clip_names: tuple[str, ...]
    persons: tuple[str, ...]


def read_recordings(files: Sequence[FootageFile], max_frames: int | None = None) -> list[RecordedFrames]:
    """Crops and landmarks of clips, one `RecordedFrames` per landmark scheme.

    Args:
        max_frames: number of frames at the start of each clip that are used; None for all.

    Raises:
        InputError: `read_clip` refuses a clip, or a clip has no frame with usable landmarks.
    """
    persons = tuple(sorted({file.person for file in files}))
    by_scheme: dict[Scheme, list[tuple[FootageFile, RecordedFrames]]] = {}
    for file in files:
        piece = _read_clip(file, persons, max_frames)
        by_scheme.setdefault(piece.scheme, []).append((file, piece))
    return [
        RecordedFrames(
            pictures=torch.cat([piece.pictures for _, piece in pieces]),
            points_ndc=torch.cat([piece.points_ndc for _, piece in pieces]),
            confidence=torch.cat([piece.confidence for _, piece in pieces]),
            clip=torch.cat([piece.clip + number for number, (_, piece) in enumerate(pieces)]),
            person=torch.cat([piece.person for _, piece in pieces]),
            scheme=scheme,
            clip_names=tuple(file.title for file, _ in pieces),
            persons=persons,
        )
        for scheme, pieces in by_scheme.items()
    ]


def _read_clip(file: FootageFile, persons: tuple[str, ...], max_frames: int | None) -> RecordedFrames:
    clip = read_clip(file.video, file.landmarks, max_frames=max_frames)
    track = clip.track
    if not bool(track.usable.any()):
        raise InputError(f"{file.video}: no frame has usable landmarks")
    crops = steady_crops(track, clip.recording.sizes_hw, OPEN_CROP)
    pictures = torch.cat(
        [
            (shrunk(piece) * 255).round().to(torch.uint8)
            for _, piece in iterate_crops(clip.recording.frames, crops)
        ]
    )
    usable = track.usable.flatten()
    person = persons.index(file.person)
    return RecordedFrames(
        pictures=pictures[usable],
        points_ndc=crops.frame_to_ndc(track.points_px).flatten(0, 1)[usable],
        confidence=track.confidence.flatten(0, 1)[usable],
        clip=torch.zeros(int(usable.sum()), dtype=torch.long),
        person=torch.full((int(usable.sum()),), person),
        scheme=track.scheme,
        clip_names=(file.title,),
        persons=persons,
    )


def draw_frames(footage: Sequence[RecordedFrames], count: int, generator: torch.Generator) -> RecordedFrames:
    """Random frames of one scheme, four of each drawn person.

    Drawing people first gives people with long clips no larger weight.
    """
    sizes = torch.tensor([float(len(item.person.unique())) for item in footage])
    chosen = footage[int(torch.multinomial(sizes, 1, generator=generator))]
    people = chosen.person.unique()
    drawn = []
    for start in range(0, count, FRAMES_OF_A_PERSON):
        person = people[torch.randint(len(people), (1,), generator=generator)]
        rows = (chosen.person == person).nonzero()[:, 0]
        wanted = min(FRAMES_OF_A_PERSON, count - start)
        drawn.append(rows[torch.randint(len(rows), (wanted,), generator=generator)])
    return chosen[torch.cat(drawn)]


def mirror_some(footage: RecordedFrames, generator: torch.Generator) -> RecordedFrames:
    """The frames with a random half of them mirrored.

    The mirrored face of a person has another shape, so that these frames are labelled as another person's.
    """
    flipped = torch.rand(len(footage.person), generator=generator) < MIRRORED_SHARE
    order = list(footage.scheme.mirrored)
    points = footage.points_ndc[:, order] * footage.points_ndc.new_tensor((-1.0, 1.0))
    return replace(
        footage,
        pictures=torch.where(flipped[:, None, None, None], footage.pictures.flip(-1), footage.pictures),
        points_ndc=torch.where(flipped[:, None, None], points, footage.points_ndc),
        confidence=torch.where(flipped[:, None], footage.confidence[:, order], footage.confidence),
        person=footage.person + flipped * len(footage.persons),
    )
