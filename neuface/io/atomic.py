"""Files that are written completely or not at all, and the folder of a user's data."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from neuface.errors import InputError


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

    Raises InputError if `path` is a folder or its folder cannot be made.
    """
    final = Path(path)
    if final.is_dir():
        raise InputError(f"{final}: is a folder; expected the name of a file to write")
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
    finally:
        temporary.unlink(missing_ok=True)


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
