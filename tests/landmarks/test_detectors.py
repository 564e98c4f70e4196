"""Both adapters against the real packages; face-alignment with random weights under the official names."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from data_folders import DATA, needs

from neuface.errors import InputError, MissingDependencyError
from neuface.io.landmarks import read_landmarks
from neuface.io.video import VideoSource
from neuface.landmarks.candidates import FrameFaces
from neuface.landmarks.detectors import (
    FACE_ALIGNMENT_WEIGHTS,
    Detector,
    FaceAlignmentDetector,
    MediaPipeDetector,
)

TASK = DATA / "mediapipe_face_landmarker" / "face_landmarker.task"
needs_mediapipe = pytest.mark.skipif(
    importlib.util.find_spec("mediapipe") is None, reason="needs mediapipe (neuface[mediapipe])"
)


@pytest.fixture(scope="module")
def face_alignment(tmp_path_factory: pytest.TempPathFactory) -> FaceAlignmentDetector:
    pytest.importorskip("face_alignment")
    from face_alignment.detection.sfd.net_s3fd import s3fd
    from face_alignment.models import FAN

    folder = tmp_path_factory.mktemp("torch") / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(FAN(4).state_dict(), folder / FACE_ALIGNMENT_WEIGHTS[0])
    face_finder = s3fd().state_dict()
    for name, value in face_finder.items():
        if name.endswith("_conf.bias"):
            value[-1] = -100.0  # the last channel is "face": this one never sees any
    torch.save(face_finder, folder / FACE_ALIGNMENT_WEIGHTS[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.hub, "get_dir", lambda: str(folder.parent))
        patch.setattr("face_alignment.utils.get_dir", lambda: str(folder.parent))
        return FaceAlignmentDetector()


def test_a_frame_without_a_face_has_none(face_alignment: FaceAlignmentDetector) -> None:
    assert isinstance(face_alignment, Detector)
    frames = torch.zeros(2, 64, 80, 3, dtype=torch.uint8)
    assert [face.points_px.shape for face in face_alignment.detect(frames)] == [(0, 68, 2)] * 2


@pytest.mark.slow  # numba compiles for most of its time
def test_every_box_is_aligned(face_alignment: FaceAlignmentDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each face has the same landmarks as if the face finder had found it alone."""
    small, large = np.array([5.0, 5, 25, 25, 0.9]), np.array([60.0, 20, 140, 100, 0.6])
    frame = torch.randint(0, 256, (1, 128, 160, 3), dtype=torch.uint8)

    def faces_of(*boxes: np.ndarray) -> FrameFaces:
        detector = face_alignment._model.face_detector
        monkeypatch.setattr(detector, "detect_from_image", lambda _: list(boxes))
        return face_alignment.detect(frame)[0]

    empty = np.array([7.0, 7, 7, 9, 0.9])
    both = faces_of(small, empty, large)
    for face, box in enumerate((small, large)):
        alone = faces_of(box)
        assert torch.equal(both.points_px[face], alone.points_px[0])
        assert torch.equal(both.confidence[face], alone.confidence[0])
    assert both.score.tolist() == pytest.approx([0.9, 0.6])
    assert ((both.confidence >= 0) & (both.confidence <= 1)).all()


def test_missing_weights_say_which_files_go_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("face_alignment")

    def no_network(*_args: object, **_kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("face_alignment.detection.sfd.sfd_detector.load_state_dict_from_url", no_network)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(MissingDependencyError, match="landmarks=") as caught:
        FaceAlignmentDetector()
    assert all(name in str(caught.value) for name in (*FACE_ALIGNMENT_WEIGHTS, str(tmp_path)))


def test_damaged_weights_are_an_input_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("face_alignment")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / FACE_ALIGNMENT_WEIGHTS[1]).write_bytes(b"damaged")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(InputError, match="cannot be loaded"):
        FaceAlignmentDetector()


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "face_alignment", None)
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(MissingDependencyError, match=r"'neuface\[fan\]'"):
        FaceAlignmentDetector()
    with pytest.raises(MissingDependencyError, match=r"neuface\[mediapipe\]"):
        MediaPipeDetector("face_landmarker.task")


@needs_mediapipe
@needs(TASK, DATA / "grid_corpus")
def test_mediapipe_agrees_with_the_recorded_landmarks() -> None:
    source = VideoSource(DATA / "grid_corpus" / "bbaf2n.mpg")
    detector = MediaPipeDetector(TASK)
    frames = torch.cat([source.read(0, 10, 11), torch.zeros(1, 288, 360, 3, dtype=torch.uint8)])
    face, black = detector.detect(frames)
    recorded = read_landmarks(DATA / "grid_corpus" / "bbaf2n.landmarks.npz").points_px[0, 10]
    assert (face.points_px[0] - recorded).norm(dim=-1).mean() < 1.0
    assert (face.confidence == 1).all()
    assert len(black.score) == 0


@needs_mediapipe
def test_files_that_are_no_mediapipe_model_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.task").write_bytes(b"no model")
    for name in ("missing.task", "bad.task"):
        with pytest.raises(InputError, match=name):
            MediaPipeDetector(tmp_path / name)
