"""Recorded frames: their folders and persons, random draws, and mirroring with landmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from neuface.errors import InputError
from neuface.io.training_folder import list_footage
from neuface.io.video import write_video
from neuface.training.recordings import draw_frames, mirror_some, read_recordings

FACE_PX = np.random.default_rng(0).uniform(20, 70, (68, 2)).astype(np.float32)


def write_clip(path: Path, frames: int, scheme: str = "ibug68") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, [np.full((96, 96, 3), 8 * index, np.uint8) for index in range(frames)], 25)
    points = np.repeat(FACE_PX[None], frames, 0)
    if scheme == "mediapipe478":
        points = np.concatenate((points, np.repeat(points[:, :1], 410, 1)), 1)
    points[0] = np.nan  # the first frame has no face
    np.savez(path.with_suffix(".landmarks.npz"), points_px=points, scheme=np.array(scheme))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_clip(tmp_path / "anna" / "one.mp4", 4)
    write_clip(tmp_path / "anna" / "two.mp4", 3)
    write_clip(tmp_path / "bert.mp4", 30)
    return tmp_path


def test_clips_belong_to_the_person_of_their_subfolder(folder: Path) -> None:
    found = [(item.person, item.name) for item in list_footage(folder)]
    assert found == [("anna", "one"), ("anna", "two"), ("bert", "bert")]


def test_frames_without_a_face_are_left_out(folder: Path) -> None:
    (footage,) = read_recordings(list_footage(folder))
    assert footage.clip.bincount().tolist() == [3, 2, 29]
    assert footage.person.bincount().tolist() == [5, 29]
    assert footage.pictures.shape == (34, 3, 112, 112)
    assert footage.points_ndc.abs().max() < 1
    (fewer,) = read_recordings(list_footage(folder), max_frames=3)
    assert fewer.clip.bincount().tolist() == [2, 2, 2]


def test_schemes_are_separate(folder: Path) -> None:
    write_clip(folder / "carl" / "dense.mp4", 3, "mediapipe478")
    footage = read_recordings(list_footage(folder))
    assert {item.scheme.name: len(item.clip_names) for item in footage} == {"mediapipe478": 1, "ibug68": 3}
    drawn = draw_frames(footage, 8, torch.Generator().manual_seed(0))
    assert drawn.points_ndc.shape[0] == 8


def test_people_are_drawn_with_equal_probability_whatever_the_length_of_their_clips(folder: Path) -> None:
    footage = read_recordings(list_footage(folder))
    generator = torch.Generator().manual_seed(0)
    people = torch.cat([draw_frames(footage, 16, generator).person for _ in range(60)])
    assert people.bincount().float()[0] / len(people) == pytest.approx(0.5, abs=0.12)
    # Four frames in a row show one person, so that their identities can be compared.
    assert (people.view(-1, 4) == people.view(-1, 4)[:, :1]).all()


def test_a_mirrored_frame_is_mirrored_throughout(folder: Path) -> None:
    (footage,) = read_recordings(list_footage(folder))
    mirrored = mirror_some(footage, torch.Generator().manual_seed(1))
    flipped = mirrored.person >= len(footage.persons)
    assert 0 < int(flipped.sum()) < len(flipped)
    assert torch.equal(mirrored.pictures[flipped], footage.pictures[flipped].flip(-1))
    assert torch.equal(mirrored.pictures[~flipped], footage.pictures[~flipped])
    # The right eye's outer corner becomes a left eye's in the mirror image.
    assert torch.equal(mirrored.points_ndc[flipped, 45, 0], -footage.points_ndc[flipped, 36, 0])
    assert torch.equal(mirrored.points_ndc[flipped, 45, 1], footage.points_ndc[flipped, 36, 1])


def test_the_error_for_an_unusable_folder_names_what_is_missing(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        list_footage(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="hold no video"):
        list_footage(tmp_path / "empty")
    (folder / "bert.landmarks.npz").unlink()
    with pytest.raises(InputError, match=r"bert\.mp4 has no landmarks: expected bert\.landmarks\.npz"):
        list_footage(folder)
