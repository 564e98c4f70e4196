"""Which FLAME a file is. All versions have the same shapes, and their codes mean different faces.

A version is told by the head's `parameter_hash` where that is known, else by the names of the file and its folder.
No official hashes are known to this project: the files are licensed and their makers publish none. So today the
names decide, and a file whose names do not tell is called "flame"; its hash, stored with every result, still keeps
its parameters apart from those of any other file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from neuface.errors import InputError

FLAME_VERSIONS = ("flame2017", "flame2019", "flame2020", "flame2023", "flame2023_no_jaw", "flame2023_open")
UNTOLD_VERSION = "flame"
GENDERS = ("female", "male")

KNOWN_PARAMETER_HASHES: Mapping[str, str] = MappingProxyType({})
"""`HeadModel.parameter_hash()` of float32 heads read from official files, to their version; none is known yet."""

_YEAR = re.compile(r"flame[^a-z0-9]*(2017|2019|2020|2023)", re.IGNORECASE)
# Before "male", which is the end of it.
_GENDER = re.compile(r"(?<![a-z])(female|male)(?![a-z])", re.IGNORECASE)


def flame_version(file_name: str, folder_names: tuple[str, ...] = (), parameter_hash: str = "") -> str:
    """The name of a FLAME model, such as "flame2020", "flame2023_no_jaw", "flame2020_male" or "flame".

    Args:
        file_name: the model file's name, such as `flame2023_no_jaw.pkl`.
        folder_names: names of the folders it lies in, the nearest first; used if the file's name tells no year.
        parameter_hash: of the head that was read from it; a known hash decides alone.
    """
    if parameter_hash in KNOWN_PARAMETER_HASHES:
        return KNOWN_PARAMETER_HASHES[parameter_hash]
    years = (_YEAR.search(name) for name in (file_name, *folder_names))
    year = next((found[1] for found in years if found), "")
    words = file_name.lower().replace("-", "_")
    kind = ""
    if year == "2023" or not year:
        kind = "_no_jaw" if "no_jaw" in words or "nojaw" in words else "_open" if "open" in words else ""
    if kind and not year:
        year = "2023"
    gender = _GENDER.search(file_name)
    return f"{UNTOLD_VERSION}{year}{kind}" + (f"_{gender[1].lower()}" if gender else "")


def check_flame_version(version: str) -> str:
    """The version itself, with or without a gender. Raises InputError for a name that is none."""
    plain = next(
        (version.removesuffix(f"_{gender}") for gender in GENDERS if version.endswith(f"_{gender}")), version
    )
    if plain not in FLAME_VERSIONS:
        raise InputError(
            f"unknown FLAME version {version!r}: expected {', '.join(FLAME_VERSIONS)}, "
            "each also with _female or _male behind it"
        )
    return version
