"""Content hashes of sets of tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import Tensor


def tensors_hash(tensors: Mapping[str, Tensor], also: bytes = b"") -> str:
    """SHA-256 over the names, shapes, dtypes and values of all tensors in the order of their names, then `also`.

    Example:
        >>> import torch
        >>> tensors_hash({"a": torch.zeros(2), "b": torch.ones(1)}) == tensors_hash(
        ...     {"b": torch.ones(1), "a": torch.zeros(2)}
        ... )
        True
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        # The memory itself, not a copy of it: landmarks of long clips are large.
        digest.update(tensor.detach().cpu().contiguous().numpy().reshape(-1).view("uint8").data)
    digest.update(also)
    return digest.hexdigest()
