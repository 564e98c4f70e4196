"""Arrays in npz files: no pickle on either side, whole or not at all."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from neuface.errors import InputError
from neuface.io.atomic import atomic_path
from neuface.io.untrusted.npy import NPY_MAGIC, plain_array

# Zeros shrink a thousandfold, parameters of a clip hardly at all; a whole file of results does so less than tenfold.
SPARE_BYTES, MOST_BYTES_PER_BYTE = 64 << 20, 50


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as a compressed npz. Raises InputError for arrays that would need pickle."""
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise InputError(f"array {name!r} holds Python objects, which result files never do")
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_arrays(path: str | os.PathLike[str], wanted: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of an npz file, numbers and text.

    Args:
        path: the file.
        wanted: names of the arrays to read; every other one is an empty array in the answer. None: all of them.

    Raises InputError when the file is missing, damaged, holds objects, or unfolds to far more than results do.
    Nothing larger than that bound is ever allocated, whatever the file claims.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file}: there is no such file")
    allowed = SPARE_BYTES + MOST_BYTES_PER_BYTE * file.stat().st_size
    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if wanted is not None and name not in wanted:
                    arrays[name] = np.empty(0)
                    continue
                allowed -= member.file_size
                if allowed < 0:
                    raise InputError(
                        f"{file}: {name!r} unfolds to far more than arrays of this kind do; it was not read"
                    )
                with archive.open(member) as stream:
                    # With a count, zipfile never unfolds more than that.
                    arrays[name] = plain_array(stream.read(member.file_size), "biufSU").copy()
    except InputError:
        raise
    except zipfile.BadZipFile as error:
        kind = "holds a single array, not" if _is_single_array(file) else "is not"
        raise InputError(f"{file} {kind} a readable npz archive of plain arrays ({error})") from error
    # zipfile and numpy's reader of headers fail in a dozen ways on damaged files; none of them runs anything.
    except Exception as error:
        raise InputError(f"{file} is not a readable npz archive of plain arrays ({_brief(error)})") from error
    return arrays


def _is_single_array(file: Path) -> bool:
    with open(file, "rb") as stream:
        return stream.read(len(NPY_MAGIC)) == NPY_MAGIC


def _brief(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
