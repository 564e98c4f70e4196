"""The official files of DECA, EMOCA and SMIRK as encoders: all weights must fit; other parts of the files are
ignored.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from neuface.encoders.deca import DecaEncoder
from neuface.encoders.emoca import EmocaEncoder, pose_parts
from neuface.encoders.predictor import Predictor
from neuface.encoders.smirk import SmirkEncoder
from neuface.errors import InputError
from neuface.io.assets.catalogue import walk_files
from neuface.io.untrusted.strict_state_dict import load_strictly
from neuface.io.untrusted.torch_checkpoints import named_tensors, read_checkpoint, state_dict_at

# Names of EMOCA's packages in the order of preference, from the published default to the first version. The package
# "DECA" beside them has no expression network.
EMOCA_PACKAGES = ("EMOCA_v2_lr_mse_20", "EMOCA_v2_mp", "EMOCA_v2_lr_cos_1.5", "EMOCA")
EXPRESSION_ROWS = "deca.E_expression.layers.2.weight"
# Bound on the bytes that are read of a cfg.yaml.
LARGEST_CONFIG = 1 << 20
PathLike = str | os.PathLike[str]
EncoderT = TypeVar("EncoderT", bound=Predictor)


def read_deca(path: PathLike) -> DecaEncoder:
    """DECA's coarse encoder from `deca_model.tar`, in evaluation mode.

    The detail networks and the training program's state in the file are ignored.

    Raises InputError for a file that is damaged, hostile, or does not fit (misfits are listed).
    """
    content = read_checkpoint(path)
    encoder = _without_numbers(DecaEncoder)
    load_strictly(path, encoder.E_flame, state_dict_at(path, content, "E_flame"), "DECA's E_flame")
    return encoder.eval()


def read_emoca(path: PathLike, *, trainable: str = "both") -> EmocaEncoder:
    """EMOCA's two encoders from a package (a folder with cfg.yaml), in evaluation mode.

    Args:
        path: the package.
        trainable: which of them a fit may change, see `EmocaEncoder`.

    Raises InputError for a file that is missing, damaged, hostile, or does not fit (misfits are listed).
    """
    package = Path(path)
    file = best_checkpoint(package)
    weights = state_dict_at(file, read_checkpoint(file), "state_dict")
    if EXPRESSION_ROWS not in weights:
        raise InputError(f"{file}: has no E_expression; expected a package of EMOCA, v1 or v2")
    settings = _pose_settings(package / "cfg.yaml")
    rows = weights[EXPRESSION_ROWS].shape[:1].numel()
    try:
        jaw, root = pose_parts(rows, jaw=settings["jaw"], root=settings["global"])
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    encoder = _without_numbers(lambda: EmocaEncoder(jaw=jaw, root=root, trainable=trainable))
    for name in ("E_flame", "E_expression"):
        part = named_tensors(file, weights, f"deca.{name}.")
        load_strictly(file, encoder.get_submodule(name), part, f"EMOCA's {name}")
    return encoder.eval()


def read_smirk(path: PathLike) -> SmirkEncoder:
    """SMIRK's encoder from `SMIRK_em1.pt`, in evaluation mode; its image generator is ignored.

    Raises InputError for a file that is damaged, hostile, or does not fit (misfits are listed).
    """
    weights = named_tensors(path, read_checkpoint(path), "smirk_encoder.")
    encoder = _without_numbers(SmirkEncoder)
    load_strictly(path, encoder, weights, "SMIRK's encoder")
    return encoder.eval()


def best_checkpoint(package: Path) -> Path:
    """The checkpoint of a package with the smallest loss, the number after the last `=` of its name.

    Without such a name it is the only checkpoint beside `last`, or `last` itself if there is no other.

    Raises InputError when there is no checkpoint, or several without a number to choose by.
    """
    stage = package / "detail"
    files = [file for file in walk_files(stage if stage.is_dir() else package) if file.suffix == ".ckpt"]
    numbered = [(number, file) for file in files if (number := _last_number(file)) is not None]
    if numbered:
        return min(numbered)[1]
    if not files:
        raise InputError(
            f"{package}: holds no checkpoint; expected detail/checkpoints/**/*.ckpt as in the download"
        )
    others = [file for file in files if file.stem != "last"] or files
    if len(others) > 1:
        raise InputError(
            f"{package}: cannot tell which of {', '.join(map(str, others))} is the best; expected names that end in "
            "=<loss>.ckpt, or a single file"
        )
    return others[0]


def emoca_package(configs: Sequence[Path]) -> Path:
    """The folder among those of some cfg.yaml files that comes first in EMOCA_PACKAGES, or the only one.

    Raises InputError when none is a package of EMOCA, or several are and none has a published name.
    """
    packages = {file.parent.name: file.parent for file in reversed(configs) if file.parent.name != "DECA"}
    known = [packages[name] for name in EMOCA_PACKAGES if name in packages]
    if known:
        return known[0]
    if len(packages) != 1:
        folders = ", ".join(str(file.parent) for file in configs)
        raise InputError(
            f"cannot tell which of {folders} is the EMOCA package; expected one named like the download "
            f"({', '.join(EMOCA_PACKAGES)}), or a single one"
        )
    return next(iter(packages.values()))


def _without_numbers(make: Callable[[], EncoderT]) -> EncoderT:
    """A network built without numbers, so that none can stay random; strict loading supplies all of them."""
    with torch.device("meta"):
        return make()


def _last_number(file: Path) -> float | None:
    _, equals, number = file.stem.rpartition("=")
    if not equals or file.stem.startswith("last"):
        return None
    try:
        value = float(number)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _pose_settings(config: Path) -> dict[str, bool | None]:
    """Whether a package predicts jaw and global pose; None where its configuration has neither value or both."""
    try:
        with open(config, encoding="utf-8", errors="replace") as file:
            text = file.read(LARGEST_CONFIG)
    except OSError:
        text = ""  # Released packages are distinguished by the size of their network as well.
    settings: dict[str, bool | None] = {}
    for part in ("jaw", "global"):
        values = set(
            re.findall(rf"^\s*exp_deca_{part}_pose:\s*(true|false)\s*$", text, re.MULTILINE | re.IGNORECASE)
        )
        lowered = {value.lower() for value in values}
        settings[part] = lowered == {"true"} if len(lowered) == 1 else None
    return settings
