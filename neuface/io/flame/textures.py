"""FLAME's texture spaces: the mean colour of the skin and its principal directions, as pictures in FLAME's layout.

Two files are read, both npz archives that DECA and EMOCA know:

* `FLAME_texture.npz`, published beside the FLAME model: `mean` (512, 512, 3), `tex_dir` (512, 512, 3, 200), in
  0..255.
* `FLAME_albedo_from_BFM.npz`, which a user makes from the Basel Face Model 2017: `MU`, `PC` with 199 components, in
  0..1. DECA takes them as pictures, (512, 512, 3) and (512, 512, 3, 199); the published converter writes the same
  numbers flat, (786432,) and (786432, 199). Both forms are read.

Either may hold the texture coordinates `vt` and their triangles `ft`. Both store blue, green, red. The components are
scaled with the spread of their coefficients, so there is no array of variances: a code of ones is one standard
deviation in every direction. Other entries (the gloss `specMU`, `specPC`) are not read.

An array takes up to 1.3 GB. Arrays are read in pieces of 1 MiB, and only the requested leading components are kept in
memory.
"""

from __future__ import annotations

import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuface.errors import InputError
from neuface.io.untrusted.array_files import LARGEST_COORDINATE, ZIP_MAGIC, checked_array
from neuface.io.untrusted.download_mistakes import placeholder
from neuface.io.untrusted.npy import LARGEST_HEADER, NpyHeader, read_npy_header

__all__ = ["DECA_COMPONENTS", "TextureSpace", "read_texture_space"]

DECA_COMPONENTS = 50
"""Number of components that DECA and EMOCA use."""
# Largest side of a texture, pixels.
LARGEST_SIZE, CHANNELS = 512, 3
# Bound on the bytes of every array: the larger of the two in float64, with its header.
LARGEST_MEMBER = LARGEST_SIZE**2 * CHANNELS * 200 * 8 + 2**16
# Bound on the bytes of a file: the one with the gloss has two such arrays and may be stored without compression.
LARGEST_ARCHIVE = 3 * 2**30
# Bound on the bytes of the texture coordinates and of their triangles; FLAME has 5118 and 9976 of them.
LARGEST_LAYOUT = 2**22
# Bound on the bytes of one read.
LARGEST_READ = 2**20
# Range of the brightest mean colour, relative to white; beyond it the colours are in other units than the file's
# kind.
BRIGHTEST_BETWEEN = (0.01, 1.5)


@dataclass(frozen=True, kw_only=True)
class _Kind:
    name: str
    mean: str
    basis: str
    white: float
    components: int


KINDS = (
    _Kind(name="flame", mean="mean", basis="tex_dir", white=255.0, components=200),
    _Kind(name="bfm", mean="MU", basis="PC", white=1.0, components=199),
)


