"""Weights of the open encoder in safetensors files, which hold tensors and text but no code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from importlib import resources
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from neuface.devices import cpu_seed
from neuface.encoders.open_encoder import OpenEncoder, OpenEncoderConfig
from neuface.errors import InputError, ModelMismatchError
from neuface.head.model import HeadModel
from neuface.io.atomic import atomic_path
from neuface.io.untrusted.safetensors_file import read_safetensors
from neuface.io.untrusted.strict_state_dict import refuse_misfits

ENCODER_FORMAT = "neuface-encoder-1"
SHIPPED_ENCODER = "open_encoder.safetensors"
# Bound on the channels of every layer that a file may ask for; a wider network could fill the memory.
LARGEST_WIDTH = 4096


def write_encoder(path: str | os.PathLike[str], encoder: OpenEncoder, metadata: Mapping[str, str]) -> None:
    """Write an open encoder's weights; the file appears only when it is complete.

    Convolutions and matrices are stored in half precision, other tensors unchanged. `metadata` (how the weights were
    trained, and their measured errors) is stored beside the head's name and hash and the network's size.
    """
    tensors = {name: _packed(tensor) for name, tensor in encoder.state_dict().items()}
    stored = {
        **metadata,
        "format": ENCODER_FORMAT,
        "head_name": encoder.head_name,
        "head_hash": encoder.head_hash,
        "config": json.dumps(asdict(encoder.config)),
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=stored)


def read_encoder(path: str | os.PathLike[str], head: HeadModel) -> OpenEncoder:
    """Read weights written by `write_encoder` into an encoder for `head`, in evaluation mode.

    Raises:
        InputError: The file is not one of `write_encoder`'s, or tensors are missing, unexpected, misshapen or not
        finite
            (they are named).
        ModelMismatchError: The weights were trained for another head model.
    """
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != ENCODER_FORMAT:
        raise InputError(f"{path} holds no encoder of this package (expected format {ENCODER_FORMAT!r})")
    # The random initial weights are replaced below; drawing them must not change the caller's random state.
    with cpu_seed(0):
        encoder = OpenEncoder(head, _config(path, metadata))
    if metadata.get("head_hash") != encoder.head_hash:
        raise ModelMismatchError(
            f"{path} was trained for head model {metadata.get('head_name')!r} with hash "
            f"{str(metadata.get('head_hash'))[:12]}, but the head given is {head.name!r} with hash "
            f"{encoder.head_hash[:12]}; use the weights that belong to this head"
        )
    wanted = encoder.state_dict()
    refuse_misfits(path, tensors, wanted, "the open encoder")
    encoder.load_state_dict({name: tensor.to(wanted[name].dtype) for name, tensor in tensors.items()})
    return encoder.eval()


def read_open_encoder(head: HeadModel) -> OpenEncoder:
    """The encoder shipped with the package. Raises ModelMismatchError for another head than the open one."""
    return read_encoder(Path(str(resources.files("neuface") / "assets" / SHIPPED_ENCODER)), head)


def _config(path: str | os.PathLike[str], metadata: Mapping[str, str]) -> OpenEncoderConfig:
    try:
        stored = json.loads(metadata["config"])
        sizes = [int(size) for size in (*stored["widths"], stored["reduced_channels"], stored["hidden"])]
        first, second, third, fourth, reduced, hidden = sizes
        if not all(1 <= size <= LARGEST_WIDTH for size in sizes):
            raise ValueError(f"sizes {sizes} are not all in 1..{LARGEST_WIDTH}")
        return OpenEncoderConfig(
            widths=(first, second, third, fourth), reduced_channels=reduced, hidden=hidden
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: its description of the network cannot be read ({error})") from error


def _packed(tensor: Tensor) -> Tensor:
    """Half precision for kernels and matrices; statistics of normalisation layers may not fit its range."""
    halved = tensor.half() if tensor.is_floating_point() and tensor.ndim > 1 else tensor
    return halved.detach().cpu().contiguous()
