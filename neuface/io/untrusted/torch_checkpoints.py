"""Torch checkpoints as data: no code in them is executed, and they cannot claim more memory than the file is large.

Two checks precede the tensors. First the pickled part is searched, without unpickling it, for the names that it would
import. Only the names of which tensors consist are allowed, and those of a few classes that training programs leave
in their files, which are replaced by inert stand-ins. Then `torch.load` reads with `weights_only=True`.
"""

from __future__ import annotations

import io
import os
import pickletools
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuface.errors import InputError
from neuface.io.untrusted.download_mistakes import placeholder

ZIP_START, PICKLE_START = b"PK\x03\x04", b"\x80"
# Bound on the bytes of the pickled part; a checkpoint of some hundred tensors has less than a megabyte.
LARGEST_PICKLE = 16 << 20
# Number of pickles in the format before torch 1.6: magic number, protocol, system, content and storage names.
LEGACY_PICKLES = 5
# Number of names that an error message lists.
MOST_NAMED = 10

TENSOR_GLOBALS = frozenset(
    {"collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter", "torch.Size"}
    | {f"torch.{kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Byte",
                                           "Char", "Bool")}
)  # fmt: skip
# Classes that training programs leave in the parts of a checkpoint that are not weights. They are never imported.
INERT_GLOBALS = frozenset(
    {f"{package}.{name}"
     for package in ("pytorch_lightning", "lightning.pytorch")
     for name in ("callbacks.model_checkpoint.ModelCheckpoint", "callbacks.early_stopping.EarlyStopping",
                  "callbacks.lr_monitor.LearningRateMonitor", "callbacks.progress.tqdm_progress.TQDMProgressBar",
                  "callbacks.progress.base.ProgressBarBase", "callbacks.progress.ProgressBar",
                  "callbacks.model_summary.ModelSummary", "callbacks.gradient_accumulation_scheduler."
                  "GradientAccumulationScheduler", "utilities.parsing.AttributeDict")}
    | {f"{module}.scalar" for module in ("numpy.core.multiarray", "numpy._core.multiarray")}
    | {"numpy.dtype", "argparse.Namespace", "pathlib.PosixPath", "pathlib.WindowsPath"}
)  # fmt: skip


class _Inert:
    """Replaces a class of another program: accepts any arguments and state, and stores none."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def read_checkpoint(path: str | os.PathLike[str]) -> dict[Any, Any]:
    """The dictionary in a torch checkpoint, zip or older format, its tensors on the CPU.

    Tensors of a zip file are mapped from the file, so that unused parts take no memory.

    Raises InputError when the file is missing, damaged or not a checkpoint, when its parts claim to be larger than
    the file, or when it names globals that weights do not need (they are listed, and neither imported nor executed).
    """
    file = Path(path)
    zipped = _is_zip(file)
    _refuse_other_globals(file, zipped)
    stubs: list[Any] = [(type("Inert", (_Inert,), {}), name) for name in sorted(INERT_GLOBALS)]
    try:
        with torch.serialization.safe_globals(stubs), warnings.catch_warnings():
            # The deprecation of torch's old storage classes concerns programs; published files contain them.
            warnings.simplefilter("ignore")
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:
        # Torch's reader can raise any type of error on a damaged pickle; in each case the file is the cause.
        raise InputError(
            f"{file}: this checkpoint is damaged and cannot be read ({_first_line(error)})"
        ) from error
    if not isinstance(content, dict):
        raise InputError(
            f"{file}: expected a dictionary of weights, found a {type(content).__name__}; "
            "give the published checkpoint itself"
        )
    return content


def state_dict_at(path: str | os.PathLike[str], content: Mapping[Any, Any], key: str) -> dict[str, Tensor]:
    """The weights under one key of a checkpoint. Raises InputError when there are none."""
    weights = content.get(key)
    if not isinstance(weights, dict) or not weights:
        known = ", ".join(sorted(str(name) for name in content)[:MOST_NAMED]) or "nothing"
        raise InputError(f"{path}: expected weights under {key!r}; this file has {known}")
    return named_tensors(path, weights)


def named_tensors(
    path: str | os.PathLike[str], weights: Mapping[Any, Any], prefix: str = ""
) -> dict[str, Tensor]:
    """The weights whose name starts with a prefix, named without it. Raises InputError if one is not a plain
    tensor.
    """
    chosen = {name: value for name, value in weights.items() if str(name).startswith(prefix)}
    others = [str(name) for name, value in chosen.items() if not _is_plain_tensor(name, value)]
    if others:
        raise InputError(
            f"{path}: expected named tensors only, found other things at {', '.join(others[:MOST_NAMED])}"
        )
    return {name.removeprefix(prefix): tensor for name, tensor in chosen.items()}


def _is_plain_tensor(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided


def _is_zip(file: Path) -> bool:
    """Whether a file has the zip format or the older one. Raises InputError for any other file."""
    if not file.is_file():
        raise InputError(f"{file}: there is no such file")
    try:
        with open(file, "rb") as stream:
            start = stream.read(64)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error})") from error
    if start.startswith(ZIP_START):
        return True
    if start.startswith(PICKLE_START):
        return False
    if what := placeholder(start):
        raise InputError(f"{file}: is {what}")
    raise InputError(
        f"{file}: is no torch checkpoint (it starts with {start[:8]!r}); expected the published file as downloaded"
    )


def _refuse_other_globals(file: Path, zipped: bool) -> None:
    """Search the pickled part for names to import. Raises InputError for all but the known ones."""
    names: set[str] = set()
    damage = ""
    try:
        if zipped:
            names.update(_pickle_globals(io.BytesIO(_zipped_pickle(file))))
        else:
            # The copy in memory bounds every read: a file's stream allocates the requested bytes before it reads.
            with open(file, "rb") as opened:
                stream = io.BytesIO(opened.read(LARGEST_PICKLE))
            for _ in range(LEGACY_PICKLES):
                names.update(_pickle_globals(stream))
    except InputError:
        raise
    except Exception as error:
        # As above: pickletools can raise any type of error on a damaged pickle.
        damage = _first_line(error)
    others = sorted(names - TENSOR_GLOBALS - INERT_GLOBALS)
    if others:
        raise InputError(
            f"{file}: refused, because it asks for {', '.join(others[:MOST_NAMED])}, which weights have no need of. "
            "Nothing of it was run; get the file from its publisher"
        )
    if damage:
        raise InputError(f"{file}: this checkpoint is damaged or not complete ({damage}); download it again")


def _zipped_pickle(file: Path) -> bytes:
    """The pickled part of a zip checkpoint. Raises InputError if the members are larger than the file."""
    size = file.stat().st_size
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        packed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
        if packed or sum(member.file_size for member in members) > size:
            raise InputError(
                f"{file}: refused, because its parts claim to be larger than the file; torch writes no such files"
            )
        pickles = [member for member in members if member.filename.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1 or pickles[0].file_size > LARGEST_PICKLE:
            raise InputError(
                f"{file}: is a zip archive but no torch checkpoint; expected one small data.pkl in it"
            )
        return archive.read(pickles[0])


def _pickle_globals(stream: io.BytesIO) -> Iterator[str]:
    """Names that the pickle at the stream's position imports, as `module.name`; the stream is then after it."""
    start = stream.tell()
    for operation, argument, position in pickletools.genops(stream):
        if position is not None and position - start > LARGEST_PICKLE:
            raise ValueError("its pickled part is too long")
        if operation.name in ("GLOBAL", "INST"):
            yield ".".join(str(argument).split(" "))
        elif operation.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
            yield f"a name hidden behind {operation.name}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
