"""npy files as data: the header, and the numbers after it, whose claimed size is first compared with the file."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np

NPY_MAGIC = b"\x93NUMPY"
# Bound on the bytes of a header; numpy refuses headers of more than 10,000 characters.
LARGEST_HEADER = 2**14
_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclass(frozen=True, kw_only=True)
class NpyHeader:
    """The description of the content in an npy file, before `check` has compared it with the file."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    start: int
    """Offset of the content, bytes."""

    @property
    def holds_objects(self) -> bool:
        """Whether a pickle follows."""
        return self.dtype == np.dtype(object)

    def check(self, kinds: str, length: int) -> None:
        """Raises ValueError unless this is an array of plain values that fills a file of `length` bytes.

        Args:
            kinds: numpy's codes of the allowed kinds of types, such as "iuf".
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
        """The numbers in a content whose length `check` has verified; read-only if the content is."""
        flat = np.frombuffer(content, self.dtype)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


def read_npy_header(data: bytes) -> NpyHeader:
    """The header at the beginning of a file; `data` may end after it. Raises ValueError if it cannot be read."""
    stream = io.BytesIO(data)
    try:
        shape, fortran, dtype = _READERS[np.lib.format.read_magic(stream)](stream)
    # numpy parses the header as a Python literal, which can raise many types of errors but executes nothing.
    except Exception as error:
        raise ValueError("is a damaged npy file (its header cannot be read)") from error
    return NpyHeader(shape=shape, fortran=fortran, dtype=dtype, start=stream.tell())


def plain_array(data: bytes, kinds: str) -> np.ndarray:
    """The values of a whole npy file, read-only. Raises ValueError as `NpyHeader.check` does."""
    header = read_npy_header(data)
    header.check(kinds, len(data))
    # A type of zero bytes fits any length.
    if not header.dtype.itemsize:
        raise ValueError(f"has the type {header.dtype}; expected plain numbers")
    return header.array(memoryview(data)[header.start :])
