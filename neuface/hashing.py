"""What two sets of tensors must have in common to count as the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import Tensor


def tensors_hash(tensors: Mapping[str, Tensor], also: bytes = b"") -> str:
    """SHA-256 over the names, shapes, dtypes and numbers of all tensors, whatever their order, then `also`."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    digest.update(also)
    return digest.hexdigest()
