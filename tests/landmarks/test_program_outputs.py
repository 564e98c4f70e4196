"""Landmarks as face-alignment and MediaPipe return them in Python."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from neuface.errors import InputError
from neuface.landmarks.arrays import as_faces

FACES = np.random.default_rng(1).uniform(20, 50, (4, 2, 68, 2)).astype(np.float32)
SIZE_HW = (60, 80)


def test_face_alignments_lists_may_hold_none_and_several_faces() -> None:
    depth = np.concatenate([FACES, 30 * FACES[..., :1]], -1)
    for frames in (
        [list(FACES[0]), None, list(FACES[2]), [FACES[3, 0]]],
        [list(depth[0]), [], list(depth[2]), depth[3, :1]],
        [torch.from_numpy(FACES[0]), None, torch.from_numpy(FACES[2]), torch.from_numpy(FACES[3, 0])],
        [FACES[0].tolist(), None, FACES[2].tolist(), FACES[3, 0].tolist()],
        np.array([list(FACES[0]), None, list(FACES[2]), [FACES[3, 0]]], dtype=object),
    ):
        faces = as_faces(frames, 1, 4)
        assert faces.points_px.shape == (1, 4, 2, 68, 2)
        assert (faces.confidence.amax(-1) > 0).tolist() == [
            [[True, True], [False] * 2, [True] * 2, [True, False]]
        ]
        assert np.array_equal(faces.points_px[0, 2].numpy(), FACES[2])
    two = as_faces([[FACES[0, 0], None, FACES[2, 0], FACES[3, 0]], list(FACES[:, 1])], 2, 4)
    assert two.points_px.shape == (2, 4, 1, 68, 2)


def points_of(face: np.ndarray) -> list[SimpleNamespace]:
    """Points as MediaPipe returns them: parts of the width and height, from edge to edge."""
    height, width = SIZE_HW
    return [SimpleNamespace(x=(x + 0.5) / width, y=(y + 0.5) / height, z=-0.1) for x, y in face]


def test_mediapipes_results_become_pixels() -> None:
    faces = np.random.default_rng(2).uniform(20, 50, (4, 2, 478, 2)).astype(np.float32)
    tasks = [SimpleNamespace(face_landmarks=[points_of(face) for face in frame]) for frame in faces]
    tasks[1] = SimpleNamespace(face_landmarks=[])
    legacy = [
        SimpleNamespace(multi_face_landmarks=[SimpleNamespace(landmark=points_of(face)) for face in frame])
        for frame in faces
    ]
    legacy[1] = SimpleNamespace(multi_face_landmarks=None)
    bare = [item.face_landmarks for item in tasks]
    for results in (tasks, legacy, bare):
        found = as_faces(results, 1, 4, sizes_hw=[SIZE_HW])
        assert found.scheme.name == "mediapipe478"
        assert np.allclose(found.points_px[0, 2].numpy(), faces[2], atol=1e-3)
        assert not found.confidence[0, 1].any()
    single = as_faces(tasks[0], 1, 1, sizes_hw=[SIZE_HW])
    assert np.allclose(single.points_px[0, 0].numpy(), faces[0], atol=1e-3)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([None] * 4, "none of the 4 frames has a face"),
        ([FACES[0], FACES[1][:, :51], None, None], "differ in shape"),
        ([FACES[0], "x", None, None], "a list of 4 frames|one per view"),
        ([FACES[0], [["a", "b"]], None, None], "numbers"),
        ([SimpleNamespace(face_landmarks=[points_of(FACES[0, 0])])] * 4, "size of the frame is not known"),
    ],
)
def test_lists_of_something_else_are_refused(value: list[object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_faces(value, 1, 4)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (FACES[:, 0].swapaxes(1, 2), r"points.swapaxes\(-1, -2\)"),
        (FACES[:, 0].reshape(4, 136), r"points.reshape\(-1, 68, 2\)"),
    ],
)
def test_axes_in_another_order_are_refused_with_the_remedy(value: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_faces(value, 1, 4)
