"""The objects of a pickle as `pickle_machine` builds them: arrays and the wrappers around them, as inert data.

The unpickling of numpy, scipy, chumpy and torch is never called. An array is a shape, a type and bytes whose number
must be right; a chumpy or scipy object is a name and a dictionary, and `array_of` evaluates the few kinds that FLAME
files contain.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
NUMERIC_MODULES = ("numpy.core.numeric", "numpy._core.numeric")
BUILTIN_MODULES = ("__builtin__", "builtins")
COPY_MODULES = ("copy_reg", "copyreg")
TORCH_TYPES = {
    "FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "LongStorage": "i8", "IntStorage": "i4",
    "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "b1",
}  # fmt: skip
NUMBER_CODE = re.compile(r"([<>|=]?)(b1|[iu][1248]|f[248])")
# Codes of text arrays and arrays of objects, which hold no numbers; they are stored and never evaluated.
OTHER_CODE = re.compile(r"[<>|=]?([SU]\d{1,6}|O\d?)")
MOST_AXES = 8
# Bound on the entries of a sparse matrix with its zeros; a joint regressor has 5 x 5023.
MOST_DENSE_CELLS = 8_000_000
# Bound on the nesting of chumpy's expressions; FLAME files have one or two layers.
DEEPEST_EXPRESSION = 8


class Damaged(Exception):
    """An invalid value; the reader adds the file's name and raises InputError."""


@dataclass(frozen=True, kw_only=True)
class GlobalMark:
    """An allowed name in a pickle; `kind` determines the result of calling or instantiating it."""

    name: str
    kind: str
    is_class: bool = False


def _marks(modules: tuple[str, ...], name: str, kind: str, is_class: bool = False) -> dict[str, GlobalMark]:
    full = [f"{module}.{name}" for module in modules]
    return {text: GlobalMark(name=text, kind=kind, is_class=is_class) for text in full}


ALLOWED_GLOBALS: dict[str, GlobalMark] = {
    **_marks(ARRAY_MODULES, "_reconstruct", "reconstruct"),
    **_marks(ARRAY_MODULES, "scalar", "scalar"),
    **_marks(NUMERIC_MODULES, "_frombuffer", "frombuffer"),
    **_marks(("numpy",), "ndarray", "ndarray"),
    **_marks(("numpy",), "dtype", "dtype"),
    **_marks(BUILTIN_MODULES, "set", "set"),
    **_marks(BUILTIN_MODULES, "object", "object"),
    **_marks(BUILTIN_MODULES, "bytes", "bytes"),
    **_marks(COPY_MODULES, "_reconstructor", "reconstructor"),
    **_marks(("_codecs",), "encode", "encode"),
    **_marks(("collections",), "OrderedDict", "ordered_dict"),
    **_marks(("chumpy.ch", "chumpy"), "Ch", "chumpy", True),
    **_marks(("chumpy.reordering",), "Select", "select", True),
    **_marks(("chumpy.reordering",), "transpose", "transpose", True),
    **_marks(("scipy.sparse.csc", "scipy.sparse._csc"), "csc_matrix", "csc", True),
    **_marks(("scipy.sparse.csr", "scipy.sparse._csr"), "csr_matrix", "csr", True),
    **_marks(("scipy.sparse._csc",), "csc_array", "csc", True),
    **_marks(("scipy.sparse._csr",), "csr_array", "csr", True),
    **_marks(("torch._utils",), "_rebuild_tensor_v2", "tensor"),
    **_marks(("torch.storage",), "_load_from_bytes", "storage"),
    **{
        key: mark
        for name, code in TORCH_TYPES.items()
        for key, mark in _marks(("torch",), name, code).items()
    },
}


