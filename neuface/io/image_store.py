"""The images of a fit by their index: in memory, or in a temporary file where they are many."""

from __future__ import annotations

import math
import os
import tempfile
import weakref

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuface.errors import InputError

MOST_IN_MEMORY_BYTES = 1 << 26
"""Bounds the images that are kept in memory, bytes: some 450 of the open encoder's."""
MOST_ON_ACCELERATOR_BYTES = 1 << 29
"""The same for another device than the CPU, which has memory of its own, and to which copying takes time."""


class ImageStore:
    """Float32 images of one shape, written once and read by index; memory stays small however many there are.

    It is an `ImageSource`: `store[index]` gives the images on the device of the store.

    Args:
        count: the number of images.
        shape: the shape of one.
        device: where the images are wanted.
        most_in_memory_bytes: with more than that, the images are kept in a temporary file; None is a bound that
            depends on the device.

    Raises:
        InputError: there is no room for the temporary file.
    """

    def __init__(
        self,
        count: int,
        shape: tuple[int, ...],
        *,
        device: torch.device | None = None,
        most_in_memory_bytes: int | None = None,
    ) -> None:
        self.shape, self.device = shape, device
        self._row_bytes = 4 * math.prod(shape)
        self._memory: Tensor | None = None
        if most_in_memory_bytes is None:
            on_cpu = device is None or device.type == "cpu"
            most_in_memory_bytes = MOST_IN_MEMORY_BYTES if on_cpu else MOST_ON_ACCELERATOR_BYTES
        if count * self._row_bytes <= most_in_memory_bytes:
            self._memory = torch.zeros(count, *shape, device=device)
            return
        # The file lives as long as this store, and vanishes with it.
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        weakref.finalize(self, self._file.close)

    def write(self, row: int, images: Float[Tensor, "n c h w"]) -> None:
        """Keep images from this row on."""
        if self._memory is not None:
            self._memory[row : row + len(images)] = images.to(self.device)
            return
        try:
            self._file.seek(row * self._row_bytes)
            self._file.write(images.cpu().float().contiguous().numpy().tobytes())
            self._file.flush()
        except OSError as error:
            raise InputError(
                f"the images of the clip cannot be kept in a temporary file ({error}); make room in "
                f"{tempfile.gettempdir()}, or name another folder in TMPDIR"
            ) from error

    def __getitem__(self, index: Int[Tensor, " images"], /) -> Float[Tensor, "images c h w"]:
        """The images of these rows."""
        if self._memory is not None:
            return self._memory[index]
        images = np.empty((len(index), *self.shape), np.float32)
        flat = images.reshape(len(index), math.prod(self.shape))
        for place, row in enumerate(index.tolist()):
            # Reading at a position, not a mapped file: mapped pages would count as this process's memory.
            data = os.pread(self._file.fileno(), self._row_bytes, row * self._row_bytes)
            flat[place] = np.frombuffer(data, np.float32)
        return torch.from_numpy(images).to(self.device)
