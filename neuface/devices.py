"""Torch's device, checked before anything is computed; its number of threads and random seed for a limited time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Use `count` threads for torch's CPU operations; the caller's number is restored at the end.

    Example:
        >>> before = torch.get_num_threads()
        >>> with cpu_threads(1):
        ...     torch.get_num_threads()
        1
        >>> torch.get_num_threads() == before
        True
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def cpu_seed(seed: int) -> Iterator[None]:
    """Seed torch's global CPU generator; the caller's random state is restored at the end.

    For code that cannot be given a generator, such as the initialisation of torch's layers.

    Example:
        >>> state = torch.get_rng_state()
        >>> with cpu_seed(0):
        ...     first = torch.rand(3)
        >>> with cpu_seed(0):
        ...     bool((torch.rand(3) == first).all())
        True
        >>> bool((torch.get_rng_state() == state).all())
        True
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