def find_global(module: str, name: str) -> GlobalMark:
    """The mark of an allowed global. Raises Damaged, naming it, for any other."""
    mark = ALLOWED_GLOBALS.get(f"{module}.{name}")
    # `numpy.core` with the name `multiarray.scalar` gives the same text; no file has that form, so it is refused.
    if mark is None or "." in name:
        wanted = repr(f"{module}.{name}"[:100])
        raise Damaged(
            f"refers to {wanted}, which is not on the list of names that model files need; nothing was run. "
            "Do not use this file; get it again from where it is published"
        )
    return mark


@dataclass(kw_only=True)
class DtypeMark:
    """A numpy type in a pickle: a type of numbers, or one of text or objects, which are stored but never
    evaluated.
    """

    code: str
    order: str = "="

    def set_state(self, state: Any) -> None:
        """Take numpy's state: version, byte order, and entries that are None except for structured types."""
        if not (isinstance(state, tuple) and len(state) >= 5):
            raise Damaged("has an array type with an unknown state")
        order = text_of(state[1])
        if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise Damaged("has an array type with fields, or an unknown byte order; expected plain numbers")
        self.order = order

    @property
    def holds_objects(self) -> bool:
        return self.code.startswith("O")

    def numbers(self) -> np.dtype:
        """The numpy type. Raises Damaged for text and objects."""
        if not NUMBER_CODE.fullmatch(self.code):
            raise Damaged(f"has an array of type {self.code!r} where numbers are expected")
        return np.dtype(f"{self.order}{self.code}")

    @property
    def item_bytes(self) -> int:
        kind, size = self.code[0], int(self.code[1:])
        return 4 * size if kind == "U" else size


def dtype_from(code: Any, *_: Any) -> DtypeMark:
    """`numpy.dtype(code, ...)`, for plain types only."""
    text = text_of(code)
    number = NUMBER_CODE.fullmatch(text)
    if number:
        return DtypeMark(code=number[2], order=number[1] or "=")
    other = OTHER_CODE.fullmatch(text)
    if other is None:
        raise Damaged(f"has an array of the unknown type {text[:40]!r}; expected plain numbers")
    return DtypeMark(code=other[1])


@dataclass(kw_only=True)
class PickledArray:
    """An array in a pickle: its bytes are counted when it is built and decoded when `values` is called."""

    shape: tuple[int, ...] = ()
    dtype: DtypeMark | None = None
    fortran: bool = False
    raw: bytes | memoryview | None = None
    objects: list[Any] | None = None

    def set_state(self, state: Any) -> None:
        """Take numpy's state: version, shape, type, whether in Fortran's order, and the bytes (or list of
        objects).
        """
        if not (isinstance(state, tuple) and len(state) == 5 and self.dtype is None):
            raise Damaged("has an array with an unknown state")
        _, shape, dtype, fortran, content = state
        self.shape, self.dtype, self.fortran = _shape_from(shape), _dtype_mark(dtype), bool(fortran)
        if self.dtype.holds_objects:
            if not isinstance(content, list) or len(content) != math.prod(self.shape):
                raise Damaged(f"has an array of objects with the shape {self.shape} and not as many objects")
            self.objects = content
            return
        if isinstance(content, str):
            content = content.encode("latin1")
        self.raw = _counted_bytes(content, self.shape, self.dtype)

    def values(self) -> np.ndarray:
        """The numbers, read-only. Raises Damaged if the array has none."""
        if self.dtype is None or self.raw is None:
            raise Damaged("has an array without numbers")
        flat = np.frombuffer(self.raw, self.dtype.numbers())
        return flat.reshape(self.shape, order="F" if self.fortran else "C")

    def only_object(self) -> Any:
        """The single object of an array without axes, which is how numpy saves a dictionary."""
        if self.objects is None or self.shape != ():
            raise Damaged("is an array; expected a dictionary saved by numpy.save")
        return self.objects[0]


def array_from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> PickledArray:
    """The array of `numpy.core.numeric._frombuffer`, numpy's form for protocol 5."""
    array = PickledArray(shape=_shape_from(shape), dtype=_dtype_mark(dtype), fortran=text_of(order) == "F")
    return replace(array, raw=_counted_bytes(buffer, array.shape, _dtype_mark(dtype)))


