"""Arrays in npz files: no pickle on either side, whole or not at all."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neuface.errors import InputError
from neuface.io.cache import atomic_path


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as a compressed npz. Raises InputError for arrays that would need pickle."""
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise InputError(f"array {name!r} holds Python objects, which result files never do")
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read every array of an npz file; raises InputError when it is missing, damaged or holds objects."""
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file}: there is no such file")
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, AttributeError) as error:
        raise InputError(f"{file} is not a readable npz archive of plain arrays ({error})") from error


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a JSON file for people and programs alike."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")
