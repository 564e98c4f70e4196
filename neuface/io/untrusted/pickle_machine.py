"""Pickle files read as data, by a small machine that knows a few opcodes and calls nothing that a file names.

A pickle is a program. Python's reader executes it, and even with a filter on the names that it may call, a few bytes
can make it allocate gigabytes, hash for years or overflow the stack. Here the program runs on a machine that compares
every length with the bytes of the file, bounds the number of steps, and replaces calls by a table of functions of
this package, which return inert values. A name that is not in the table is refused, and the error states it.

The result consists of dict, list, tuple, str, bytes, int, float, bool, None and the values of
`neuface.io.untrusted.pickle_values`. Strings of Python 2 are `bytes`; those used as keys are decoded as latin1.
Sets become lists, as their content is never needed.
"""

from __future__ import annotations

import codecs
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from neuface.errors import InputError
from neuface.io.untrusted.pickle_values import (
    Damaged,
    DtypeMark,
    GlobalMark,
    Node,
    PickledArray,
    Storage,
    array_from_buffer,
    array_from_tensor,
    dtype_from,
    find_global,
    plain_scalar,
    text_of,
)

__all__ = ["parse_pickle"]

# Bound on the opcodes of a pickle. A FLAME file takes about 600 steps; a step creates at most one small object.
MOST_STEPS = 20_000
# Bound on the bytes that steps may create beyond those of the file, in multiples of its size.
BYTES_MADE_PER_BYTE = 3
# Bounds on an integer or a float (digits as text, bytes in binary form) and on the characters of a dictionary key.
LONGEST_NUMBER = 40
LONGEST_KEY = 1000
TORCH_MAGIC = 0x1950A86A20F9469CFC6C
TORCH_PROTOCOL = 1001


def parse_pickle(data: bytes, source: str) -> Any:
    """The value that a pickle describes, as inert data; `source` names the file in errors.

    Raises InputError for a damaged pickle, one that names a global outside the allowed list, or one that exceeds
    MOST_STEPS or BYTES_MADE_PER_BYTE.
    """
    machine = _Machine(data, _Budget(MOST_STEPS, BYTES_MADE_PER_BYTE * len(data)))
    try:
        return machine.run()
    except Damaged as error:
        raise InputError(f"{source}: {error}") from None
    except (ValueError, TypeError, LookupError, OverflowError, struct.error) as error:
        raise InputError(
            f"{source}: is not a readable pickle ({type(error).__name__}); expected an intact file"
        ) from None


@dataclass
class _Budget:
    """The remaining steps and bytes, shared with the pickles inside a pickle."""

    steps: int
    made_bytes: int

    def step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise Damaged(f"takes more than {MOST_STEPS} steps to read; no file of this kind does")

    def make(self, count: int) -> None:
        self.made_bytes -= count
        if self.made_bytes < 0:
            raise Damaged("would expand to many times its own size; no file of this kind does")