def plain_scalar(dtype: Any, raw: Any = b"") -> Any:
    """One number of `numpy.core.multiarray.scalar` as a Python number."""
    mark = _dtype_mark(dtype)
    return np.frombuffer(_counted_bytes(raw, (), mark), mark.numbers())[0].item()


@dataclass(frozen=True, kw_only=True)
class Storage:
    """The flat numbers behind a torch tensor."""

    key: str
    dtype: DtypeMark
    count: int
    raw: memoryview | None = field(default=None, repr=False)

    @staticmethod
    def described(described: Any) -> Storage:
        """The storage of a persistent id as torch writes it: kind, type, key, device, count, views."""
        kind, mark, key, _, count, *_ = described
        if (
            text_of(kind) != "storage"
            or not isinstance(mark, GlobalMark)
            or mark.kind not in TORCH_TYPES.values()
        ):
            raise Damaged("holds a torch storage of an unknown kind")
        if not isinstance(count, int) or count < 0:
            raise Damaged("holds a torch storage without a size")
        return Storage(key=text_of(key), dtype=DtypeMark(code=mark.kind, order="<"), count=count)

    def filled(self, raw: memoryview, count: int) -> Storage:
        """The storage with its numbers. Raises Damaged if they are not as many as described."""
        if count != self.count or len(raw) != count * self.dtype.item_bytes:
            raise Damaged(f"holds a torch storage of {self.count} numbers with {len(raw)} bytes")
        return replace(self, raw=raw)


def array_from_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> PickledArray:
    """A torch tensor. Raises Damaged unless its numbers are contiguous in its storage."""
    if not isinstance(storage, Storage) or storage.raw is None:
        raise Damaged("holds a torch tensor without numbers")
    shape, expected = _shape_from(size), 1
    for length, step in zip(shape[::-1], _shape_from(stride)[::-1], strict=True):
        if length != 1 and step != expected:
            raise Damaged("holds a torch tensor with gaps or repeats between its numbers")
        expected *= length
    width = storage.dtype.item_bytes
    (start,) = _shape_from((offset,))
    piece = storage.raw[start * width : (start + math.prod(shape)) * width]
    return PickledArray(shape=shape, dtype=storage.dtype, raw=_counted_bytes(piece, shape, storage.dtype))


@dataclass(kw_only=True)
class Node:
    """An object of chumpy or scipy: its kind, and its state as a dictionary."""

    kind: str
    name: str
    state: dict[str, Any] = field(default_factory=dict, repr=False)

    def set_state(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise Damaged(f"has a {self.name} with an unknown state")
        self.state = state

    def part(self, *names: str) -> Any:
        """The first of these entries that exists. Raises Damaged if none does."""
        found = [self.state[name] for name in names if name in self.state]
        if not found:
            raise Damaged(f"has a {self.name} without {names[0]!r}")
        return found[0]


def array_of(value: Any, depth: int = 0) -> np.ndarray:
    """The numbers of an array, a chumpy expression or a sparse matrix. Raises Damaged for anything else."""
    if depth > DEEPEST_EXPRESSION:
        raise Damaged(f"has chumpy expressions nested more than {DEEPEST_EXPRESSION} deep")
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, PickledArray):
        return value.values()
    if not isinstance(value, Node):
        raise Damaged(f"is a {type(value).__name__}; expected an array")
    if value.kind == "chumpy":
        return array_of(value.part("x"), depth + 1)
    if value.kind == "select":
        chosen = array_of(value.part("idxs"), DEEPEST_EXPRESSION)
        return _selected(
            array_of(value.part("a"), depth + 1), chosen, _shape_from(value.part("preferred_shape"))
        )
    if value.kind == "transpose":
        source = array_of(value.part("a"), depth + 1)
        axes = value.state.get("axes")
        order = range(source.ndim)[::-1] if axes is None else _shape_from(axes)
        if sorted(order) != list(range(source.ndim)):
            raise Damaged("has a chumpy transpose with impossible axes")
        return source.transpose(tuple(order))
    return _dense(value)


