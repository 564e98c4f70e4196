"""The official files of FLAME, DECA, EMOCA and SMIRK: which are needed, which were found, and faster copies of
them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from neuface.errors import InputError, NeufaceError
from neuface.head.model import HeadModel
from neuface.head.versions import UNKNOWN_VERSION
from neuface.io.assets import catalogue
from neuface.io.assets.catalogue import Asset, assets_dirs, find_assets
from neuface.io.assets.checks import OTHER_FLAME, FoundFile, checked_file, mesh_of, who_chose
from neuface.io.assets.converted import (
    COPIED_ENCODERS,
    COPIED_HEAD,
    COPIED_HEAD_WITH_EYELIDS,
    TRAINED_WITH,
    head_copy_name,
    refuse_existing,
    write_encoder_copy,
    write_head_copy,
)
from neuface.io.assets.flame_models import FLAME_MODELS, companions_of, copies_of, files_of
from neuface.io.flame.model_file import read_flame
from neuface.models import load_model

FLAME_COMPANIONS = (
    catalogue.FLAME_LANDMARKS, catalogue.FLAME_MEDIAPIPE, catalogue.FLAME_MASKS, catalogue.FLAME_TEMPLATE,
    catalogue.LEFT_EYELID, catalogue.RIGHT_EYELID,
)  # fmt: skip
WEIGHTS = tuple(recipe.weights for recipe in FLAME_MODELS.values())
OFFICIAL_FILES = (catalogue.FLAME_MODEL, OTHER_FLAME, *FLAME_COMPANIONS, *WEIGHTS)
COPIES = (COPIED_HEAD, COPIED_HEAD_WITH_EYELIDS, *COPIED_ENCODERS.values())
PathLike = str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True)
class AssetState:
    """One kind of file: the models that need it, where users get it, and every file that was found."""

    what: str
    names: tuple[str, ...]
    source: str
    needed_by: tuple[str, ...]
    useful_for: tuple[str, ...]
    files: tuple[FoundFile, ...]


@dataclass(frozen=True, kw_only=True)
class ModelState:
    """Whether `load_model` can load a model; `problem` is its error in one line, or empty."""

    model: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class AssetsReport:
    """The folders that were searched, the files in them, and the models that can be loaded; `neuface assets` prints
    it.
    """

    folders: tuple[str, ...]
    chosen_by: str
    """`argument`, `NEUFACE_ASSETS` or `per-user data folder`."""
    assets: tuple[AssetState, ...]
    models: tuple[ModelState, ...]

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A copy that was written and verified."""

    source: str
    copy: str


def assets_report(assets: PathLike | None = None) -> AssetsReport:
    """Find every official file and every copy, read each by its own reader, and try to load every model.

    Args:
        assets: as for `load_model`.

    Raises InputError only for a folder with too many files; defects of a file are in the report.
    """
    folders = assets_dirs(assets)
    found = find_assets([], folders, "", optional=(*OFFICIAL_FILES, *COPIES))
    mesh = mesh_of([*found[catalogue.FLAME_MODEL], *found[OTHER_FLAME]])
    states = [
        AssetState(
            what=asset.what,
            names=asset.names,
            source=asset.source,
            needed_by=tuple(name for name in FLAME_MODELS if asset in files_of(name)[0]),
            useful_for=tuple(
                name for name in FLAME_MODELS if asset in (*files_of(name)[1], *copies_of(name))
            ),
            files=tuple(checked_file(asset, path, mesh) for path in _paths(asset, found)),
        )
        for asset in (*OFFICIAL_FILES, *COPIES)
    ]
    return AssetsReport(
        folders=tuple(map(str, folders)),
        chosen_by=who_chose(assets),
        assets=tuple(states),
        models=tuple(ModelState(model=name, problem=_problem_of(name, assets)) for name in FLAME_MODELS),
    )


def convert_assets(
    assets: PathLike | None = None, *, out: PathLike | None = None, overwrite: bool = False
) -> Iterator[Copy]:
    """Write a safetensors copy of every FLAME model and every encoder found; yields each when it is complete.

    A head's copy holds its landmarks, regions and texture coordinates too; if the eyelid files exist, there is a
    second copy with them, for SMIRK. Each copy is read back and compared bit by bit before it appears under its name.

    Args:
        assets: as for `load_model`.
        out: folder for the copies; None writes each beside its original.
        overwrite: whether files that exist may be replaced.

    Raises InputError for originals that are missing, damaged or ambiguous, and for a copy that exists already;
    copies that were yielded before stay.
    """
    folders = assets_dirs(assets)
    found = find_assets([], folders, "", optional=OFFICIAL_FILES)
    heads = [*found[catalogue.FLAME_MODEL], *found[OTHER_FLAME]]
    weights = {name: _paths(recipe.weights, found) for name, recipe in FLAME_MODELS.items()}
    if not heads and not any(weights.values()):
        raise InputError(
            f"{', '.join(map(str, folders))}: holds no FLAME model and no weights of DECA, EMOCA or SMIRK; "
            "run 'neuface assets' to see what is needed and where it comes from"
        )
    written: dict[Path, tuple[Path, str]] = {}
    for source in heads:
        for head in _heads_of(source, found):
            copy = _target(out, source.parent, head_copy_name(head))
            if copy not in written:
                write_head_copy(copy, head, overwrite=overwrite)
                written[copy] = (source, head.content_hash())
                yield Copy(source=str(source), copy=str(copy))
            elif written[copy][1] != head.content_hash():
                raise InputError(
                    f"{source} and {written[copy][0]} differ and would both become {copy}; keep one of them in the "
                    "folder, or convert them one by one to different folders"
                )
    for name, paths in weights.items():
        if paths:
            copy = _target(out, paths[0].parent, COPIED_ENCODERS[name].names[0])
            refuse_existing(copy, overwrite)
            write_encoder_copy(copy, FLAME_MODELS[name].read(paths, "both"), overwrite=overwrite)
            yield Copy(source=str(paths[0]), copy=str(copy))


def _heads_of(source: Path, found: Mapping[Asset, Sequence[Path]]) -> Iterator[HeadModel]:
    """The head in a model file, and the head with eyelids if SMIRK can use the model."""
    companions = companions_of(found)
    plain = read_flame(source, companions=companions)
    yield plain
    lids = companions.left_eyelid is not None and companions.right_eyelid is not None
    if lids and plain.name in (TRAINED_WITH, UNKNOWN_VERSION):
        yield read_flame(source, companions=companions, eyelids=True)


def _target(out: PathLike | None, beside: Path, name: str) -> Path:
    return (beside if out is None else Path(out).expanduser()) / name


def _paths(asset: Asset, found: Mapping[Asset, Sequence[Path]]) -> list[Path]:
    """The paths at which an asset was found; EMOCA's package "DECA" is excluded, as it has no expression network."""
    if asset is not catalogue.EMOCA_PACKAGE:
        return list(found[asset])
    return [path for path in found[asset] if path.parent.name != "DECA"]


def _problem_of(model: str, assets: PathLike | None) -> str:
    try:
        load_model(model, assets=assets)
    except NeufaceError as error:
        return " ".join(str(error).split())
    return ""