class _Machine:
    """The state of reading one pickle: a stack, the marked positions on it, and a memo of numbered values."""

    def __init__(self, data: bytes, budget: _Budget, start: int = 0, *, names_storages: bool = False) -> None:
        self.data = data
        self.at = start
        self.budget = budget
        self.names_storages = names_storages
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Read up to the STOP opcode; `at` is then the offset of the byte after it."""
        while True:
            self.budget.step()
            opcode = self.take(1)
            if opcode == pickle.STOP:
                return self.pop()
            handler = _HANDLERS.get(opcode)
            if handler is None:
                raise Damaged(
                    f"has the byte {opcode!r} at {self.at - 1} where a pickle instruction of plain data is "
                    "expected; the file is damaged, of another kind, or builds objects that are never needed"
                )
            handler(self)

    # --- Bytes

    def take(self, count: int) -> bytes:
        stop = self.at + count
        if count < 0 or stop > len(self.data):
            raise Damaged(f"ends too early: {count} bytes are expected at byte {self.at} of {len(self.data)}")
        taken = self.data[self.at : stop]
        self.at = stop
        return taken

    def take_count(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def take_line(self, longest: int | None = None) -> bytes:
        stop = self.data.find(b"\n", self.at)
        if stop < 0:
            raise Damaged(f"ends too early: a line is expected at byte {self.at} of {len(self.data)}")
        if longest is not None and stop - self.at > longest:
            raise Damaged(f"has a number of more than {longest} digits at byte {self.at}")
        line = self.take(stop - self.at)
        self.at += 1
        return line

    # --- Stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            self._unbalanced()
        return self.stack.pop()

    def top(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            self._unbalanced()
        return self.stack[-1]

    def pop_to_mark(self) -> list[Any]:
        if not self.marks:
            self._unbalanced()
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def _unbalanced(self) -> NoReturn:
        raise Damaged(f"is no valid pickle: its stack is empty at byte {self.at}")

    # --- Instructions

    def set_items(self, flat: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, dict) or len(flat) % 2:
            raise Damaged("is no valid pickle: it sets items of something that is no dictionary")
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            target[_key(key)] = value

    def append_items(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise Damaged("is no valid pickle: it appends to something that is no list")
        target.extend(items)

    def remember(self, number: int) -> None:
        self.memo[number] = self.top()

    def recall(self, number: int) -> None:
        if number not in self.memo:
            raise Damaged(f"is no valid pickle: it recalls value {number}, which it never stored")
        self.push(self.memo[number])

    def push_global(self, module: str, name: str) -> None:
        self.push(find_global(module, name))

    def push_named_global(self) -> None:
        name, module = self.pop(), self.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise Damaged("is no valid pickle: a global's name is not text")
        self.push_global(module, name)

    def push_text(self, encoded: bytes, codec: str = "utf-8") -> None:
        self.push(str(encoded, codec, "surrogatepass" if codec == "utf-8" else "strict"))

    def push_quoted(self) -> None:
        line = self.take_line()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            raise Damaged(f"is no valid pickle: a string without quotes ends at byte {self.at}")
        self.push(codecs.escape_decode(line[1:-1])[0])

    def push_integer_line(self) -> None:
        line = self.take_line(LONGEST_NUMBER)
        # Protocol 0 writes truth values as integers with a leading zero.
        known = {b"01": True, b"00": False}
        self.push(known[line] if line in known else int(line.removesuffix(b"L")))

    def push_long(self, count: int) -> None:
        if count > LONGEST_NUMBER:
            raise Damaged(f"has an integer of {count} bytes; expected at most {LONGEST_NUMBER}")
        self.push(int.from_bytes(self.take(count), "little", signed=True))

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not (isinstance(function, GlobalMark) and isinstance(arguments, tuple)):
            raise Damaged("is no valid pickle: it calls something that is no function")
        maker = _MAKERS.get(function.kind)
        if maker is None:
            raise Damaged(f"calls {function.name}, which is no part of a model file")
        self.push(maker(self, arguments))

    def new_object(self) -> None:
        arguments, kind = self.pop(), self.pop()
        if arguments != ():
            raise Damaged("makes an object with arguments, which no model file does")
        self.push(_empty_object(kind))

    def build(self) -> None:
        state = self.pop()
        target = self.top()
        if not isinstance(target, Node | PickledArray | DtypeMark):
            raise Damaged("sets the state of a value that has none, which no model file does")
        target.set_state(state)

    def push_stored(self) -> None:
        """Push the storage that a persistent id describes; such ids are allowed only inside torch's storages."""
        described = self.pop()
        if not self.names_storages:
            raise Damaged("refers to data outside the file, which no model file does")
        self.push(Storage.described(described))


def _key(key: Any) -> Any:
    """The key if it is a short plain value: hashing a nested value may take time without bound."""
    if isinstance(key, bytes):
        key = key.decode("latin1")
    if not isinstance(key, str | int | float | None) or (isinstance(key, str) and len(key) > LONGEST_KEY):
        raise Damaged("has a dictionary key that is neither a short text nor a number")
    return key


def _empty_object(kind: Any) -> Any:
    if not (isinstance(kind, GlobalMark) and kind.is_class):
        raise Damaged("makes an object of something that is no class of a model file")
    return Node(kind=kind.kind, name=kind.name)


# --- The calls that a pickle may request; each returns inert data.


def _reconstruct(machine: _Machine, arguments: tuple[Any, ...]) -> PickledArray:
    return PickledArray()


