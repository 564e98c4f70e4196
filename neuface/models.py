"""Models by name: a head and its encoder as one value."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neuface.cropping import DECA_CROP, OPEN_CROP, SMIRK_CROP, CropRule
from neuface.encoders.calibration import OPEN_ENCODER, UNCALIBRATED, EncoderCalibration
from neuface.encoders.flame_encoder import FlameEncoder
from neuface.encoders.predictor import Predictor
from neuface.errors import InputError, ModelMismatchError
from neuface.head.model import HeadModel
from neuface.head.open_head import OPEN_HEAD_NAME
from neuface.head.versions import UNKNOWN_VERSION, flame_version
from neuface.io.assets import catalogue
from neuface.io.assets.catalogue import Asset, assets_dirs, find_assets, only_asset
from neuface.io.assets.converted import (
    COPIED_ENCODERS,
    COPIED_HEAD,
    COPIED_HEAD_WITH_EYELIDS,
    read_encoder_copy,
)
from neuface.io.flame.companions import FlameCompanions
from neuface.io.flame.encoder_files import emoca_package, read_deca, read_emoca, read_smirk
from neuface.io.flame.landmarks import IBUG68
from neuface.io.flame.model_file import read_flame
from neuface.io.heads import is_written_head, read_head
from neuface.io.open_model.encoder_file import read_open_encoder
from neuface.io.open_model.head_file import read_open_head
from neuface.io.untrusted.array_files import exists


@dataclass(frozen=True, kw_only=True)
class FaceModel:
    """A head model, the pretrained encoder that predicts its parameters, and the crops that the encoder knows."""

    name: str
    head: HeadModel
    encoder: Predictor
    crop_rule: CropRule = OPEN_CROP
    calibration: EncoderCalibration = UNCALIBRATED
    """How wrong the encoder is; `UNCALIBRATED` where that has not been measured, as for DECA, EMOCA and SMIRK."""


def load_head(name: str | Path = "open") -> HeadModel:
    """The head model of that name or in that file, on the CPU.

    "open" is the head that ships with the package; repeated calls return the same object.

    "deca", "emoca" or "smirk" is the FLAME head that `load_model` finds for them.

    Anything else is the path of a FLAME model file, of a folder that holds one, or of a copy that
    `neuface assets convert` made. What lies beside a FLAME file (landmarks, masks, texture coordinates) is read
    with it: see `neuface.io.flame.model_file.read_flame`, which also takes other places and the version.

    Raises:
        InputError: An unknown name, or a file that is no head model, is damaged, or holds more than data.
        ModelMismatchError: Only another version of FLAME is there than the encoder of that name was trained with.
    """
    if name in ("open", OPEN_HEAD_NAME):
        return read_open_head()
    if isinstance(name, str) and name in FACE_MODELS:
        return _flame_head(name, _found_files(name, None, with_weights=False))
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
        name: "open", or "deca", "emoca" or "smirk", whose licensed files each user gets from their makers.
        assets: the folder with those files, also in folders inside it; the default is the one that the environment
            variable `NEUFACE_ASSETS` names, else a per-user data folder (`neuface.io.assets.catalogue.assets_dirs`).
            Copies made by `neuface assets convert` are taken in place of the originals.
        trainable: for "emoca", which of its two networks a fit may change: "both", "coarse" or "expression".

    Raises:
        InputError: An unknown name; missing files, all of them named with where to get them; a damaged or hostile
            file, or weights that do not fit, listed.
        ModelMismatchError: Only another version of FLAME is there than the encoder was trained with.
    """
    if name not in ("open", *FACE_MODELS):
        raise InputError(f"unknown model {name!r}: expected 'open', {', '.join(map(repr, FACE_MODELS))}")
    if trainable != "both" and name != "emoca":
        raise InputError(
            f"trainable={trainable!r}: model {name!r} has one network; only 'emoca' has two to choose from"
        )
    if name == "open":
        head = load_head("open")
        return FaceModel(name="open", head=head, encoder=read_open_encoder(head), calibration=OPEN_ENCODER)
    recipe, found = FACE_MODELS[name], _found_files(name, assets, with_weights=True)
    weights_copy, _ = copies_of(name)
    if found[weights_copy]:
        encoder = read_encoder_copy(only_asset(weights_copy, found[weights_copy]), name, trainable=trainable)
    else:
        encoder = recipe.read(found[recipe.weights], trainable)
    return FaceModel(name=name, head=_flame_head(name, found), encoder=encoder, crop_rule=recipe.crop_rule)


def _found_files(
    name: str, assets: str | os.PathLike[str] | None, *, with_weights: bool
) -> dict[Asset, list[Path]]:
    """Every place of the files of a model of FACE_MODELS; those that a converted copy stands for may be missing."""
    folders = assets_dirs(assets)
    weights_copy, head_copy = copies_of(name)
    copies = find_assets([], folders, name, optional=[weights_copy, head_copy])
    required, helpful = files_of(name)
    weights = FACE_MODELS[name].weights
    if copies[head_copy]:
        required, helpful = (weights,), ()
    if copies[weights_copy] or not with_weights:
        required = tuple(asset for asset in required if asset is not weights)
    return copies | find_assets(required, folders, name, optional=helpful)


