"""All of a safetensors file: tensors and text; such a file holds no code."""

from __future__ import annotations

import os

from safetensors import SafetensorError, safe_open
from torch import Tensor

from neuface.errors import InputError


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors by name, on the CPU, and the text stored beside them.

    Raises:
        InputError: there is no file, or it is no safetensors file or a damaged one.
    """
    try:
        with safe_open(path, framework="pt") as archive:
            metadata = archive.metadata() or {}
            return {name: archive.get_tensor(name) for name in archive.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable safetensors file ({error})") from error
