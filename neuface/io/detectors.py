"""Detectors by name, with the files that they need."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, get_args

import torch

from neuface.devices import checked_device
from neuface.errors import InputError
from neuface.io.face_mesh_file import read_face_networks
from neuface.landmarks.detectors import (
    Detector,
    FaceAlignmentDetector,
    MediaPipeDetector,
)
from neuface.landmarks.face_mesh.detector import FaceMeshDetector

DetectorName = Literal["face-mesh", "fan", "mediapipe"]
"""face-mesh: the networks inside this package. fan: the paper's, by the package face-alignment, which downloads its
weights. mediapipe: Google's package, with a model bundle of your own."""
BUNDLE_NAME = "face_landmarker.task"


def load_detector(
    name: DetectorName = "face-mesh",
    *,
    device: str | torch.device = "cpu",
    assets: str | os.PathLike[str] | None = None,
) -> Detector:
    """A detector of facial landmarks.

    Args:
        device: where its networks compute; `mediapipe` computes on the CPU.
        assets: the folder in which `mediapipe` finds `face_landmarker.task`, or the path of that file.

    Raises:
        InputError: there is no detector of that name, the device cannot be used, or a file is missing or damaged.
        MissingDependencyError: a package or its weights are missing.
    """
    place = checked_device(device)
    if name == "face-mesh":
        return FaceMeshDetector(read_face_networks(), place)
    if name == "fan":
        return FaceAlignmentDetector(str(place))
    if name == "mediapipe":
        if assets is None:
            raise InputError(
                f"the detector 'mediapipe' needs Google's {BUNDLE_NAME}: name its folder as the folder of assets, or "
                "use the detector 'face-mesh', which needs no file and gives the same landmarks"
            )
        path = Path(assets)
        return MediaPipeDetector(path / BUNDLE_NAME if path.is_dir() else path)
    names = ", ".join(get_args(DetectorName))
    raise InputError(f"detector: expected one of {names}, got {name!r}")
