"""The files of FLAME, DECA, EMOCA and SMIRK that users download themselves, and the search for them in folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from neuface.errors import InputError
from neuface.io.assets.fingerprints import file_sha256
from neuface.io.atomic import user_data_dir
from neuface.io.flame import companions

ASSETS_VARIABLE = "NEUFACE_ASSETS"
# Bounds on a search: levels of folders below the given one, and entries. They stop the walk through a whole disk that
# was given by mistake.
DEEPEST_FOLDER = 8
MOST_FILES = 50_000


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One file that a model needs, with the names under which it is published."""

    what: str
    names: tuple[str, ...]
    source: str
    """Where users get it, in words."""


FLAME_SITE = "the FLAME site of the Max Planck Institute (flame.is.tue.mpg.de), after registration"
FLAME_MODEL = Asset(
    what="the FLAME 2020 head model",
    names=("generic_model.pkl", "generic_model.safetensors", "generic_model.npz", "FLAME_NEUTRAL.pkl",
           "FLAME_NEUTRAL.npz"),
    source=f"{FLAME_SITE}: FLAME2020.zip",
)  # fmt: skip
FLAME_LANDMARKS = Asset(
    what="FLAME's landmarks",
    names=(companions.LANDMARKS,),
    source="the data folder of the DECA repository on GitHub, without registration",
)
FLAME_MASKS = Asset(
    what="FLAME's regions", names=(companions.MASKS,), source=f"{FLAME_SITE}: FLAME Vertex Masks"
)
FLAME_TEMPLATE = Asset(
    what="FLAME's texture coordinates",
    names=(companions.TEMPLATE,),
    source="the data folder of the DECA repository on GitHub, without registration",
)
FLAME_MEDIAPIPE = Asset(
    what="FLAME's MediaPipe landmarks",
    names=(companions.MEDIAPIPE,),
    source=f"{FLAME_SITE}: FLAME MediaPipe landmark embedding",
)
LEFT_EYELID, RIGHT_EYELID = (
    Asset(
        what=f"FLAME's {side} eyelid",
        names=(name,),
        source="the assets folder of the SMIRK repository on GitHub, without registration",
    )
    for side, name in (("left", companions.LEFT_EYELID), ("right", companions.RIGHT_EYELID))
)
DECA_WEIGHTS = Asset(
    what="DECA's weights",
    names=("deca_model.tar",),
    source="the link in the DECA repository's README on GitHub, after agreeing to its licence",
)
EMOCA_PACKAGE = Asset(
    what="an EMOCA package, a folder with",
    names=("cfg.yaml",),
    source="the EMOCA site (emoca.is.tue.mpg.de), after registration: for example EMOCA_v2_lr_mse_20.zip, unpacked",
)
SMIRK_WEIGHTS = Asset(
    what="SMIRK's weights",
    names=("SMIRK_em1.pt",),
    source="the link in the SMIRK repository's README on GitHub",
)


def assets_dirs(assets: str | os.PathLike[str] | None = None) -> tuple[Path, ...]:
    """The folders to search: the argument alone, else `NEUFACE_ASSETS` alone, else a per-user data folder.

    `NEUFACE_ASSETS` may name several folders, separated as in `PATH`. The per-user folder is `assets` in
    `neuface.io.atomic.user_data_dir()`. The folders need not exist.
    """
    if assets is not None:
        return (Path(assets).expanduser(),)
    named = [part for part in os.environ.get(ASSETS_VARIABLE, "").split(os.pathsep) if part]
    if named:
        return tuple(Path(part).expanduser() for part in named)
    return (user_data_dir() / "assets",)


def find_assets(
    wanted: Sequence[Asset], folders: Sequence[Path], model: str, *, optional: Sequence[Asset] = ()
) -> dict[Asset, list[Path]]:
    """The paths of every file in the folders and their subfolders, ordered by name, then from the top down.

    Raises one InputError that names all missing files, the folders that were searched and where users get the files.
    """
    by_name: dict[str, list[Path]] = {}
    for folder in folders:
        for path in walk_files(folder):
            by_name.setdefault(path.name, []).append(path)
    found = {
        asset: [path for name in asset.names for path in by_name.get(name, [])]
        for asset in (*wanted, *optional)
    }
    missing = [asset for asset in wanted if not found[asset]]
    if missing:
        listed = "; ".join(f"{asset.what} {asset.names[0]}, from {asset.source}" for asset in missing)
        raise InputError(
            f"model {model!r} needs files that are not in {', '.join(map(str, folders))}: {listed}. Put them "
            "into that folder or one inside it, or give another by assets= or the environment variable "
            f"{ASSETS_VARIABLE}"
        )
    return found


def only_asset(asset: Asset, paths: Sequence[Path]) -> Path:
    """The file, or the first of equal ones (several projects ship the same). Raises InputError if they differ."""
    if len(paths) > 1 and len({file_sha256(path) for path in paths}) > 1:
        raise InputError(
            f"there are several candidates for {asset.what}: {', '.join(map(str, paths))}; "
            "keep one of them in the folder, or give a folder that holds only one"
        )
    return paths[0]


def walk_files(folder: Path) -> Iterator[Path]:
    """The files in a folder and its subfolders, in a fixed order from the top down.

    Links to folders are not followed.

    Raises InputError for a folder with more than MOST_FILES entries, which cannot be one of downloaded models.
    """
    count = 0
    level = [folder]
    for _ in range(DEEPEST_FOLDER):
        below: list[Path] = []
        for current in level:
            try:
                entries = sorted(os.scandir(current), key=lambda entry: entry.name)
            except OSError:
                continue  # A missing or unreadable folder holds no usable file.
            count += len(entries)
            if count > MOST_FILES:
                raise InputError(
                    f"{folder}: has more than {MOST_FILES} files; expected a folder of downloaded models only"
                )
            below += [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
            yield from (Path(entry.path) for entry in entries if entry.is_file())
        level = below
