"""Copies of official files as safetensors, which load faster and cannot hold code.

A copy appears under its name only after it was read back, by the reader that `load_model` uses, with equal bits.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from neuface.encoders.deca import DecaEncoder
from neuface.encoders.emoca import EmocaEncoder
from neuface.encoders.flame_encoder import FlameEncoder
from neuface.encoders.smirk import SmirkEncoder
from neuface.errors import InputError
from neuface.head.model import HeadModel
from neuface.head.versions import UNKNOWN_VERSION
from neuface.io.assets.catalogue import Asset
from neuface.io.atomic import atomic_path
from neuface.io.heads import read_head, write_head
from neuface.io.untrusted.strict_state_dict import load_strictly, refuse_misfits, sum_is_finite

FLAME_ENCODER_FORMAT = "neuface-flame-encoder-1"
HOW_MADE = "the official files, by: neuface assets convert"
EYELIDS_SUFFIX = "_eyelids"
TRAINED_WITH = "flame2020"
# Bytes of the header's length, with which a safetensors file begins.
LENGTH_BYTES = 8
COPIED_DTYPES = {"F32": torch.float32, "I64": torch.int64}
# Bounds on the bytes of a copy and of its header; the largest copy has 207 MB (EMOCA's), the longest header 86 kB
# (SMIRK's).
LARGEST_COPY, LARGEST_HEADER = 1 << 30, 1 << 20
UNREADABLE = (SafetensorError, OSError, TypeError, ValueError, AttributeError, LookupError, RuntimeError)
PathLike = str | os.PathLike[str]

COPIED_HEAD, COPIED_HEAD_WITH_EYELIDS = (
    Asset(
        what=f"a converted FLAME 2020{words}",
        names=(f"{TRAINED_WITH}{suffix}.safetensors", f"{UNKNOWN_VERSION}{suffix}.safetensors"),
        source=HOW_MADE,
    )
    for suffix, words in (("", ""), (EYELIDS_SUFFIX, " with SMIRK's eyelids"))
)
COPIED_ENCODERS = {
    name: Asset(what=f"{name.upper()}'s converted weights", names=(f"{name}.safetensors",), source=HOW_MADE)
    for name in ("deca", "emoca", "smirk")
}


def head_copy_name(head: HeadModel) -> str:
    """The file name of a head's copy, made of its version and whether it has eyelids."""
    return f"{head.name}{EYELIDS_SUFFIX if head.posed_basis is not None else ''}.safetensors"


def write_head_copy(path: PathLike, head: HeadModel, *, overwrite: bool = False) -> None:
    """Write a head model for `load_head` and `load_model`.

    Raises InputError if the file exists and may not be overwritten, or cannot be written; nothing is changed then.
    """
    refuse_existing(path, overwrite)
    with atomic_path(path) as temporary:
        write_head(temporary, head)
        again = read_head(temporary)
        _refuse_differences(path, head.named_tensors(), again.named_tensors())
        if (again.content_hash(), dict(again.absent)) != (head.content_hash(), dict(head.absent)):
            raise _not_the_same(path, "the description of the head")
        refuse_existing(path, overwrite)


def write_encoder_copy(path: PathLike, encoder: FlameEncoder, *, overwrite: bool = False) -> None:
    """Write the weights of a DECA, EMOCA or SMIRK encoder for `load_model`; raises as `write_head_copy` does."""
    refuse_existing(path, overwrite)
    model, settings = _described(encoder)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"format": FLAME_ENCODER_FORMAT, "model": model, **settings})
        again = read_encoder_copy(temporary, model)
        _refuse_differences(path, tensors, again.state_dict())
        if _described(again) != (model, settings):
            raise _not_the_same(path, "the description of the encoder")
        refuse_existing(path, overwrite)


def read_encoder_copy(path: PathLike, model: str, *, trainable: str = "both") -> FlameEncoder:
    """The encoder that `write_encoder_copy` wrote, in evaluation mode.

    Its weights are mapped from the file into memory; training them does not change the file.

    Args:
        path: the file.
        model: "deca", "emoca" or "smirk".
        trainable: for "emoca", see `EmocaEncoder`.

    Raises InputError for a file that is not a copy, one of another model, or weights that do not fit (they are
    listed).
    """
    metadata, tensors, numbers = _mapped(path, model)
    owner = f"the encoder {model!r}"
    # The check of every number takes as long as the construction of the network, so both run at once.
    with ThreadPoolExecutor(1) as beside:
        finite = beside.submit(sum_is_finite, numbers)
        with torch.device("meta"):
            encoder = _empty_encoder(path, model, metadata, trainable)
        load_strictly(path, encoder, tensors, owner, copy=False, check_finite=False)
    if not finite.result():
        refuse_misfits(path, tensors, encoder.state_dict(), owner)
    return encoder.eval()


