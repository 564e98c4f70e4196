"""Models by name: a head and its encoder as one value."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from neuface.cropping import OPEN_CROP, CropRule
from neuface.encoders.calibration import OPEN_ENCODER, UNCALIBRATED, EncoderCalibration
from neuface.encoders.predictor import Predictor
from neuface.errors import InputError
from neuface.head.model import HeadModel
from neuface.head.open_head import OPEN_HEAD_NAME
from neuface.io.assets.flame_models import (
    FLAME_MODELS,
    find_model_files,
    read_flame_encoder,
    read_flame_head,
)
from neuface.io.flame.model_file import read_flame
from neuface.io.heads import is_written_head, read_head
from neuface.io.open_model.encoder_file import read_open_encoder
from neuface.io.open_model.head_file import read_open_head
from neuface.io.untrusted.array_files import exists


@dataclass(frozen=True, kw_only=True)
class FaceModel:
    """A head model, the pretrained encoder that predicts its parameters, and the rule of the encoder's crops."""

    name: str
    head: HeadModel
    encoder: Predictor
    crop_rule: CropRule = OPEN_CROP
    calibration: EncoderCalibration = UNCALIBRATED
    """Measured errors of the encoder; `UNCALIBRATED` for DECA, EMOCA and SMIRK, whose errors were not measured."""


def load_head(name: str | Path = "open") -> HeadModel:
    """The head model of that name or in that file, on the CPU.

    "open" is the head that ships with the package; repeated calls return the same object.

    "deca", "emoca" or "smirk" is the FLAME head that `load_model` finds for them.

    Anything else is the path of a FLAME model file, of a folder that holds one, or of a copy that
    `neuface assets convert` made. The companions of a FLAME file (landmarks, masks, texture coordinates) are
    read from its folder: see `neuface.io.flame.model_file.read_flame`, which also takes other paths and the version.

    Raises:
        InputError: The name is unknown, or the file is not a head model, is damaged, or contains code.
        ModelMismatchError: The folder holds only another version of FLAME than the encoder was trained with.
    """
    if name in ("open", OPEN_HEAD_NAME):
        return read_open_head()
    if isinstance(name, str) and name in FLAME_MODELS:
        return read_flame_head(name, find_model_files(name, None, with_weights=False))
    path = Path(name).expanduser()
    if not exists(path):
        raise InputError(
            f"unknown head model {str(name)!r}: expected 'open', or the path of a FLAME model file or of a folder "
            "that holds one, and there is no such file or folder"
        )
    return read_head(path) if is_written_head(path) else read_flame(path)


def load_model(
    name: str = "open", *, assets: str | os.PathLike[str] | None = None, trainable: str = "both"
) -> FaceModel:
    """The model of that name: its head, its pretrained encoder and its crop rule, on the CPU.

    Args:
        name: "open", or "deca", "emoca" or "smirk", whose licensed files each user gets from their authors.
        assets: the folder that holds those files, in itself or in subfolders; the default is the one that the
            environment variable `NEUFACE_ASSETS` names, else a per-user data folder
            (`neuface.io.assets.catalogue.assets_dirs`). Copies made by `neuface assets convert` replace the
            originals.
        trainable: for "emoca", which of its two networks a fit that fine-tunes them (`FitConfig.neural()`) may
            change: "both", "coarse" or "expression".

    Raises:
        InputError: The name is unknown; files are missing (all are named, with where to get them); a file is damaged
            or hostile; or weights do not fit (they are listed).
        ModelMismatchError: The folder holds only another version of FLAME than the encoder was trained with.

    >>> load_model("open").head.name == load_head("open").name
    True
    """
    if name not in ("open", *FLAME_MODELS):
        raise InputError(f"unknown model {name!r}: expected 'open', {', '.join(map(repr, FLAME_MODELS))}")
    if trainable != "both" and name != "emoca":
        raise InputError(
            f"trainable={trainable!r}: model {name!r} has one network; only 'emoca' has two to choose from"
        )
    if name == "open":
        head = load_head("open")
        return FaceModel(name="open", head=head, encoder=read_open_encoder(head), calibration=OPEN_ENCODER)
    found = find_model_files(name, assets, with_weights=True)
    return FaceModel(
        name=name,
        head=read_flame_head(name, found),
        encoder=read_flame_encoder(name, found, trainable),
        crop_rule=FLAME_MODELS[name].crop_rule,
    )
