"""The device that the user chose, checked before anything is computed."""

from __future__ import annotations

import torch

from neuface.errors import InputError


def checked_device(device: str | torch.device | None) -> torch.device:
    """The device of that name; the CPU for None.

    Raises InputError for a name that torch does not know, for CUDA where it is not available, and for any other kind
    of device: parts of the fit need float64, which Apple's `mps` lacks, and other kinds have not been tested.

    Example:
        >>> checked_device(None)
        device(type='cpu')
    """
    try:
        checked = torch.device("cpu" if device is None else device)
    except RuntimeError as error:
        raise InputError(f"unknown device {device!r}: expected 'cpu', 'cuda' or 'cuda:0'") from error
    if checked.type not in ("cpu", "cuda"):
        raise InputError(
            f"device {str(checked)!r} cannot be used: expected 'cpu' or 'cuda' (parts of neuface need float64)"
        )
    if checked.type == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"device {str(checked)!r} was asked for, but this machine or torch build has no CUDA"
        )
    return checked
