"""Calibration files of all formats: which format a file has, and its content as plain values."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from neuface.errors import InputError
from neuface.io.cameras.camera_set import CameraSet
from neuface.io.cameras.colmap import colmap_cameras, colmap_folder
from neuface.io.cameras.own_json import own_cameras
from neuface.io.cameras.tables import cameras_of_tables, is_camera
from neuface.io.cameras.values import MOST_CAMERAS, read_bytes, short

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

# Bound on the bytes of a YAML file, whose reader is slow.
LARGEST_YAML = 2**17
ENDINGS = (".json", ".toml", ".yaml", ".yml")
# Anchors and references: they let a small file describe a huge one, and no calibration has them.
YAML_REFERENCE = re.compile(rb"(?:^|[\s\[,{:-])[&*][A-Za-z0-9_]", re.MULTILINE)
# Numbers such as 1e-05, which YAML 1.1 takes for text.
YAML_FLOAT = re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)$")


def read_cameras(path: str | os.PathLike[str]) -> CameraSet:
    """Read calibrated cameras, every number checked; docs/calibration.md lists the formats.

    Args:
        path: a JSON, YAML or TOML file with all cameras, a folder with such a file for each, or the folder of a
            COLMAP reconstruction.

    Raises:
        InputError: the file is missing, too large or damaged; it lacks a camera's position; or its numbers are not
            those of cameras. The message names the file, the camera and the field.
    """
    given = Path(path)
    if not os.fspath(path):
        raise InputError("the path of the calibration is empty; expected a file or folder")
    try:
        folder = colmap_folder(given)
        whole = given.is_dir()
        files = sorted(file for file in given.iterdir() if file.suffix.lower() in ENDINGS) if whole else []
    except (OSError, ValueError) as error:
        raise InputError(f"{given}: cannot be read ({error})") from error
    if folder is not None:
        return colmap_cameras(folder)
    if not whole:
        return _cameras_of(given, _parsed(given))
    if not 0 < len(files) <= MOST_CAMERAS:
        raise InputError(
            f"{given}: holds {len(files)} calibrations; expected 1 to {MOST_CAMERAS} files with the endings "
            f"{', '.join(ENDINGS)}, one per camera, or cameras and images of COLMAP"
        )
    return cameras_of_tables(given, _one_per_file(files))


def _one_per_file(files: list[Path]) -> dict[str, Any]:
    """The tables of the cameras that have a file each, by the files' names."""
    tables = {}
    for file in files:
        content = _parsed(file)
        if not is_camera(content):
            raise InputError(
                f"{file}: is not the calibration of one camera, as the files of a folder must be"
            )
        tables[file.stem] = {**content, "name": file.stem}
    return tables


def _cameras_of(file: Path, content: Any) -> CameraSet:
    if isinstance(content, dict) and "convention" in content:
        return own_cameras(file, content)
    if not isinstance(content, dict | list):
        raise InputError(f"{file}: holds {short(content)}; expected tables of cameras")
    return cameras_of_tables(file, content)


def _parsed(file: Path) -> Any:
    """The content of a file as plain values, by its ending."""
    parsers = {".json": _json, ".toml": _toml, ".yaml": _yaml, ".yml": _yaml}
    parse = parsers.get(file.suffix.lower())
    if parse is None:
        raise InputError(
            f"{file}: has an ending that is none of {', '.join(ENDINGS)}; expected a calibration in one of these "
            "formats, or a folder of COLMAP"
        )
    data = read_bytes(file)
    try:
        return parse(data)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        kind = file.suffix.lower().lstrip(".").replace("yml", "yaml").upper()
        reason = short(" ".join(str(error).split()))
        raise InputError(f"{file}: is not {kind} with cameras ({reason})") from error


def _json(data: bytes) -> Any:
    return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are unique; Python's JSON reader would keep the last of equal ones."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is given twice")
    return found


def _toml(data: bytes) -> Any:
    return tomllib.loads(data.decode("utf-8-sig"))


def _yaml(data: bytes) -> Any:
    """Plain values of YAML, also as OpenCV's FileStorage writes it: with another first line and tagged matrices."""
    if len(data) > LARGEST_YAML:
        raise ValueError(f"it is larger than {LARGEST_YAML} bytes")
    text = re.sub(rb"\A%YAML[^\n]*\n", b"", data)
    if YAML_REFERENCE.search(text):
        raise ValueError("it has references (& or *)")
    return yaml.load(text, _PlainLoader)


class _PlainLoader(yaml.SafeLoader):
    """Numbers, texts, lists and tables whose names are unique, nothing else."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A table; PyYAML would keep the last of equal names."""
        names = [self.construct_object(name, deep=True) for name, _ in node.value]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice!r} is given twice")
        return super().construct_mapping(node, deep=deep)


def _matrix(loader: Any, node: yaml.Node) -> dict[Any, Any]:
    return loader.construct_mapping(node, deep=True)


_PlainLoader.add_constructor("tag:yaml.org,2002:opencv-matrix", _matrix)
_PlainLoader.add_implicit_resolver("tag:yaml.org,2002:float", YAML_FLOAT, list("-+.0123456789"))