@dataclass(frozen=True, kw_only=True)
class TextureSpace:
    """A linear space of skin colours: pictures of `size` x `size` pixels in FLAME's texture layout.

    Colours are red, green, blue, with black at 0 and white at 1, on the scale of the file: no gamma curve is applied
    or undone. Row 0 is the top of the picture: pixel (x, y) has its centre at u = (x + 0.5) / size and
    v = 1 - (y + 0.5) / size.
    """

    kind: str
    """`flame` (FLAME_texture.npz) or `bfm` (FLAME_albedo_from_BFM.npz); their codes cannot be exchanged."""
    mean: Float[Tensor, "3 size size"]
    basis: Float[Tensor, "3 size size components"]
    """Change of colour for one standard deviation of each component."""
    uv: Float[Tensor, "texture_vertices 2"]
    """Texture coordinates as stored (v up); no rows where the file has none."""
    uv_faces: Int[Tensor, "textured_faces 3"]
    """Rows of `uv` at each triangle; no rows where the file has none."""

    @property
    def size(self) -> int:
        """Pixels along each side."""
        return self.mean.shape[-1]

    @property
    def num_components(self) -> int:
        """Length of the longest code."""
        return self.basis.shape[-1]

    def to(self, *args: Any, **kwargs: Any) -> TextureSpace:
        """A copy moved as `Tensor.to` would; `uv_faces` keeps its dtype."""
        moved = {
            item.name: getattr(self, item.name).to(*args, **kwargs)
            for item in fields(self)
            if item.name != "kind"
        }
        moved["uv_faces"] = moved["uv_faces"].to(self.uv_faces.dtype)
        return replace(self, **moved)

    def albedo(self, code: Float[Tensor, "*batch coefficients"]) -> Float[Tensor, "*batch 3 size size"]:
        """The picture of each code: red, green, blue, nominally 0..1; a shorter code is padded with zeros.

        The result is linear in the code and not clipped, so codes far from the mean leave 0..1; clip it to show it.
        DECA's 256 px texture is every second pixel of the 512 px picture: `albedo(code)[..., ::2, ::2]`.

        Raises InputError for a code that is longer than the components that were read, or of another dtype or on
        another device than the space.
        """
        length = code.shape[-1]
        if length > self.num_components:
            raise InputError(
                f"the texture code has {length} coefficients but this texture space has {self.num_components} "
                "components; read the file with more components=, or shorten the code"
            )
        if code.dtype != self.basis.dtype or code.device != self.basis.device:
            raise InputError(
                f"the texture code is {code.dtype} on {code.device} but the texture space is {self.basis.dtype} "
                f"on {self.basis.device}; move one of them with .to()"
            )
        change = code @ self.basis.flatten(0, 2)[:, :length].mT
        return self.mean + change.unflatten(-1, self.mean.shape)


def read_texture_space(
    path: str | os.PathLike[str], *, components: int = DECA_COMPONENTS, dtype: torch.dtype = torch.float32
) -> TextureSpace:
    """A texture space file (see the head of this module), on the CPU, its colours as red, green, blue in 0..1.

    Conversions: `mean` and `tex_dir` are divided by 255, `MU` and `PC` are kept; the channels are put in the reverse
    order; the axes become channel, row, column, component. The file is read as data: no code in it is executed.

    Args:
        path: the npz file; the names of its arrays determine its kind.
        components: number of leading components to keep, at most 200 (`flame`) or 199 (`bfm`). In float32 each takes
            3 MiB at 512 x 512 pixels. The others are skipped while reading: they cost time but no memory, and are not
            checked.
        dtype: a floating-point type; numbers are stored with up to 64 bits and rounded once.

    Raises:
        InputError: the file is missing, damaged, hostile or incomplete; an array is missing, misshapen, mistyped
            or not finite (it is named); the colours are in other units than the file's kind has; or the file has
            fewer components.
    """
    if not dtype.is_floating_point:
        raise InputError(f"dtype is {dtype}; expected a floating-point type")
    source = Path(path).expanduser()
    with _opened(source) as archive:
        members = {item.filename: item for item in archive.infolist()}
        kind = _kind_of(source, members)
        if not 1 <= components <= kind.components:
            raise InputError(
                f"components is {components}; expected 1 to {kind.components} for a texture space of kind "
                f"{kind.name!r}"
            )
        mean = _read_mean(archive, members, source, kind)
        basis = _read_basis(archive, members, source, kind, len(mean), components, dtype)
        uv, uv_faces = _read_layout(archive, members, source)
    return TextureSpace(
        kind=kind.name,
        mean=torch.from_numpy(np.ascontiguousarray(mean.transpose(2, 0, 1)[::-1])).to(dtype),
        basis=basis,
        uv=torch.from_numpy(uv).to(dtype),
        uv_faces=torch.from_numpy(uv_faces),
    )