def _reconstructor(machine: _Machine, arguments: tuple[Any, ...]) -> Any:
    kind, base, state = arguments
    if not (isinstance(base, GlobalMark) and base.kind == "object" and state is None):
        raise Damaged("makes an object from a base other than `object`, which no model file does")
    return _empty_object(kind)


def _encode(machine: _Machine, arguments: tuple[Any, ...]) -> bytes:
    text, codec = arguments
    if not isinstance(text, str) or text_of(codec) not in ("latin1", "latin-1"):
        raise Damaged("asks for a text codec other than latin1, which no model file does")
    machine.budget.make(len(text))
    return text.encode("latin1")


def _no_bytes(machine: _Machine, arguments: tuple[Any, ...]) -> bytes:
    """Empty bytes, as Python 3 writes them in Python 2's protocols."""
    if arguments != ():
        raise Damaged("makes bytes of something else, which no model file does")
    return b""


def _storage_from_bytes(machine: _Machine, arguments: tuple[Any, ...]) -> Storage:
    """A tensor's storage in torch's format before 1.6: five pickles, then the length and the numbers."""
    (inner,) = arguments
    if not isinstance(inner, bytes):
        raise Damaged("holds a torch storage that is not bytes")
    machine.budget.make(len(inner))
    values, at = [], 0
    for _ in range(5):
        part = _Machine(inner, machine.budget, at, names_storages=True)
        values.append(part.run())
        at = part.at
    magic, protocol, _, storage, keys = values
    if (
        magic != TORCH_MAGIC
        or protocol != TORCH_PROTOCOL
        or not isinstance(storage, Storage)
        or not isinstance(keys, list)
        or [text_of(key) for key in keys] != [storage.key]
    ):
        raise Damaged("holds a torch storage of an unknown layout")
    count = int.from_bytes(inner[at : at + 8], "little")
    return storage.filled(memoryview(inner)[at + 8 :], count)


_MAKERS: dict[str, Callable[[_Machine, tuple[Any, ...]], Any]] = {
    "reconstruct": _reconstruct,
    "reconstructor": _reconstructor,
    "encode": _encode,
    "bytes": _no_bytes,
    "dtype": lambda machine, arguments: dtype_from(*arguments),
    "scalar": lambda machine, arguments: plain_scalar(*arguments),
    "frombuffer": lambda machine, arguments: array_from_buffer(*arguments),
    "tensor": lambda machine, arguments: array_from_tensor(*arguments),
    "storage": _storage_from_bytes,
    "set": lambda machine, arguments: [],
    "ordered_dict": lambda machine, arguments: {},
}


def _counted(size: int, push: Callable[[_Machine, bytes], None]) -> Callable[[_Machine], None]:
    return lambda machine: push(machine, machine.take(machine.take_count(size)))


def _fixed(size: int, push: Callable[[_Machine, bytes], None]) -> Callable[[_Machine], None]:
    return lambda machine: push(machine, machine.take(size))


def _integer(signed: bool) -> Callable[[_Machine, bytes], None]:
    return lambda machine, raw: machine.push(int.from_bytes(raw, "little", signed=signed))


def _tuple_of(count: int) -> Callable[[_Machine], None]:
    def handler(machine: _Machine) -> None:
        machine.push(tuple([machine.pop() for _ in range(count)][::-1]))

    return handler


def _start(machine: _Machine) -> None:
    protocol = machine.take(1)[0]
    if protocol > pickle.HIGHEST_PROTOCOL:
        raise Damaged(f"is a pickle of the unknown protocol {protocol}")


def _pop(machine: _Machine) -> None:
    # As in Python's reader, POP removes a mark if the mark is on top.
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.pop()


def _set_one(machine: _Machine) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _append_one(machine: _Machine) -> None:
    value = machine.pop()
    machine.append_items([value])


def _dictionary(machine: _Machine) -> None:
    flat = machine.pop_to_mark()
    machine.push({})
    machine.set_items(flat)


