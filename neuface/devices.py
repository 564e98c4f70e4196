"""The machine: torch's device, checked before anything is computed, threads and memory of a CPU, a random seed.

Threads. Torch divides every single operation among its threads, which wait for each other by spinning. Most
operations here take less than a millisecond, so that a second process on the same cores makes each of them wait for a
thread that does not run: two fits side by side took 14 times as long as one. neuface therefore computes every
operation in one thread and divides what is large, namely images for a network, among threads that sleep when they
wait (`map_pieces`). There are as many as torch would have used, that is OMP_NUM_THREADS or one per core, unless
`torch.set_num_threads`, `cpu_threads` or the command line's --threads says otherwise. Pieces do not depend on the
number of threads, and so neither do results.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch

from neuface.errors import InputError

Piece = TypeVar("Piece")
Done = TypeVar("Done")

_threads_for_pieces: ContextVar[int | None] = ContextVar("threads for pieces", default=None)
"""How many pieces are computed at a time; None outside of `one_thread_per_operation`."""


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
def cpu_threads(count: int | None) -> Iterator[None]:
    """Use `count` threads for torch's CPU operations; the caller's number is restored at the end and after errors.

    None leaves the caller's number.

    Raises InputError for a number below 1.

    Example:
        >>> before = torch.get_num_threads()
        >>> with cpu_threads(1):
        ...     torch.get_num_threads()
        1
        >>> torch.get_num_threads() == before
        True
    """
    if count is not None and count < 1:
        raise InputError(f"threads: expected at least 1, got {count}")
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_thread_per_operation() -> Iterator[None]:
    """Compute every operation of torch in one thread, and let `map_pieces` use as many as torch had.

    Every function of neuface that takes long runs in this, and may call another that does. The caller's number of
    threads is restored at the end.

    Example:
        >>> with cpu_threads(2), one_thread_per_operation():
        ...     torch.get_num_threads()
        1
    """
    if _threads_for_pieces.get() is not None:
        yield
        return
    before = _threads_for_pieces.set(torch.get_num_threads())
    try:
        with cpu_threads(1):
            yield
    finally:
        _threads_for_pieces.reset(before)


def map_pieces(function: Callable[[Piece], Done], pieces: Sequence[Piece]) -> list[Done]:
    """`function` of every piece of some work, in order; several at a time within `one_thread_per_operation`.

    Whether gradients are recorded is the same as for the caller. An error of a piece is raised here.

    Example:
        >>> with cpu_threads(2), one_thread_per_operation():
        ...     map_pieces(len, ["a", "bc"])
        [1, 2]
    """
    threads = min(_threads_for_pieces.get() or 1, len(pieces))
    if threads <= 1:
        return [function(piece) for piece in pieces]
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def in_mode(piece: Piece) -> Done:
        # Torch keeps both modes for each thread.
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            return function(piece)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(in_mode, pieces))


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


def return_freed_memory() -> None:
    """Give memory that is free inside the process back to the system, where the C library keeps it (glibc).

    After many allocations of changing size it keeps about as much as a long clip's landmarks take.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
