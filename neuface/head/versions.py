"""The version of a FLAME file. All versions have arrays of the same shapes, but their codes mean different faces.

The version is identified by the head's `parameter_hash` where that is known, and otherwise by the names of the file
and its folders. The project knows no official hashes, because the files are licensed and their makers publish none.
At present the names therefore decide, and a file whose names contain no version is called "flame". Its hash, which is
stored with every result, still distinguishes its parameters from those of any other file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from neuface.errors import InputError

FLAME_VERSIONS = ("flame2017", "flame2019", "flame2020", "flame2023", "flame2023_no_jaw", "flame2023_open")
# Version of a file whose names do not contain one.
UNKNOWN_VERSION = "flame"
GENDERS = ("female", "male")

KNOWN_PARAMETER_HASHES: Mapping[str, str] = MappingProxyType({})
"""Versions by `HeadModel.parameter_hash()` of float32 heads that were read from official files; none is known yet."""

_YEAR = re.compile(r"flame[^a-z0-9]*(2017|2019|2020|2023)", re.IGNORECASE)
# "female" comes first, because it ends in "male".
_GENDER = re.compile(r"(?<![a-z])(female|male)(?![a-z])", re.IGNORECASE)


def flame_version(file_name: str, folder_names: tuple[str, ...] = (), parameter_hash: str = "") -> str:
    """The name of a FLAME model, such as "flame2020", "flame2023_no_jaw", "flame2020_male" or "flame".

    Args:
        file_name: the model file's name, such as `flame2023_no_jaw.pkl`.
        folder_names: names of the folders it lies in, the nearest first; used if the file's name contains no year.
        parameter_hash: that of the head in the file; if it is known, the names are not used.

    Example:
        >>> flame_version("flame2023_no_jaw.pkl")
        'flame2023_no_jaw'
        >>> flame_version("male_model.pkl", ("FLAME2020",))
        'flame2020_male'
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
    return f"{UNKNOWN_VERSION}{year}{kind}" + (f"_{gender[1].lower()}" if gender else "")


def check_flame_version(version: str) -> str:
    """The version itself, with or without a gender. Raises InputError for an unknown version."""
    plain = next(
        (version.removesuffix(f"_{gender}") for gender in GENDERS if version.endswith(f"_{gender}")), version
    )
    if plain not in FLAME_VERSIONS:
        raise InputError(
            f"unknown FLAME version {version!r}: expected {', '.join(FLAME_VERSIONS)}, "
            "each also with _female or _male behind it"
        )
    return version
