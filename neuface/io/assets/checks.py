"""Checks of official files: each is read by the reader that `load_model` uses for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from neuface.errors import InputError, NeufaceError
from neuface.head.versions import flame_version
from neuface.io.assets import catalogue
from neuface.io.assets.catalogue import ASSETS_VARIABLE, Asset
from neuface.io.assets.converted import (
    COPIED_ENCODERS,
    COPIED_HEAD,
    COPIED_HEAD_WITH_EYELIDS,
    read_encoder_copy,
)
from neuface.io.assets.fingerprints import file_sha256, is_as_published
from neuface.io.flame.companions import read_masks, read_template_uv
from neuface.io.flame.encoder_files import best_checkpoint, read_deca, read_emoca, read_smirk
from neuface.io.flame.landmarks import read_ibug68, read_mediapipe105
from neuface.io.flame.model_file import MODEL_FILES, read_flame_arrays
from neuface.io.heads import read_head
from neuface.io.untrusted.array_files import checked_array, read_single_array

# Sizes of the mesh of every official version; companions are checked against them if their model file is missing.
OFFICIAL_VERTICES, OFFICIAL_FACES = 5023, 9976
OTHER_FLAME = Asset(
    what="another version of FLAME",
    names=tuple(name for name in MODEL_FILES if name not in catalogue.FLAME_MODEL.names),
    source=f"{catalogue.FLAME_SITE}: FLAME2023.zip",
)


@dataclass(frozen=True, kw_only=True)
class FoundFile:
    """A file that was found, and the result of reading it."""

    path: str
    sha256: str
    """Empty if the file could not be read at all."""
    version: str
    """The version that follows from its name or its content, or an empty text."""
    problem: str
    """The reader's error in one line; empty if there is none."""


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """The mesh against which companion files are checked."""

    vertices: int = OFFICIAL_VERTICES
    num_faces: int = OFFICIAL_FACES
    faces: Int[np.ndarray, "faces 3"] | None = None


def who_chose(assets: str | os.PathLike[str] | None) -> str:
    """The source of the folders of `assets_dirs`: `argument`, `NEUFACE_ASSETS` or `per-user data folder`."""
    if assets is not None:
        return "argument"
    return ASSETS_VARIABLE if os.environ.get(ASSETS_VARIABLE) else "per-user data folder"


def mesh_of(model_files: list[Path]) -> Mesh:
    """The mesh of the first model file that can be read, else the official sizes."""
    for path in model_files:
        try:
            arrays = read_flame_arrays(path)
        except NeufaceError:
            continue
        return Mesh(vertices=len(arrays.v_template), num_faces=len(arrays.f), faces=arrays.f)
    return Mesh()


def checked_file(asset: Asset, path: Path, mesh: Mesh) -> FoundFile:
    """Read one file of an asset and report the result; a damaged file is a `problem`, not an exception."""
    shown, sha256, version = path, "", ""
    try:
        if asset is catalogue.EMOCA_PACKAGE:
            shown = best_checkpoint(path.parent)
        sha256 = file_sha256(shown)
        published = is_as_published(path.name, sha256)
        version = {None: "", True: "as published", False: "not the published file"}[published]
        version = _CHECKS[asset](path, mesh) or version
        problem = ""
    except NeufaceError as error:
        problem = " ".join(str(error).split())
    return FoundFile(path=str(shown), sha256=sha256, version=version, problem=problem)


def _model(path: Path, mesh: Mesh) -> str:
    read_flame_arrays(path)
    return flame_version(path.name, (path.parent.name, path.parent.parent.name))


def _template(path: Path, mesh: Mesh) -> str:
    if mesh.faces is None:
        raise InputError(f"{path}: cannot be checked without a FLAME model file; put one into the folder")
    read_template_uv(path, mesh.faces, mesh.vertices)
    return ""


def _eyelid(path: Path, mesh: Mesh) -> str:
    checked_array(path, "eyelid", read_single_array(path), (mesh.vertices, 3))
    return ""


def _ignored(read: Callable[[Path, Mesh], object]) -> Callable[[Path, Mesh], str]:
    """A check by a reader whose result has no version."""

    def check(path: Path, mesh: Mesh) -> str:
        read(path, mesh)
        return ""

    return check


def _package(path: Path, _: Mesh) -> str:
    read_emoca(path.parent)
    return path.parent.name


_CHECKS: dict[Asset, Callable[[Path, Mesh], str]] = {
    catalogue.FLAME_MODEL: _model,
    OTHER_FLAME: _model,
    catalogue.FLAME_LANDMARKS: _ignored(lambda path, mesh: read_ibug68(path, None, None, mesh.num_faces)),
    catalogue.FLAME_MEDIAPIPE: _ignored(lambda path, mesh: read_mediapipe105(path, mesh.num_faces)),
    catalogue.FLAME_MASKS: _ignored(lambda path, mesh: read_masks(path, mesh.vertices)),
    catalogue.FLAME_TEMPLATE: _template,
    catalogue.LEFT_EYELID: _eyelid,
    catalogue.RIGHT_EYELID: _eyelid,
    catalogue.DECA_WEIGHTS: _ignored(lambda path, _: read_deca(path)),
    catalogue.EMOCA_PACKAGE: _package,
    catalogue.SMIRK_WEIGHTS: _ignored(lambda path, _: read_smirk(path)),
    COPIED_HEAD: lambda path, _: read_head(path).name,
    COPIED_HEAD_WITH_EYELIDS: lambda path, _: read_head(path).name,
    **{
        asset: _ignored(lambda path, _, name=name: read_encoder_copy(path, name))
        for name, asset in COPIED_ENCODERS.items()
    },
}
