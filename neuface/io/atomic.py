"""Files that are written completely or not at all, and the folder of a user's data."""

from __future__ import annotations

import errno
import json
import os
import secrets
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from av.error import FFmpegError
from safetensors import SafetensorError

from neuface.errors import InputError

PROBE_BYTES = 1 << 20
"""Size of the file that is written to try a folder, bytes; an empty one would fit on a full disk."""
TORCH_WRITER = ("PytorchStreamWriter", "inline_container", "iostream")
"""Words by which errors of torch's writer of files are known; they are plain RuntimeErrors."""


def user_data_dir() -> Path:
    """The folder for files that the user keeps, such as official models; it need not exist yet.

    `neuface` in the platform's data folder (`XDG_DATA_HOME` or `~/.local/share`, `~/Library/Application Support` on
    macOS, `LOCALAPPDATA` on Windows).
    """
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Application Support"
    else:
        base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "neuface"


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` when the block ends well.

    The folder is made if it is missing. The temporary name ends like the final one, so that writers which
    choose a format by the ending choose the same. If the block raises, the temporary file is removed and a
    file that stood at `path` before is untouched.

    Raises InputError if `path` is a folder, its folder cannot be made, or the file cannot be written: no permission,
    a full disk, a quota. Writers that report a full disk by another type of error are known by name.
    """
    final = Path(path)
    if final.exists() and not final.is_file():
        kind = "a folder" if final.is_dir() else "a device or pipe"
        raise InputError(f"{final}: is {kind}; expected the name of a file to write")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{final}: its folder cannot be made ({error})") from error
    temporary = final.with_name(f".{secrets.token_hex(4)}.{final.name}")
    try:
        yield temporary
        # Some writers create private files; a result gets the permissions of any file that the user creates.
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, final)
    except (OSError, FFmpegError, SafetensorError) as error:
        raise _not_written(final, error) from error
    except RuntimeError as error:
        if not any(word in str(error) for word in TORCH_WRITER):
            raise
        raise _not_written(final, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Try to write into a folder, before the work whose results it takes. Nothing is left behind.

    Raises InputError if it cannot be made or written to.
    """
    probe = folder / f".{secrets.token_hex(4)}.probe"
    try:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"\0" * PROBE_BYTES)
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)
                for path in missing:
                    path.rmdir()
    except OSError as error:
        raise InputError(
            f"the output folder {folder} cannot be made or written to ({error}); choose another, or make room"
        ) from error


def check_is_no_input(path: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Raises InputError if a file that shall be written is one of those that are read."""
    output = Path(path)
    if any(output.exists() and os.path.exists(item) and output.samefile(item) for item in inputs):
        raise InputError(f"{output} is an input and would be replaced; choose another name or folder")


def _not_written(final: Path, error: Exception) -> InputError:
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
    remedy = "the disk is full: make room" if full else "check its permissions"
    return InputError(f"{final}: cannot be written ({error}); {remedy}, or choose another folder")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file; raises as `atomic_path` does."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write an indented JSON file.

    Raises ValueError for NaN and infinity, which JSON cannot hold, TypeError for values of other types, and as
    `atomic_path` does.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


def _umask() -> int:
    """The process's file mode mask; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