def files_of(name: str) -> tuple[tuple[Asset, ...], tuple[Asset, ...]]:
    """The official files that a model of FACE_MODELS needs, and those that it can use besides."""
    recipe = FACE_MODELS[name]
    eyelids = (catalogue.LEFT_EYELID, catalogue.RIGHT_EYELID) if recipe.eyelids else ()
    needed = (recipe.weights, catalogue.FLAME_MODEL, catalogue.FLAME_LANDMARKS, *eyelids)
    return needed, (catalogue.FLAME_MEDIAPIPE, catalogue.FLAME_MASKS, catalogue.FLAME_TEMPLATE)


def copies_of(name: str) -> tuple[Asset, Asset]:
    """The converted weights and the converted head that a model of FACE_MODELS takes in place of the originals."""
    return COPIED_ENCODERS[name], COPIED_HEAD_WITH_EYELIDS if FACE_MODELS[name].eyelids else COPIED_HEAD


@dataclass(frozen=True, kw_only=True)
class _FlameModel:
    """What tells the models with FLAME apart."""

    weights: Asset
    read: Callable[[Sequence[Path], str], FlameEncoder]
    """From the places of the weights and `trainable`."""
    crop_rule: CropRule
    head_version: str = "flame2020"
    eyelids: bool = False


FACE_MODELS = {
    "deca": _FlameModel(
        weights=catalogue.DECA_WEIGHTS,
        read=lambda places, _: read_deca(only_asset(catalogue.DECA_WEIGHTS, places)),
        crop_rule=DECA_CROP,
    ),
    "emoca": _FlameModel(
        weights=catalogue.EMOCA_PACKAGE,
        read=lambda places, trainable: read_emoca(emoca_package(places), trainable=trainable),
        crop_rule=DECA_CROP,
    ),
    "smirk": _FlameModel(
        weights=catalogue.SMIRK_WEIGHTS,
        read=lambda places, _: read_smirk(only_asset(catalogue.SMIRK_WEIGHTS, places)),
        crop_rule=SMIRK_CROP,
        eyelids=True,
    ),
}


def _flame_head(name: str, found: Mapping[Asset, Sequence[Path]]) -> HeadModel:
    """The FLAME that an encoder was trained with, and all that was found to go with it."""
    recipe = FACE_MODELS[name]
    _, head_copy = copies_of(name)
    if found[head_copy]:
        return _copied_head(head_copy, found[head_copy], recipe, name)
    return read_flame(
        _flame_file(found[catalogue.FLAME_MODEL], recipe.head_version, name),
        companions=companions_of(found),
        eyelids=recipe.eyelids,
    )


def companions_of(found: Mapping[Asset, Sequence[Path]]) -> FlameCompanions:
    """The companion files among those found. Raises InputError where there are several candidates for one."""

    def only(asset: Asset) -> Path | None:
        return only_asset(asset, found[asset]) if found.get(asset) else None

    return FlameCompanions(
        landmarks=only(catalogue.FLAME_LANDMARKS),
        mediapipe=only(catalogue.FLAME_MEDIAPIPE),
        masks=only(catalogue.FLAME_MASKS),
        template=only(catalogue.FLAME_TEMPLATE),
        left_eyelid=only(catalogue.LEFT_EYELID),
        right_eyelid=only(catalogue.RIGHT_EYELID),
    )


def _copied_head(copy: Asset, places: Sequence[Path], recipe: _FlameModel, model: str) -> HeadModel:
    """The converted FLAME that an encoder was trained with."""
    path = only_asset(copy, [path for path in places if path.name == places[0].name])
    head = read_head(path)
    fits = head.name in (recipe.head_version, UNKNOWN_VERSION) and recipe.eyelids == (
        head.posed_basis is not None
    )
    if not fits:
        raise ModelMismatchError(
            f"{path}: holds {head.name} with {head.num_expression} expression coefficients; model {model!r} was "
            f"trained with {recipe.head_version}{', with eyelids' if recipe.eyelids else ''}. Remove the file, or "
            "convert the official files again"
        )
    if IBUG68 not in head.embeddings:
        raise InputError(
            f"{path}: was converted without landmarks. Put {catalogue.FLAME_LANDMARKS.names[0]} (from "
            f"{catalogue.FLAME_LANDMARKS.source}) beside the original, and convert that again with --overwrite"
        )
    return head


def _flame_file(places: Sequence[Path], version: str, model: str) -> Path:
    """The model file of that version, or one whose names tell no version."""
    versions = {
        path: flame_version(path.name, (path.parent.name, path.parent.parent.name)) for path in places
    }
    for wanted in (version, UNKNOWN_VERSION):
        right = [path for path in places if versions[path] == wanted]
        if right:
            # One file may be there in several formats: the names are in the order of preference.
            return only_asset(catalogue.FLAME_MODEL, [path for path in right if path.name == right[0].name])
    raise ModelMismatchError(
        f"model {model!r} was trained with {version}, whose codes mean other faces in other versions; found only "
        f"{', '.join(f'{path} ({name})' for path, name in versions.items())}. Put FLAME 2020 beside it"
    )