def _selected(source: np.ndarray, chosen: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """chumpy's Select: numbers chosen by index from the flattened source."""
    whole = chosen.dtype.kind in "iu" and chosen.size == math.prod(shape)
    if not whole or (chosen.size and not 0 <= int(chosen.min()) <= int(chosen.max()) < source.size):
        raise Damaged("has a chumpy selection that does not fit its source")
    return source.reshape(-1)[chosen.reshape(-1).astype(np.int64)].reshape(shape)


def _dense(node: Node) -> np.ndarray:
    """A compressed sparse matrix (CSR or CSC) with all its zeros; repeated entries are added."""
    rows, columns = _shape_from(node.part("_shape", "shape"))
    values, inner, starts = (
        array_of(node.part(name), DEEPEST_EXPRESSION) for name in ("data", "indices", "indptr")
    )
    lines, width = (columns, rows) if node.kind == "csc" else (rows, columns)
    if rows * columns > MOST_DENSE_CELLS:
        raise Damaged(f"has a sparse matrix of {rows} x {columns}, far more than any model file needs")
    typed = values.dtype.kind == "f" and inner.dtype.kind in "iu" and starts.dtype.kind in "iu"
    flat = values.ndim == inner.ndim == starts.ndim == 1 and len(values) == len(inner)
    if not (typed and flat and len(starts) == lines + 1):
        raise Damaged("has a sparse matrix whose parts do not fit each other")
    inside = not len(inner) or 0 <= int(inner.min()) <= int(inner.max()) < width
    # The bounds are checked before the subtraction, because differences of huge integers may overflow.
    bounded = int(starts[0]) == int(starts.min()) == 0 and int(starts[-1]) == int(starts.max()) == len(values)
    counts = np.diff(starts.astype(np.int64)) if bounded else np.full(1, -1)
    if not inside or (counts < 0).any():
        raise Damaged("has a sparse matrix whose parts do not fit each other")
    dense = np.zeros((lines, width))
    np.add.at(dense, (np.repeat(np.arange(lines), counts), inner.astype(np.int64)), values)
    return dense.T if node.kind == "csc" else dense


def text_of(value: Any) -> str:
    """Short text, whether Python 2 or 3 wrote it."""
    if isinstance(value, bytes) and len(value) <= 1000:
        return value.decode("latin1")
    if not isinstance(value, str) or len(value) > 1000:
        raise Damaged("has a value of another type where a short text is expected")
    return value


def _dtype_mark(dtype: Any) -> DtypeMark:
    if not isinstance(dtype, DtypeMark):
        raise Damaged("has an array without a type")
    return replace(dtype)


def _shape_from(shape: Any) -> tuple[int, ...]:
    """The sizes of a shape. Raises Damaged for more than MOST_AXES and for anything but integers from 0 to below
    2^48.
    """
    if not isinstance(shape, tuple | list) or len(shape) > MOST_AXES:
        raise Damaged("has an array with an impossible shape")
    if not all(isinstance(size, int) and 0 <= size < 2**48 for size in shape):
        raise Damaged("has an array with an impossible shape")
    return tuple(int(size) for size in shape)


def _counted_bytes(raw: Any, shape: tuple[int, ...], dtype: DtypeMark) -> bytes | memoryview:
    """The bytes. Raises Damaged if they are not as many as shape and type need."""
    if dtype.holds_objects or not isinstance(raw, bytes | memoryview):
        raise Damaged(f"has an array of the shape {shape} without bytes")
    needed = math.prod(shape) * dtype.item_bytes
    if len(raw) != needed:
        raise Damaged(
            f"has an array of the shape {shape} and type {dtype.code}, {needed} bytes, with {len(raw)}"
        )
    return raw