_HANDLERS: dict[bytes, Callable[[_Machine], None]] = {
    pickle.PROTO: _start,
    # Frames only group bytes for faster reading.
    pickle.FRAME: lambda machine: _fixed(8, lambda *_: None)(machine),
    pickle.NONE: lambda machine: machine.push(None),
    pickle.NEWTRUE: lambda machine: machine.push(True),
    pickle.NEWFALSE: lambda machine: machine.push(False),
    pickle.INT: lambda machine: machine.push_integer_line(),
    pickle.LONG: lambda machine: machine.push_integer_line(),
    pickle.BININT: _fixed(4, _integer(signed=True)),
    pickle.BININT1: _fixed(1, _integer(signed=False)),
    pickle.BININT2: _fixed(2, _integer(signed=False)),
    pickle.LONG1: lambda machine: machine.push_long(machine.take_count(1)),
    pickle.LONG4: lambda machine: machine.push_long(machine.take_count(4)),
    pickle.FLOAT: lambda machine: machine.push(float(machine.take_line(LONGEST_NUMBER))),
    pickle.BINFLOAT: _fixed(8, lambda machine, raw: machine.push(struct.unpack(">d", raw)[0])),
    pickle.STRING: lambda machine: machine.push_quoted(),
    pickle.SHORT_BINSTRING: _counted(1, _Machine.push),
    pickle.BINSTRING: _counted(4, _Machine.push),
    pickle.SHORT_BINBYTES: _counted(1, _Machine.push),
    pickle.BINBYTES: _counted(4, _Machine.push),
    pickle.BINBYTES8: _counted(8, _Machine.push),
    pickle.BYTEARRAY8: _counted(8, _Machine.push),
    pickle.UNICODE: lambda machine: machine.push_text(machine.take_line(), "raw-unicode-escape"),
    pickle.SHORT_BINUNICODE: _counted(1, _Machine.push_text),
    pickle.BINUNICODE: _counted(4, _Machine.push_text),
    pickle.BINUNICODE8: _counted(8, _Machine.push_text),
    pickle.EMPTY_TUPLE: lambda machine: machine.push(()),
    pickle.TUPLE: lambda machine: machine.push(tuple(machine.pop_to_mark())),
    pickle.TUPLE1: _tuple_of(1),
    pickle.TUPLE2: _tuple_of(2),
    pickle.TUPLE3: _tuple_of(3),
    pickle.EMPTY_LIST: lambda machine: machine.push([]),
    pickle.LIST: lambda machine: machine.push(machine.pop_to_mark()),
    pickle.APPEND: _append_one,
    pickle.APPENDS: lambda machine: machine.append_items(machine.pop_to_mark()),
    pickle.EMPTY_DICT: lambda machine: machine.push({}),
    pickle.DICT: _dictionary,
    pickle.SETITEM: _set_one,
    pickle.SETITEMS: lambda machine: machine.set_items(machine.pop_to_mark()),
    pickle.EMPTY_SET: lambda machine: machine.push([]),
    pickle.ADDITEMS: lambda machine: machine.append_items(machine.pop_to_mark()),
    pickle.FROZENSET: lambda machine: machine.push(machine.pop_to_mark()),
    pickle.MARK: lambda machine: machine.marks.append(len(machine.stack)),
    pickle.POP: _pop,
    pickle.POP_MARK: lambda machine: machine.pop_to_mark().clear(),
    pickle.DUP: lambda machine: machine.push(machine.top()),
    pickle.PUT: lambda machine: machine.remember(int(machine.take_line(LONGEST_NUMBER))),
    pickle.BINPUT: lambda machine: machine.remember(machine.take_count(1)),
    pickle.LONG_BINPUT: lambda machine: machine.remember(machine.take_count(4)),
    pickle.MEMOIZE: lambda machine: machine.remember(len(machine.memo)),
    pickle.GET: lambda machine: machine.recall(int(machine.take_line(LONGEST_NUMBER))),
    pickle.BINGET: lambda machine: machine.recall(machine.take_count(1)),
    pickle.LONG_BINGET: lambda machine: machine.recall(machine.take_count(4)),
    pickle.GLOBAL: lambda machine: machine.push_global(
        machine.take_line().decode("latin1"), machine.take_line().decode("latin1")
    ),
    pickle.STACK_GLOBAL: lambda machine: machine.push_named_global(),
    pickle.REDUCE: lambda machine: machine.call(),
    pickle.NEWOBJ: lambda machine: machine.new_object(),
    pickle.BUILD: lambda machine: machine.build(),
    pickle.BINPERSID: lambda machine: machine.push_stored(),
}
