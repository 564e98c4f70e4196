"""The search for faces on rendered people: small faces, frames without any, and the uncertainty of hidden points."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from neuface.head.model import HeadModel
from neuface.io.detectors import load_detector
from neuface.io.face_mesh_file import read_face_networks
from neuface.landmarks.candidates import FrameFaces
from neuface.landmarks.face_mesh.detector import FaceMeshDetector
from neuface.landmarks.face_mesh.faces import Faces
from neuface.landmarks.face_mesh.scores import detector_scores, sure_scores
from neuface.landmarks.face_mesh.search import tiles_of
from neuface.landmarks.schemes import MEDIAPIPE478
from neuface.structs import ndc_to_px
from neuface.synthetic.clips import make_talking_clip


@pytest.fixture(scope="module")
def detector() -> FaceMeshDetector:
    loaded = load_detector()
    assert isinstance(loaded, FaceMeshDetector)
    return loaded


def rendered(head: HeadModel, size_px: int) -> tuple[Tensor, Tensor]:
    """A frame of a frontal face, and its MediaPipe landmarks in frame pixels."""
    clip = make_talking_clip(
        head, torch.zeros(head.num_identity), view_yaw_deg=(0.0,), time=1, size_px=size_px, seed=1
    )
    points = ndc_to_px(clip.camera.project(head.landmarks(clip.truth, MEDIAPIPE478.name)), size_px)
    return clip.frames[0], points[0, 0]


def size_of(points_px: Tensor) -> float:
    """The longer side of the landmarks' box."""
    return float((points_px.amax(0) - points_px.amin(0)).amax())


def test_a_face_is_found_where_it_is(open_head: HeadModel, detector: FaceMeshDetector) -> None:
    frames, points = rendered(open_head, 320)
    (found,) = detector.detect(frames)
    assert len(found.score) == 1
    assert float((found.points_px[0] - points).norm(dim=-1).mean()) < 0.04 * size_of(points)
    assert found.uncertainty_px is not None
    assert 0.002 * size_of(points) < float(found.uncertainty_px.mean()) < 0.05 * size_of(points)
    assert bool(((found.confidence > 0) & (found.confidence <= 1)).all())
    assert 0.7 < float(found.score[0]) <= 1


@pytest.mark.parametrize(
    ("height", "width", "place"),
    [
        (1080, 1920, (0.62, 0.55)),
        pytest.param(2160, 3840, (0.62, 0.55), marks=pytest.mark.slow),
        pytest.param(2160, 3840, (0.31, 0.87), marks=pytest.mark.slow),
    ],
)
def test_a_face_of_40_pixels_is_found_in_a_large_frame(
    open_head: HeadModel, detector: FaceMeshDetector, height: int, width: int, place: tuple[float, float]
) -> None:
    small, points = rendered(open_head, 64)
    assert size_of(points) < 46
    corner = torch.tensor([width * place[0], height * place[1]]).round()
    x, y = (int(value) for value in corner)
    frames = torch.full((1, height, width, 3), 110, dtype=torch.uint8)
    frames[0, y : y + 64, x : x + 64] = small[0]
    (found,) = detector.detect(frames)
    middle = found.points_px.mean(1)
    near = (middle - (corner + points.mean(0))).norm(dim=-1) < size_of(points) / 2
    assert int(near.sum()) == 1
    assert float((found.points_px[near][0] - points - corner).norm(dim=-1).mean()) < 0.08 * size_of(points)
    assert float(found.score[near][0]) > 0.7


def test_the_score_is_of_the_place_and_the_size(open_head: HeadModel, detector: FaceMeshDetector) -> None:
    """The same landmarks beside the face, or three times as large, are no face to the detector."""
    frames, points = rendered(open_head, 320)
    beside, large = (
        points + torch.tensor([size_of(points), 0.0]),
        3 * (points - points.mean(0)) + points.mean(0),
    )
    faces = Faces(
        frame=torch.zeros(3, dtype=torch.int64),
        points_px=torch.stack((points, beside, large)),
        presence=torch.ones(3),
        detected=torch.zeros(3),
    )
    networks = read_face_networks()
    score = detector_scores(networks, frames, faces)
    assert float(score[0]) > 0.7
    assert float(score[1:].max()) < 0.3
    # What the detector was sure of in the whole frame is not asked again.
    seen = replace(faces, detected=torch.tensor([0.7, 0.9, 0.0]))
    assert sure_scores(networks, frames, seen).tolist() == pytest.approx(
        [float(score[0]), 0.9, float(score[2])]
    )


def test_frames_without_faces_give_none(detector: FaceMeshDetector) -> None:
    noise = torch.randint(
        0, 256, (2, 90, 120, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    assert [len(item.score) for item in detector.detect(noise)] == [0, 0]
    assert detector.detect(noise[:0]) == []
    assert [len(item.score) for item in detector.look_back(noise, [FrameFaces.none(478)] * 2, [])] == [0, 0]


def test_a_known_face_is_found_though_the_detector_misses_it(
    open_head: HeadModel, detector: FaceMeshDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the frame before and from the frame after, without any box."""
    frames, points = rendered(open_head, 320)
    known = detector.detect(frames)
    monkeypatch.setattr("neuface.landmarks.face_mesh.search.POSSIBLE_SCORE", 1.1)
    monkeypatch.setattr("neuface.landmarks.face_mesh.search.SURE_SCORE", 1.1)
    assert [len(item.score) for item in detector.detect(frames)] == [0]
    for found in (
        detector.detect(frames, known),
        detector.look_back(frames, [FrameFaces.none(478)], known),
        detector.look_near(frames, known[0].points_px),
    ):
        assert [len(item.score) for item in found] == [1]
        assert float((found[0].points_px[0] - points).norm(dim=-1).mean()) < 0.04 * size_of(points)


def test_tiles_of_every_size_cover_the_frame() -> None:
    tiles = torch.from_numpy(tiles_of((1080, 1920)))
    for side in tiles[:, 2].unique():
        centres = tiles[tiles[:, 2] == side, :2]
        low, high = centres - side / 2, centres + side / 2
        for x in range(0, 1920, 97):
            for y in range(0, 1080, 97):
                point = torch.tensor([x, y], dtype=low.dtype)
                assert bool(((low <= point) & (point <= high)).all(-1).any()), (float(side), x, y)
