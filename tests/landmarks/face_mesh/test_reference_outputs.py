"""Every stage of the face networks against reference outputs of the official program on real frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_folders import DATA, needs

from neuface.io.face_mesh_file import read_face_networks
from neuface.io.video import VideoSource
from neuface.landmarks.face_mesh.boxes import faces_of
from neuface.landmarks.face_mesh.looks import (
    detector_outputs,
    landmarks_in,
    placed_faces,
    region_of,
    whole_frames,
)
from neuface.landmarks.face_mesh.networks import DETECTOR_PX, LANDMARKER_PX, FaceNetworks
from neuface.landmarks.face_mesh.regions import Regions, sampled

REFERENCES = DATA.parent / "parity" / "face_landmarker" / "reference"
FRAMES = (
    "bbaf2n_0000", "lbax4n_0037", "swwp2s_0074", "cap12_0000", "cap12_0400", "cap12_1000", "gif_female_0000",
    "gif_female_0011", "gif_female_0020", "cam_0_0060", "cam_1_0058", "cam_2_0048", "cam_3_0000",
)  # fmt: skip
pytestmark = needs(REFERENCES)

Reference = dict[str, Any]


@pytest.fixture(scope="module")
def networks() -> FaceNetworks:
    return read_face_networks()


@pytest.fixture(params=FRAMES)
def reference(request: pytest.FixtureRequest) -> Reference:
    with np.load(REFERENCES / f"{request.param}.npz") as archive:
        return dict(archive)


def picture(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values)[None].permute(0, 3, 1, 2).float()


def frame_of(reference: Reference) -> torch.Tensor:
    index = int(reference["frame"])
    return VideoSource(DATA.parent / str(reference["path"])).read(0, index, index + 1)


def reference_region(reference: Reference) -> Regions:
    x, y, side, angle = (float(value) for value in reference["roi"])
    return Regions(
        frame=torch.zeros(1, dtype=torch.int64),
        centre=torch.tensor([[x, y]], dtype=torch.float64),
        side=torch.tensor([side], dtype=torch.float64),
        angle=torch.tensor([angle], dtype=torch.float64),
    )


def best_region(networks: FaceNetworks, frame: torch.Tensor) -> Regions:
    """The region of the best face in a single frame."""
    windows = whole_frames(frame)
    (boxes,) = placed_faces(detector_outputs(networks, frame, windows), windows, 0.5)
    return region_of(boxes, 0)[:1]


def test_networks_equal_the_official_ones(networks: FaceNetworks, reference: Reference) -> None:
    boxes, logits = networks.detector(picture(reference["detector_input"]) / 127.5 - 1)
    raw = networks.landmarker(picture(reference["landmark_input"]) / 255)
    points = torch.from_numpy(reference["landmarks_frame"])[None, :, :2]
    scores = networks.scorer(points)
    np.testing.assert_allclose(boxes[0].numpy(), reference["detector_boxes"], atol=1e-3)
    np.testing.assert_allclose(logits[0].numpy(), reference["detector_scores"][:, 0], atol=1e-3)
    np.testing.assert_allclose(raw.points[0].numpy(), reference["landmarks_raw"], atol=1e-3)
    np.testing.assert_allclose(raw.presence_logit.numpy(), reference["presence_logit"], atol=1e-3)
    np.testing.assert_allclose(raw.third_output.numpy(), reference["third_output"], atol=1e-3)
    np.testing.assert_allclose(scores[0].numpy(), reference["blendshapes"], atol=1e-4)


def test_boxes_are_averaged_as_in_the_official_program(reference: Reference) -> None:
    raw = torch.from_numpy(reference["detector_boxes"])[None]
    (boxes,) = faces_of(raw, torch.from_numpy(reference["detector_scores"])[None, :, 0], 0.5)
    assert len(boxes.score) == reference["detections"]
    np.testing.assert_allclose(boxes.corners[0], reference["detection_box"], atol=1e-6)
    np.testing.assert_allclose(boxes.keypoints[0], reference["detection_keypoints"], atol=1e-6)
    np.testing.assert_allclose(boxes.score[0], reference["detection_score"], atol=1e-6)


def test_pictures_of_regions_equal_the_official_ones(reference: Reference) -> None:
    frame = frame_of(reference)
    seen = sampled(frame, whole_frames(frame), DETECTOR_PX, repeat_border=False)
    crop = sampled(frame, reference_region(reference), LANDMARKER_PX, repeat_border=True)
    assert (seen[0].permute(1, 2, 0).numpy() != reference["detector_input"]).mean() < 1e-3
    assert (crop[0].permute(1, 2, 0).numpy() != reference["landmark_input"]).mean() < 1e-3


def test_the_whole_chain_equals_the_official_one(networks: FaceNetworks, reference: Reference) -> None:
    frame = frame_of(reference)
    region = best_region(networks, frame)
    found = landmarks_in(networks, frame, region)
    expected = reference_region(reference)
    for got, wanted in ((region.centre, expected.centre), (region.side, expected.side)):
        torch.testing.assert_close(got, wanted, atol=1e-3, rtol=0)
    torch.testing.assert_close(region.angle, expected.angle, atol=1e-5, rtol=0)
    # The official program reports coordinates from the first pixel's corner; ours are from its centre.
    official = reference["mediapipe_landmarks"][:, :2] - 0.5
    eye_distance = np.linalg.norm(official[33] - official[263])
    error = np.linalg.norm(found.points_px[0, :, :2].numpy() - official, axis=-1).mean() / eye_distance
    assert error < 0.0005  # of the outer eye distance; 0.2 % is what the project asks


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reference", "clip"),
    [
        ("official_bbaf2n", "grid_corpus/bbaf2n.mpg"),
        ("official_gif_female", "intel_head_pose/head-pose-face-detection-female.gif"),
    ],
    indirect=["reference"],
)
def test_whole_clips_equal_the_official_program(
    networks: FaceNetworks, reference: Reference, clip: Path
) -> None:
    source = VideoSource(DATA / clip)
    official = torch.from_numpy(reference["landmarks"])[..., :2] - 0.5
    for index in range(source.time):
        frame = source.read(0, index, index + 1)
        found = landmarks_in(networks, frame, best_region(networks, frame))
        scores = networks.scorer(found.points_px[..., :2])
        eye_distance = (official[index, 33] - official[index, 263]).norm()
        error = (found.points_px[0, :, :2] - official[index]).norm(dim=-1).mean() / eye_distance
        assert error < 0.002
        np.testing.assert_allclose(scores[0].numpy(), reference["blendshapes"][index], atol=0.01)
