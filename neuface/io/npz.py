"""Arrays in npz files, without pickle in either direction; a written file is complete or absent."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from neuface.errors import InputError
from neuface.io.atomic import atomic_path
from neuface.io.untrusted.npy import NPY_MAGIC, plain_array

# Bounds on the decompressed size: SPARE_BYTES plus so many bytes per byte of the file. A file of results decompresses
# to less than ten times its size, an array of zeros alone to a thousand times.
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
        wanted: names of the arrays to read; every other one is returned as an empty array. None reads all of them.

    Raises InputError when the file is missing, damaged, holds objects, or would decompress to more than SPARE_BYTES +
    MOST_BYTES_PER_BYTE times its size. Nothing larger than that bound is ever allocated, whatever the file claims.
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
                        f"{file}: {name!r} would decompress to more than {SPARE_BYTES >> 20} MiB plus "
                        f"{MOST_BYTES_PER_BYTE} times the size of the file; it was not read"
                    )
                with archive.open(member) as stream:
                    # With a count, zipfile never decompresses more than that.
                    arrays[name] = plain_array(stream.read(member.file_size), "biufSU").copy()
    except InputError:
        raise
    except zipfile.BadZipFile as error:
        kind = "holds a single array, not" if _is_single_array(file) else "is not"
        raise InputError(f"{file} {kind} a readable npz archive of plain arrays ({error})") from error
    # zipfile and numpy's reader of headers raise many types on damaged files; neither executes anything in them.
    except Exception as error:
        raise InputError(f"{file} is not a readable npz archive of plain arrays ({_brief(error)})") from error
    return arrays


def _is_single_array(file: Path) -> bool:
    with open(file, "rb") as stream:
        return stream.read(len(NPY_MAGIC)) == NPY_MAGIC


def _brief(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