def _mapped(path: PathLike, model: str) -> tuple[dict[str, str], dict[str, Tensor], Tensor]:
    """The metadata of a copy, its tensors, and all bytes after its header as numbers of 32 bits.

    The tensors are views of one mapping of the file. An integer of 64 bits appears as two of the numbers.
    """
    try:
        # This checks the header. safe_open's own tensors take longer to create, and one sum cannot cover all of them.
        with safe_open(path, framework="pt") as archive:
            metadata = archive.metadata() or {}
        stored = (metadata.get("format"), metadata.get("model"))
        if stored != (FLAME_ENCODER_FORMAT, model):
            raise InputError(
                f"{path}: holds no converted weights of {model!r} (its format and model are {stored}); "
                "remove it, or convert the official file again with --overwrite"
            )
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            start = LENGTH_BYTES + int.from_bytes(file.read(LENGTH_BYTES), "little")
            if size > LARGEST_COPY or start > LARGEST_HEADER:
                raise InputError(
                    f"{path}: is larger than any converted weights; remove it, or convert the official file again "
                    "with --overwrite"
                )
            entries = json.loads(file.read(start - LENGTH_BYTES))
        octets = torch.from_file(os.fspath(path), shared=False, size=size, dtype=torch.uint8)[start:]
        tensors: dict[str, Tensor] = {}
        for name, entry in entries.items():
            if name != "__metadata__":
                numbers = octets[slice(*entry["data_offsets"])].view(COPIED_DTYPES[entry["dtype"]])
                tensors[name] = numbers.view(entry["shape"])
        return metadata, tensors, octets.view(torch.float32)
    # A well-formed header can name types and offsets that no copy has.
    except UNREADABLE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is not a readable safetensors file of weights ({error})") from error


def refuse_existing(path: PathLike, overwrite: bool) -> None:
    """Raises InputError if there is a file that may not be overwritten."""
    if Path(path).exists() and not overwrite:
        raise InputError(f"{path}: exists already; give --overwrite (overwrite=True) to write it again")


def _described(encoder: FlameEncoder) -> tuple[str, dict[str, str]]:
    """The model's name, and the settings that define the encoder together with its weights."""
    if isinstance(encoder, DecaEncoder):
        return "deca", {}
    if isinstance(encoder, SmirkEncoder):
        return "smirk", {}
    if isinstance(encoder, EmocaEncoder):
        return "emoca", {"jaw": str(encoder.jaw), "root": str(encoder.root)}
    raise InputError(
        f"{type(encoder).__name__} is no encoder that can be copied; expected DECA, EMOCA or SMIRK"
    )


def _empty_encoder(path: PathLike, model: str, metadata: Mapping[str, str], trainable: str) -> FlameEncoder:
    if model == "deca":
        return DecaEncoder()
    if model == "smirk":
        return SmirkEncoder()
    stored = {name: metadata.get(name) for name in ("jaw", "root")}
    if not set(stored.values()) <= {"True", "False"}:
        raise InputError(
            f"{path}: does not state whether the expression network predicts jaw and root rotation"
        )
    return EmocaEncoder(jaw=stored["jaw"] == "True", root=stored["root"] == "True", trainable=trainable)


def _refuse_differences(path: PathLike, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    different = sorted(wanted.keys() ^ found.keys())
    different += [name for name in wanted.keys() & found.keys() if not _same_bits(wanted[name], found[name])]
    if different:
        raise _not_the_same(path, ", ".join(different[:10]))


def _same_bits(one: Tensor, other: Tensor) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    first, second = (tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other))
    return torch.equal(first, second)


def _not_the_same(path: PathLike, what: str) -> InputError:
    return InputError(
        f"{path}: was not written, because what was read back differs from the original in {what}; "
        "check the disk and try again"
    )
