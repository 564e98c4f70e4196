"""Landmark detectors behind one protocol; the third-party packages are imported when one is constructed."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from neuface.errors import InputError, MissingDependencyError
from neuface.landmarks.candidates import FrameFaces
from neuface.landmarks.schemes import IBUG68, MEDIAPIPE478
from neuface.structs import Scheme

FACE_ALIGNMENT_WEIGHTS = ("2DFAN4-11f355bf06.pth.tar", "s3fd-619a316812.pth")

# Limit of the faces in one picture.
MEDIAPIPE_MAX_FACES = 5


@runtime_checkable
class Detector(Protocol):
    """Finds the landmarks of all faces in every frame; `neuface.landmarks.tracking` determines whose they are."""

    @property
    def scheme(self) -> Scheme:
        """The numbering of the points."""
        ...

    def detect(self, frames: UInt8[Tensor, "n h w 3"]) -> list[FrameFaces]:
        """The faces in every frame of a piece of a recording, which is read from its beginning to its end."""
        ...


@runtime_checkable
class FollowingDetector(Detector, Protocol):
    """A detector that looks for a face where other frames show it."""

    memory: int
    """Number of frames over which it does."""

    def detect(self, frames: UInt8[Tensor, "n h w 3"], before: Sequence[FrameFaces] = ()) -> list[FrameFaces]:
        """The faces of every frame, with those whom its neighbours in the piece show, in both directions.

        Args:
            before: the faces of the frames before, in time order.
        """
        ...

    def lacks(self, found: FrameFaces, after: Sequence[FrameFaces]) -> bool:
        """Whether the frames after one show somebody whom it may show too."""
        ...

    def look_back(
        self, frames: UInt8[Tensor, "n h w 3"], found: Sequence[FrameFaces], after: Sequence[FrameFaces]
    ) -> list[FrameFaces]:
        """The faces of frames in which some were found, with those whom the frames after them show."""
        ...

    def look_near(
        self, frames: UInt8[Tensor, "n h w 3"], expected_px: Float[Tensor, "n points 2"]
    ) -> list[FrameFaces]:
        """In every frame the face nearest to where landmarks are expected, or none."""
        ...


class FaceAlignmentDetector:
    """iBUG-68 landmarks by the `face-alignment` package (S3FD finds the face, 2D-FAN-4 its points).

    The points follow the visible contour. Whole pixels, as the package returns them.

    Raises:
        MissingDependencyError: The package is not installed, or its weights are neither in torch's cache nor
            to be had by download.
        InputError: The weights are there but cannot be loaded.
    """

    scheme = IBUG68

    def __init__(self, device: str = "cpu", *, flip_input: bool = True) -> None:
        """Load both networks. `flip_input` averages with the mirrored image: steadier, twice the time."""
        try:
            import face_alignment
        except ImportError as error:
            raise MissingDependencyError(
                "detecting landmarks needs the package face-alignment: pip install 'neuface[fan]', "
                "or give landmarks= yourself"
            ) from error
        self._heatmap_scale = 2.0 if flip_input else 1.0
        try:
            # torch.compile would cost its warm-up at every start on a CPU, for a few calls per clip.
            self._model: Any = face_alignment.FaceAlignment(
                face_alignment.LandmarksType.TWO_D, device=device, compile=False, flip_input=flip_input
            )
        except OSError as error:  # URLError, timeouts and unwritable folders are all OSError
            raise MissingDependencyError(_missing_weights_message(error)) from error
        except Exception as error:  # unpickling has many ways to fail
            if torch.device(device).type != "cpu":
                raise  # more likely the device than the file
            raise InputError(
                f"face-alignment: the weights in {_weights_folder()} cannot be loaded ({error}); "
                f"expected the official {' and '.join(FACE_ALIGNMENT_WEIGHTS)}: delete and reload them"
            ) from error

    def detect(self, frames: UInt8[Tensor, "n h w 3"]) -> list[FrameFaces]:
        """See `Detector.detect`."""
        return [self._faces_in(frame) for frame in frames.cpu().numpy()]

    def _faces_in(self, frame: np.ndarray) -> FrameFaces:
        count = self.scheme.count
        found = self._model.face_detector.detect_from_image(frame.copy())
        boxes = [box for box in found if box[2] > box[0] and box[3] > box[1]]
        if not boxes:
            return FrameFaces.none(count)
        points, scores, _ = self._model.get_landmarks_from_image(
            frame, detected_faces=boxes, return_bboxes=True, return_landmark_score=True
        )
        # With the mirrored image the package returns the sum of two heatmaps.
        confidence = torch.as_tensor(np.asarray(scores), dtype=torch.float32).reshape(len(boxes), count)
        return FrameFaces(
            points_px=torch.as_tensor(np.asarray(points), dtype=torch.float32),
            confidence=(confidence / self._heatmap_scale).clamp(0, 1),
            score=torch.tensor([float(box[4]) for box in boxes]).clamp(0, 1),
        )


def _weights_folder() -> str:
    return os.path.join(torch.hub.get_dir(), "checkpoints")


def _missing_weights_message(error: OSError) -> str:
    names = " and ".join(FACE_ALIGNMENT_WEIGHTS)
    return (
        f"face-alignment: its weights are not on this machine and could not be downloaded ({error}). "
        f"Put {names} into {_weights_folder()}, or give landmarks= yourself"
    )


class MediaPipeDetector:
    """MediaPipe's 478 landmarks (FaceLandmarker, one image at a time).

    MediaPipe has no confidence per point: every point of a face that was found has 1.

    Raises:
        MissingDependencyError: `mediapipe` is not installed (`pip install 'neuface[mediapipe]'`).
        InputError: The model file is missing or is not a face landmarker task.
    """

    scheme = MEDIAPIPE478

    def __init__(self, model_path: str | os.PathLike[str]) -> None:
        """`model_path`: Google's `face_landmarker.task`, which the package does not contain."""
        try:
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision
        except ImportError as error:
            raise MissingDependencyError(
                "detecting landmarks with MediaPipe needs its package: pip install 'neuface[mediapipe]'"
            ) from error
        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=os.fspath(model_path)),
            num_faces=MEDIAPIPE_MAX_FACES,
        )
        try:
            self._landmarker: Any = vision.FaceLandmarker.create_from_options(options)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"{os.fspath(model_path)}: cannot be used as a face_landmarker.task ({error}); expected the "
                "path of Google's FaceLandmarker model bundle"
            ) from error
        self._mediapipe: Any = mediapipe
        # Closed by its own destructor at exit it would meet modules that are gone already.
        weakref.finalize(self, self._landmarker.close)

    def detect(self, frames: UInt8[Tensor, "n h w 3"]) -> list[FrameFaces]:
        """See `Detector.detect`."""
        return [self._faces_in(frame) for frame in frames.cpu().numpy()]

    def _faces_in(self, frame: np.ndarray) -> FrameFaces:
        height, width = frame.shape[:2]
        image = self._mediapipe.Image(
            image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(frame)
        )
        faces = self._landmarker.detect(image).face_landmarks
        if not faces:
            return FrameFaces.none(self.scheme.count)
        # Normalised to 0..1 between the frame's outer edges; pixel centres are at integers here.
        size_xy = torch.tensor([width, height], dtype=torch.float32)
        points = torch.tensor([[(point.x, point.y) for point in face] for face in faces]) * size_xy - 0.5
        return FrameFaces(
            points_px=points, confidence=torch.ones(points.shape[:2]), score=torch.ones(len(faces))
        )
