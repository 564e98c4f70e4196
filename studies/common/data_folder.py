"""Which files of a data folder exist."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from neuface.errors import InputError


def files_below(
    folder: str | os.PathLike[str], names: Sequence[str]
) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The paths of files below a folder, and the names of those that are missing.

    A folder that does not exist is one without any of the files.

    Args:
        names: relative to the folder, with `/` between folders.

    Raises:
        InputError: `folder` is a file.
    """
    root = Path(folder)
    if root.is_file():
        raise InputError(f"{root}: is a file; expected the folder with the recordings")
    paths = tuple(root.joinpath(*name.split("/")) for name in names)
    return paths, tuple(name for name, path in zip(names, paths, strict=True) if not path.is_file())
