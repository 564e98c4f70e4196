"""Calibrated cameras of one recording, from the files of common calibration programs."""

from neuface.io.cameras.camera_set import CameraSet
from neuface.io.cameras.reading import read_cameras

__all__ = ["CameraSet", "read_cameras"]
