"""Named arrays from untrusted files: pickle, npy, npz and safetensors, distinguished by their content.

Every size that a file claims is compared with the length of the file before memory is allocated, and pickles are read
as data by `neuface.io.untrusted.pickle_machine`.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from neuface.errors import InputError
from neuface.io.untrusted.download_mistakes import placeholder
from neuface.io.untrusted.npy import NPY_MAGIC, plain_array, read_npy_header
from neuface.io.untrusted.pickle_machine import parse_pickle
from neuface.io.untrusted.pickle_values import Damaged, PickledArray, array_of

__all__ = ["checked_array", "exists", "read_bytes", "read_named_values", "read_single_array"]

# Bound on the bytes of a file and of what an archive decompresses to. FLAME files have 51 MiB, 110 MiB in the widest
# known layout.
LARGEST_FILE = 256 * 2**20
# Bounds on the bytes of a zip archive's directory and of a safetensors header.
LARGEST_DIRECTORY = 2**20
LARGEST_HEADER = 2**20
# Bound on the absolute value of every floating-point number of a file.
LARGEST_COORDINATE = 1e6
ZIP_MAGIC = b"PK\x03\x04"
ZIP_END, ZIP_END_BYTES, LONGEST_ZIP_COMMENT = b"PK\x05\x06", 22, 2**16


def exists(path: Path) -> bool:
    """Whether there is a file or folder of that name. Names that no file can have give False, not an error."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The whole content of a regular file.

    Raises InputError if it is missing, empty, larger than LARGEST_FILE, or a placeholder for the file.
    """
    file = Path(path)
    try:
        if not file.is_file():
            raise InputError(f"{file}: there is no such file")
        size = file.stat().st_size
        if size > LARGEST_FILE:
            raise InputError(f"{file}: has {size} bytes; no file of this kind is larger than {LARGEST_FILE}")
        data = file.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: cannot be read ({error})") from error
    if not data:
        raise InputError(f"{file}: is empty; download it again")
    if what := placeholder(data):
        raise InputError(f"{file}: is {what}")
    return data


def read_named_values(path: str | os.PathLike[str], wanted: Collection[str]) -> dict[str, Any]:
    """The `wanted` entries that a file has; `checked_array` converts them to arrays.

    The file is a dictionary in a pickle or in an npy file, an npz archive, or a safetensors file.
    Raises InputError that names the file and its defect.
    """
    data, source = read_bytes(path), str(path)
    if data.startswith(ZIP_MAGIC):
        return _read_npz(data, source, wanted)
    if data.startswith(NPY_MAGIC):
        content = _read_npy(data, source)
        try:
            value = content.only_object() if isinstance(content, PickledArray) else content
        except Damaged as error:
            raise InputError(f"{source}: {error}") from None
    elif _is_safetensors(data):
        return _read_safetensors(path, data, wanted)
    else:
        value = parse_pickle(data, source)
    if not isinstance(value, dict):
        raise InputError(f"{source}: holds a {type(value).__name__}; expected a dictionary of named arrays")
    return {name: value[name] for name in wanted if name in value}


def read_single_array(path: str | os.PathLike[str]) -> Any:
    """The array of an npy file; `checked_array` checks it. Raises InputError for any other file."""
    data = read_bytes(path)
    if not data.startswith(NPY_MAGIC):
        raise InputError(f"{path}: is not an npy file")
    return _read_npy(data, str(path))


def checked_array(
    source: str | os.PathLike[str],
    name: str,
    value: Any,
    shape: tuple[int | None, ...],
    *,
    whole: bool = False,
) -> np.ndarray:
    """The numbers of an entry, float64 (int64 if `whole`), C order, of the given shape; None fits any size.

    Raises InputError that names the entry if it is not an array, has another shape or type, or is not finite.
    """
    try:
        array = array_of(value)
    except Damaged as error:
        raise InputError(f"{source}: {name!r} {error}") from None
    fits = len(shape) == array.ndim and all(
        size in (None, found) for size, found in zip(shape, array.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise InputError(f"{source}: {name!r} has the shape {array.shape}; expected ({wanted})")
    if array.dtype.kind not in ("iu" if whole else "f"):
        kind = "whole numbers" if whole else "floating-point numbers"
        raise InputError(f"{source}: {name!r} has the type {array.dtype}; expected {kind}")
    if whole:
        return array.astype(np.int64, order="C")
    # NaN fails the comparison, too. Minimum and maximum need no temporary array, as isfinite would.
    if array.size and not (
        -LARGEST_COORDINATE <= float(array.min()) <= float(array.max()) <= LARGEST_COORDINATE
    ):
        raise InputError(
            f"{source}: {name!r} has values that are not finite, or beyond {LARGEST_COORDINATE:.0e}"
        )
    return np.array(array, dtype=np.float64, order="C")


def _read_npy(data: bytes, source: str) -> np.ndarray | PickledArray:
    """The content of an npy file: numbers, or the pickle of an array of objects, which is read as data."""
    try:
        header = read_npy_header(data)
        if not header.holds_objects:
            return plain_array(data, "biuf")
    except (ValueError, OverflowError) as error:
        raise InputError(f"{source}: {error}") from error
    value = parse_pickle(data[header.start :], source)
    if not isinstance(value, PickledArray):
        raise InputError(f"{source}: is a damaged npy file of objects")
    return value


def _read_npz(data: bytes, source: str, wanted: Collection[str]) -> dict[str, Any]:
    """The wanted members of an npz archive, with bounds on its directory and on its decompressed size."""
    # zipfile reads the whole directory into memory, so its length is checked before.
    end = data.rfind(ZIP_END, max(0, len(data) - ZIP_END_BYTES - LONGEST_ZIP_COMMENT))
    if end < 0 or len(data) < end + ZIP_END_BYTES:
        raise InputError(f"{source}: is a damaged zip archive: its end is missing; download it again")
    if struct.unpack_from("<I", data, end + 12)[0] > LARGEST_DIRECTORY:
        raise InputError(f"{source}: is a zip archive with a directory larger than any npz file has")
    values: dict[str, Any] = {}
    allowed = LARGEST_FILE
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {item.filename: item for item in archive.infolist()}
            if not any(name.endswith(".npy") for name in members):
                raise InputError(f"{source}: is a zip archive without any array; expected an npz file")
            for name in wanted:
                member = members.get(f"{name}.npy")
                if member is None:
                    continue
                allowed -= member.file_size
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or allowed < 0:
                    raise InputError(
                        f"{source}: {name!r} decompresses to more than any file of this kind holds"
                    )
                with archive.open(member) as stream:
                    # With a count, zipfile never decompresses more than that.
                    values[name] = _read_npy(stream.read(member.file_size), f"{source}: {name!r}")
    except (
        zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError, LookupError,
        struct.error,
    ) as error:  # fmt: skip
        if isinstance(error, InputError):
            raise
        raise InputError(f"{source}: is a damaged npz archive ({error})") from error
    return values


def _is_safetensors(data: bytes) -> bool:
    """Whether the file is safetensors: a length of eight bytes, then a JSON object."""
    return len(data) > 9 and data[8:9] == b"{" and struct.unpack_from("<Q", data)[0] <= len(data) - 8


def _read_safetensors(path: str | os.PathLike[str], data: bytes, wanted: Collection[str]) -> dict[str, Any]:
    if struct.unpack_from("<Q", data)[0] > LARGEST_HEADER:
        raise InputError(f"{path}: is a safetensors file with a header larger than any file of this kind has")
    try:
        with safe_open(path, framework="np") as archive:
            names = set(archive.keys())
            return {name: archive.get_tensor(name) for name in wanted if name in names}
    except (SafetensorError, OSError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: is not a readable safetensors file ({error})") from error
