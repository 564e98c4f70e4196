"""The device a user asks for, checked before anything is computed."""

from __future__ import annotations

import torch

from neuface.errors import InputError


def checked_device(device: str | torch.device | None) -> torch.device:
    """The device of that name, the CPU for None.

    Raises InputError for a name torch does not know, for CUDA where there is none, and for any other kind: parts of
    the fit need float64, which Apple's `mps` lacks, and nothing else was ever tried.
    """
    try:
        place = torch.device("cpu" if device is None else device)
    except RuntimeError as error:
        raise InputError(f"unknown device {device!r}: expected 'cpu', 'cuda' or 'cuda:0'") from error
    if place.type not in ("cpu", "cuda"):
        raise InputError(
            f"device {str(place)!r} cannot be used: expected 'cpu' or 'cuda' (parts of neuface need float64)"
        )
    if place.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {str(place)!r} was asked for, but this machine or torch build has no CUDA")
    return place
