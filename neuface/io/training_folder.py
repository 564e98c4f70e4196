"""The folder of one training run (rendered pictures, checkpoint, log, best weights), and folders of real footage."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuface.encoders.open_encoder import OpenEncoder
from neuface.errors import InputError
from neuface.head.model import HeadModel
from neuface.io.atomic import atomic_path
from neuface.io.npz import read_arrays
from neuface.io.open_model.encoder_file import read_encoder, write_encoder
from neuface.io.video import write_image

VIDEO_ENDINGS = (".mp4", ".mpg", ".mpeg", ".mkv", ".mov", ".avi", ".webm", ".gif")
LANDMARK_ENDING = ".landmarks.npz"


class TrainingFolder:
    """Names and formats of all files of a training run; every file is complete or absent."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Raises InputError when the folder cannot be made."""
        self.path = Path(folder)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be used as a folder for training ({error})") from error

    @property
    def best_weights(self) -> Path:
        return self.path / "best.safetensors"

    def has_shard(self, number: int) -> bool:
        return self._shard(number).exists()

    def write_shard(self, number: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write without compression: noisy pictures hardly compress, and decompression would slow down every read."""
        with atomic_path(self._shard(number)) as temporary, open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    def read_shard(self, number: int) -> dict[str, np.ndarray]:
        """The arrays of a shard. Raises InputError when it is missing or damaged."""
        return read_arrays(self._shard(number))

    def write_checkpoint(self, state: dict[str, Any]) -> None:
        """Write tensors and plain values for `read_checkpoint`."""
        with atomic_path(self._checkpoint) as temporary:
            torch.save(state, temporary)

    def read_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint, on the CPU; None where there is none.

        Raises InputError for a file that is damaged or holds anything but tensors and plain values.
        """
        if not self._checkpoint.exists():
            return None
        try:
            state = torch.load(self._checkpoint, weights_only=True, map_location="cpu")
        except Exception as error:
            # Torch's reader can raise any type of error on a damaged pickle.
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"{self._checkpoint} cannot be read; delete it to begin anew ({reason})"
            ) from error
        if not isinstance(state, dict):
            raise InputError(
                f"{self._checkpoint} is not a checkpoint of this package; delete it to begin anew"
            )
        return state

    def write_best(self, encoder: OpenEncoder, metadata: Mapping[str, str]) -> None:
        write_encoder(self.best_weights, encoder, metadata)

    def read_best(self, head: HeadModel) -> OpenEncoder:
        """The weights of the last `write_best`. Raises InputError when there are none."""
        return read_encoder(self.best_weights, head)

    def write_finished(self, encoder: OpenEncoder, metadata: Mapping[str, str]) -> None:
        write_encoder(self.path / "encoder.safetensors", encoder, metadata)

    def write_log(self, rows: list[dict[str, Any]]) -> None:
        """The figures of every check so far, one JSON object per line."""
        with atomic_path(self.path / "log.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write_picture(self, name: str, picture: Any) -> None:
        """Write a picture for people; the training run never reads it."""
        write_image(self.path / name, picture)

    @property
    def _checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    def _shard(self, number: int) -> Path:
        return self.path / f"shard_{number:04d}.npz"


@dataclass(frozen=True, kw_only=True)
class FootageFile:
    """One clip of a footage folder."""

    person: str
    name: str
    video: Path
    landmarks: Path

    @property
    def title(self) -> str:
        """Person and name: clips of two people may have one name, but their titles differ."""
        return self.name if self.name == self.person else f"{self.person}/{self.name}"


def list_footage(folder: str | os.PathLike[str]) -> list[FootageFile]:
    """The clips of a folder of real footage, in alphabetical order.

    A video lies in a subfolder named after the person it shows. One that lies in the folder itself counts as the only
    clip of a person of its name. Beside `NAME.mp4` lies `NAME.landmarks.npz` (see `neuface.io.landmarks`).

    Raises:
        InputError: There is no such folder, no video in it, or a video without landmarks.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder of footage")
    videos = [path for path in (*root.iterdir(), *root.glob("*/*")) if path.suffix.lower() in VIDEO_ENDINGS]
    if not videos:
        raise InputError(f"{root} and its subfolders hold no video ({', '.join(VIDEO_ENDINGS)})")
    clips = []
    for video in sorted(videos):
        landmarks = video.with_suffix(LANDMARK_ENDING)
        if not landmarks.is_file():
            raise InputError(
                f"{video} has no landmarks: expected {landmarks.name} beside it. Make it with "
                "neuface.io.landmarks.write_landmarks(PATH, neuface.read_clip(VIDEO).track)"
            )
        person = video.stem if video.parent == root else video.parent.name
        clips.append(FootageFile(person=person, name=video.stem, video=video, landmarks=landmarks))
    return clips
