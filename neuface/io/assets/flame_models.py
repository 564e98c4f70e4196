"""The models with FLAME: the official files that each needs, and the choice among the files that were found."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neuface.cropping import DECA_CROP, SMIRK_CROP, CropRule
from neuface.encoders.flame_encoder import FlameEncoder
from neuface.errors import InputError, ModelMismatchError
from neuface.head.model import HeadModel
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
from neuface.io.flame.model_file import read_flame
from neuface.io.heads import read_head
from neuface.landmarks.schemes import IBUG68


@dataclass(frozen=True, kw_only=True)
class FlameModel:
    """The weights, reader, crops and head of a model with FLAME."""

    weights: Asset
    read: Callable[[Sequence[Path], str], FlameEncoder]
    """Takes the paths of the weights, and `trainable`."""
    crop_rule: CropRule
    head_version: str = "flame2020"
    eyelids: bool = False


FLAME_MODELS = {
    "deca": FlameModel(
        weights=catalogue.DECA_WEIGHTS,
        read=lambda paths, _: read_deca(only_asset(catalogue.DECA_WEIGHTS, paths)),
        crop_rule=DECA_CROP,
    ),
    "emoca": FlameModel(
        weights=catalogue.EMOCA_PACKAGE,
        read=lambda paths, trainable: read_emoca(emoca_package(paths), trainable=trainable),
        crop_rule=DECA_CROP,
    ),
    "smirk": FlameModel(
        weights=catalogue.SMIRK_WEIGHTS,
        read=lambda paths, _: read_smirk(only_asset(catalogue.SMIRK_WEIGHTS, paths)),
        crop_rule=SMIRK_CROP,
        eyelids=True,
    ),
}


def read_flame_encoder(name: str, found: Mapping[Asset, Sequence[Path]], trainable: str) -> FlameEncoder:
    """The encoder of a model of FLAME_MODELS, from its converted copy if there is one."""
    weights_copy, _ = copies_of(name)
    if found[weights_copy]:
        return read_encoder_copy(only_asset(weights_copy, found[weights_copy]), name, trainable=trainable)
    model = FLAME_MODELS[name]
    return model.read(found[model.weights], trainable)


def read_flame_head(name: str, found: Mapping[Asset, Sequence[Path]]) -> HeadModel:
    """The FLAME head that an encoder was trained with, and the companion files that were found."""
    entry = FLAME_MODELS[name]
    _, head_copy = copies_of(name)
    if found[head_copy]:
        return _copied_head(head_copy, found[head_copy], entry, name)
    return read_flame(
        _flame_file(found[catalogue.FLAME_MODEL], entry.head_version, name),
        companions=companions_of(found),
        eyelids=entry.eyelids,
    )


def find_model_files(
    name: str, assets: str | os.PathLike[str] | None, *, with_weights: bool
) -> dict[Asset, list[Path]]:
    """The paths of the files of a model of FLAME_MODELS; originals may be missing if their converted copy exists."""
    folders = assets_dirs(assets)
    weights_copy, head_copy = copies_of(name)
    copies = find_assets([], folders, name, optional=[weights_copy, head_copy])
    required, helpful = files_of(name)
    weights = FLAME_MODELS[name].weights
    if copies[head_copy]:
        required, helpful = (weights,), ()
    if copies[weights_copy] or not with_weights:
        required = tuple(asset for asset in required if asset is not weights)
    return copies | find_assets(required, folders, name, optional=helpful)


def files_of(name: str) -> tuple[tuple[Asset, ...], tuple[Asset, ...]]:
    """The official files that a model of FLAME_MODELS needs, and those that it uses if they exist."""
    entry = FLAME_MODELS[name]
    eyelids = (catalogue.LEFT_EYELID, catalogue.RIGHT_EYELID) if entry.eyelids else ()
    needed = (entry.weights, catalogue.FLAME_MODEL, catalogue.FLAME_LANDMARKS, *eyelids)
    return needed, (catalogue.FLAME_MEDIAPIPE, catalogue.FLAME_MASKS, catalogue.FLAME_TEMPLATE)


def copies_of(name: str) -> tuple[Asset, Asset]:
    """The converted weights and the converted head that a model of FLAME_MODELS reads in place of the originals."""
    return COPIED_ENCODERS[name], COPIED_HEAD_WITH_EYELIDS if FLAME_MODELS[name].eyelids else COPIED_HEAD


def companions_of(found: Mapping[Asset, Sequence[Path]]) -> FlameCompanions:
    """The companion files among those found. Raises InputError if several different files could be one of them."""

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


def _copied_head(copy: Asset, paths: Sequence[Path], entry: FlameModel, model: str) -> HeadModel:
    """The converted copy of the FLAME head that an encoder was trained with."""
    path = only_asset(copy, [path for path in paths if path.name == paths[0].name])
    head = read_head(path)
    fits = head.name in (entry.head_version, UNKNOWN_VERSION) and entry.eyelids == (
        head.posed_basis is not None
    )
    if not fits:
        raise ModelMismatchError(
            f"{path}: holds {head.name} with {head.num_expression} expression coefficients; model {model!r} was "
            f"trained with {entry.head_version}{', with eyelids' if entry.eyelids else ''}. Remove the file, or "
            "convert the official files again"
        )
    if IBUG68.name not in head.embeddings:
        raise InputError(
            f"{path}: was converted without landmarks. Put {catalogue.FLAME_LANDMARKS.names[0]} (from "
            f"{catalogue.FLAME_LANDMARKS.source}) beside the original, and convert that again with --overwrite"
        )
    return head


def _flame_file(paths: Sequence[Path], version: str, model: str) -> Path:
    """The model file of that version, or one whose name and folders do not determine a version."""
    versions = {path: flame_version(path.name, (path.parent.name, path.parent.parent.name)) for path in paths}
    for wanted in (version, UNKNOWN_VERSION):
        right = [path for path in paths if versions[path] == wanted]
        if right:
            # One model may exist in several formats; the names are in the order of preference.
            return only_asset(catalogue.FLAME_MODEL, [path for path in right if path.name == right[0].name])
    raise ModelMismatchError(
        f"model {model!r} was trained with {version}, whose codes mean other faces in other versions; found only "
        f"{', '.join(f'{path} ({name})' for path, name in versions.items())}. Put FLAME 2020 beside it"
    )
