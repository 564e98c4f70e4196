"""npy files as data: the header, and the numbers behind it once their claimed size is found to be there."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np

NPY_MAGIC = b"\x93NUMPY"
# numpy's own limit of a header that it will read is 10,000 characters.
LARGEST_HEADER = 2**14
_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclass(frozen=True, kw_only=True)
class NpyHeader:
    """What an npy file says about its content; nothing of it is believed yet."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    start: int
    """Where the content begins, bytes."""

    @property
    def holds_objects(self) -> bool:
        """Whether a pickle follows."""
        return self.dtype == np.dtype(object)

    def check(self, kinds: str, length: int) -> None:
        """Raises ValueError unless this is an array of plain values that fills a file of `length` bytes.

        Args:
            kinds: of numpy's type codes that are allowed, such as "iuf".
        """
        if self.dtype.names is not None or self.dtype.subdtype is not None or self.dtype.kind not in kinds:
            raise ValueError(f"has the type {self.dtype}; expected plain numbers")
        needed = math.prod(self.shape) * self.dtype.itemsize
        if any(size < 0 for size in self.shape) or self.start + needed != length:
            raise ValueError(
                f"is damaged: the shape {self.shape} of {self.dtype} takes {needed} bytes, but {length - self.start} "
                "follow"
            )

    def array(self, content: bytes | bytearray | memoryview) -> np.ndarray:
        """The numbers in a content of the right length, read-only if it is."""
        flat = np.frombuffer(content, self.dtype)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


def read_npy_header(data: bytes) -> NpyHeader:
    """The header at the beginning of a file; `data` may end behind it. Raises ValueError if it cannot be read."""
    stream = io.BytesIO(data)
    try:
        shape, fortran, dtype = _READERS[np.lib.format.read_magic(stream)](stream)
    # numpy evaluates the header as a Python literal, which can fail in any way; it can run nothing.
    except Exception as error:
        raise ValueError("is a damaged npy file (its header cannot be read)") from error
    return NpyHeader(shape=shape, fortran=fortran, dtype=dtype, start=stream.tell())


def plain_array(data: bytes, kinds: str) -> np.ndarray:
    """The values of a whole npy file, read-only. Raises ValueError as `NpyHeader.check` does."""
    header = read_npy_header(data)
    header.check(kinds, len(data))
    # A type of no bytes fits any length.
    if not header.dtype.itemsize:
        raise ValueError(f"has the type {header.dtype}; expected plain numbers")
    return header.array(memoryview(data)[header.start :])
