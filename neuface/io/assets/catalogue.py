"""Where the licensed files of other models lie: each user gets their own and says in which folder."""

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
# A folder of downloads is small; a whole disk given by mistake must not be walked for minutes.
DEEPEST_FOLDER = 8
MOST_FILES = 50_000


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One file that a model needs, under the names it is published with."""

    what: str
    names: tuple[str, ...]
    source: str
    """Where it comes from, in words."""


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
    """The folders to look in: the argument alone, else `NEUFACE_ASSETS` alone, else a per-user data folder.

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
    """Every place of every file, in the folders and those inside them; by name, then nearest the top first.

    Raises one InputError that names all missing files, where they were looked for and where they come from.
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
    """The file, or the first of equal ones: several projects ship the same. Raises InputError when they differ."""
    if len(paths) > 1 and len({file_sha256(path) for path in paths}) > 1:
        raise InputError(
            f"there are several candidates for {asset.what}: {', '.join(map(str, paths))}; "
            "keep one of them in the folder, or give a folder that holds only one"
        )
    return paths[0]


def walk_files(folder: Path) -> Iterator[Path]:
    """The files in a folder and those inside it, in a fixed order, nearest the top first; links are not followed.

    Raises InputError for a folder that is too large to be one of downloaded models.
    """
    count = 0
    level = [folder]
    for _ in range(DEEPEST_FOLDER):
        below: list[Path] = []
        for place in level:
            try:
                entries = sorted(os.scandir(place), key=lambda entry: entry.name)
            except OSError:
                continue  # A folder that is missing or closed holds nothing that could be used.
            count += len(entries)
            if count > MOST_FILES:
                raise InputError(
                    f"{folder}: has more than {MOST_FILES} files; expected a folder of downloaded models only"
                )
            below += [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
            yield from (Path(entry.path) for entry in entries if entry.is_file())
        level = below