class _ShortReads(io.BufferedReader):
    """A file that refuses reads of more than LARGEST_READ bytes, so that an archive cannot claim a huge directory."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(LARGEST_READ + 1 if size is None or size < 0 else min(size, LARGEST_READ + 1))
        if len(data) > LARGEST_READ:
            raise InputError(f"{self.name}: is an npz archive with a directory larger than any has")
        return data


@contextmanager
def _opened(source: Path) -> Iterator[zipfile.ZipFile]:
    """The archive; every error while it is read becomes an InputError that names the file."""
    try:
        if not source.is_file():
            raise InputError(f"{source}: there is no such file")
        size = source.stat().st_size
        if size > LARGEST_ARCHIVE:
            raise InputError(f"{source}: has {size} bytes; no texture space is larger than {LARGEST_ARCHIVE}")
        with _ShortReads(io.FileIO(source)) as stream:
            start = stream.read(64)
            if not start.startswith(ZIP_MAGIC):
                what = placeholder(start) or "not an npz file; expected a texture space"
                raise InputError(f"{source}: is {what}")
            with zipfile.ZipFile(stream) as archive:
                yield archive
    except (
        zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError, LookupError,
        OverflowError, struct.error,
    ) as error:  # fmt: skip
        if isinstance(error, InputError):
            raise
        raise InputError(f"{source}: cannot be read as an npz archive ({error})") from error


def _kind_of(source: Path, members: dict[str, zipfile.ZipInfo]) -> _Kind:
    """The kind whose two arrays are there. Raises InputError for none, both, or half of one."""
    found = {kind: [name for name in (kind.mean, kind.basis) if f"{name}.npy" in members] for kind in KINDS}
    present = [kind for kind, names in found.items() if names]
    if len(present) == 1 and len(found[present[0]]) == 2:
        return present[0]
    expected = " or ".join(f"{kind.mean!r} and {kind.basis!r}" for kind in KINDS)
    present_names = ", ".join(repr(name) for names in found.values() for name in names) or "none of them"
    raise InputError(f"{source}: is no texture space: it has {present_names}; expected {expected}")


def _read_mean(
    archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], source: Path, kind: _Kind
) -> Float[np.ndarray, "size size 3"]:
    """The mean colours in the file's own channel order, white at 1."""
    array = _read_small(archive, members, source, kind.mean, LARGEST_SIZE**2 * CHANNELS * 8 + LARGEST_HEADER)
    size = math.isqrt(array.size // CHANNELS)
    flat = size * size * CHANNELS
    if not 1 <= size <= LARGEST_SIZE or array.shape not in ((size, size, CHANNELS), (flat,)):
        raise InputError(
            f"{source}: {kind.mean!r} has the shape {array.shape}; expected (n, n, 3) or (n * n * 3,), n at most "
            f"{LARGEST_SIZE}"
        )
    # Mean colours may be stored as bytes.
    values = array.astype(np.float64) if array.dtype == np.uint8 else array
    mean = checked_array(source, kind.mean, values, array.shape).reshape(size, size, CHANNELS) / kind.white
    low, high = BRIGHTEST_BETWEEN
    if not (mean.min() >= -high and low <= mean.max() <= high):
        raise InputError(
            f"{source}: {kind.mean!r} has values from {mean.min() * kind.white:.3g} to "
            f"{mean.max() * kind.white:.3g}; expected colours in 0..{kind.white:.0f}"
        )
    return mean


def _read_basis(
    archive: zipfile.ZipFile,
    members: dict[str, zipfile.ZipInfo],
    source: Path,
    kind: _Kind,
    size: int,
    kept: int,
    dtype: torch.dtype,
) -> Float[Tensor, "3 size size kept"]:
    """The leading components, white at 1, red first; they are read in pieces of LARGEST_READ bytes."""
    member, where = members[f"{kind.basis}.npy"], f"{source}: {kind.basis!r}"
    header = _read_header(archive, member, where, LARGEST_MEMBER)
    rows, columns = size * size * CHANNELS, kind.components
    if header.shape not in ((size, size, CHANNELS, columns), (rows, columns)):
        raise InputError(
            f"{where} has the shape {header.shape}; expected ({size}, {size}, 3, {columns}) or ({rows}, {columns}), "
            f"as {kind.mean!r} has {size} x {size} pixels"
        )
    if header.dtype.kind != "f":
        raise InputError(f"{where} has the type {header.dtype}; expected floating-point numbers")
    basis = torch.empty(CHANNELS, size * size, kept, dtype=dtype)

    def checked(values: np.ndarray) -> Tensor:
        if not (-LARGEST_COORDINATE <= float(values.min()) <= float(values.max()) <= LARGEST_COORDINATE):
            raise InputError(
                f"{where} has values that are not finite, or beyond {LARGEST_COORDINATE:.0e}, "
                f"in its first {kept} components"
            )
        # The file has blue, green, red.
        return torch.from_numpy(values.astype(np.float64)).flip(1) / kind.white

    with archive.open(member) as stream:
        _take(stream.read, header.start, where)
        if header.fortran:
            # The components follow each other, each a picture with its axes in reverse order.
            for component in range(kept):
                values = np.frombuffer(_take(stream.read, rows * header.dtype.itemsize, where), header.dtype)
                picture = values.reshape(header.shape[:-1], order="F").reshape(size * size, CHANNELS)
                basis[..., component] = checked(picture).mT
        else:
            pixel_bytes = CHANNELS * columns * header.dtype.itemsize
            step = LARGEST_READ // pixel_bytes
            for first in range(0, size * size, step):
                pixels = min(step, size * size - first)
                piece = np.frombuffer(_take(stream.read, pixels * pixel_bytes, where), header.dtype)
                values = piece.reshape(pixels, CHANNELS, columns)[..., :kept]
                basis[:, first : first + pixels] = checked(values).transpose(0, 1)
    return basis.unflatten(1, (size, size))


def _read_layout(
    archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], source: Path
) -> tuple[Float[np.ndarray, "texture_vertices 2"], Int[np.ndarray, "textured_faces 3"]]:
    """Texture coordinates and their triangles; both are without rows if the file has neither."""
    present = [name for name in ("vt", "ft") if f"{name}.npy" in members]
    if not present:
        return np.zeros((0, 2)), np.zeros((0, 3), np.int64)
    if len(present) == 1:
        raise InputError(f"{source}: has {present[0]!r} alone; expected both 'vt' and 'ft', or neither")
    vt, ft = (_read_small(archive, members, source, name, LARGEST_LAYOUT) for name in present)
    uv = checked_array(source, "vt", vt, (None, 2))
    uv_faces = checked_array(source, "ft", ft, (None, 3), whole=True)
    if uv_faces.size and not 0 <= uv_faces.min() <= uv_faces.max() < len(uv):
        raise InputError(
            f"{source}: 'ft' names texture coordinates that do not exist; expected 0 to {len(uv) - 1}"
        )
    return uv, uv_faces


def _read_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str, largest: int) -> NpyHeader:
    """The header of a member of at most `largest` bytes; its claims must agree with the member's length."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.file_size > largest:
        raise InputError(f"{where} decompresses to more than any texture space holds")
    with archive.open(member) as opened:
        beginning = opened.read(LARGEST_HEADER)
    try:
        header = read_npy_header(beginning)
        header.check("iuf", member.file_size)
    except ValueError as error:
        raise InputError(f"{where} {error}") from error
    return header


def _read_small(
    archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], source: Path, name: str, largest: int
) -> np.ndarray:
    """A whole member of at most `largest` bytes."""
    member, where = members[f"{name}.npy"], f"{source}: {name!r}"
    header = _read_header(archive, member, where, largest)
    with archive.open(member) as stream:
        _take(stream.read, header.start, where)
        data = _take(stream.read, member.file_size - header.start, where)
    return header.array(data)


def _take(read: Callable[[int], bytes], count: int, where: str) -> bytearray:
    """Exactly `count` bytes, read in pieces. At the end of a member zipfile verifies its checksum."""
    data = bytearray()
    while len(data) < count:
        piece = read(min(count - len(data), LARGEST_READ))
        if not piece:
            raise InputError(f"{where} ends too early; download the file again")
        data += piece
    return data
