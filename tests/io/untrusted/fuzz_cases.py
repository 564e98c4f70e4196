"""Damaged copies of a file, and files made to run code or to fill the memory."""

from __future__ import annotations

import builtins
import functools
import importlib
import io
import json
import operator
import os
import pickle
import struct
import subprocess
import types
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

COMMAND = "touch MARKER"
HUGE = (2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
# Where a format keeps its structure: the ends, and whatever lies around its brackets and names.
EDGE_BYTES = 700


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call

    def __call__(self) -> None:
        """So that a call may itself be what is called."""


def mutated(content: bytes, generator: np.random.Generator, count: int) -> Iterator[tuple[str, bytes]]:
    """`count` damaged copies; half of the damage is near the ends, where headers and directories are."""
    kinds: tuple[Callable[[bytearray, np.random.Generator], None], ...] = (
        _flip, _truncate, _delete, _repeat, _insert, _zero, _enlarge,
    )  # fmt: skip
    for number in range(count):
        kind = kinds[number % len(kinds)]
        damaged = bytearray(content)
        kind(damaged, generator)
        yield f"{kind.__name__} {number}", bytes(damaged)


def _place(content: bytearray, generator: np.random.Generator) -> int:
    size = max(1, len(content))
    edge = min(EDGE_BYTES, size)
    draw = generator.integers(4)
    if draw == 0:
        return int(generator.integers(edge))
    if draw == 1:
        return size - 1 - int(generator.integers(edge))
    return int(generator.integers(size))


def _flip(content: bytearray, generator: np.random.Generator) -> None:
    for _ in range(int(generator.integers(1, 6))):
        content[_place(content, generator)] ^= 1 << int(generator.integers(8))


def _truncate(content: bytearray, generator: np.random.Generator) -> None:
    del content[_place(content, generator) :]


def _delete(content: bytearray, generator: np.random.Generator) -> None:
    at = _place(content, generator)
    del content[at : at + int(generator.integers(1, 64))]


def _repeat(content: bytearray, generator: np.random.Generator) -> None:
    at = _place(content, generator)
    content[at:at] = content[at : at + int(generator.integers(1, 64))] * int(generator.integers(1, 40))


def _insert(content: bytearray, generator: np.random.Generator) -> None:
    at = _place(content, generator)
    content[at:at] = generator.bytes(int(generator.integers(1, 16)))


def _zero(content: bytearray, generator: np.random.Generator) -> None:
    at = _place(content, generator)
    length = min(int(generator.integers(1, 32)), len(content) - at)
    content[at : at + length] = bytes([int(generator.choice([0, 255]))]) * length


def _enlarge(content: bytearray, generator: np.random.Generator) -> None:
    """A number in the file becomes a huge one: a length, a count, an offset."""
    at = _place(content, generator)
    value = struct.pack("<Q", int(generator.choice(np.array(HUGE, np.uint64))))
    width = int(generator.choice([4, 8]))
    content[at : at + width] = value[:width]


# --- Files made to run code


def payloads() -> dict[str, Any]:
    """Objects that run something when they are unpickled carelessly."""
    code = f"__import__('os').system({COMMAND!r})"
    inner = pickle.dumps(Calls(os.system, COMMAND))
    return {
        "system": Calls(os.system, COMMAND),
        "popen": Calls(os.popen, COMMAND),
        "subprocess": Calls(subprocess.Popen, ["touch", "MARKER"]),
        "eval": Calls(eval, code),
        "exec": Calls(exec, code),
        "getattr": Calls(Calls(getattr, Calls(importlib.import_module, "os"), "system"), COMMAND),
        "attrgetter": Calls(
            Calls(operator.attrgetter("system"), Calls(importlib.import_module, "os")), COMMAND
        ),
        "methodcaller": Calls(operator.methodcaller("system", COMMAND), Calls(importlib.import_module, "os")),
        "import": Calls(Calls(getattr, Calls(builtins.__import__, "os"), "system"), COMMAND),
        "partial": Calls(functools.partial(os.system, COMMAND)),
        "nested": Calls(list, Calls(map, os.system, [COMMAND])),
        "pickle in pickle": Calls(pickle.loads, inner),
        "torch bytes": Calls(torch.storage._load_from_bytes, inner),
        "torch.load": Calls(torch.load, "MARKER"),
        "open": Calls(open, "MARKER", "w"),
        "unlink": Calls(os.unlink, "MARKER"),
        "namespace": Calls(types.SimpleNamespace),
        "bytearray": Calls(bytearray, 1 << 33),
        "range": Calls(list, Calls(range, 1 << 40)),
        "numpy zeros": Calls(np.zeros, 1 << 40),
        "numpy load": Calls(np.load, "MARKER"),
    }


def placements(payload: Any) -> Iterator[Any]:
    """The places where a pickle of named arrays could hide something."""
    template = np.zeros((4, 3))
    yield payload
    yield {"v_template": payload, "static_lmk_faces_idx": payload, "face": payload}
    yield {"v_template": template, "J": [1, (payload,)]}
    yield {
        "v_template": np.array([payload, None], dtype=object),
        "lmk_face_idx": np.array(payload, dtype=object),
    }


def hostile_cases() -> Iterator[tuple[str, str, bytes]]:
    """(reader, file name, content) of every file of this kind."""
    yield from _hostile_pickles()
    yield from _hostile_archives()
    yield from _hostile_checkpoints()
    yield from _bombs()
    yield from _safetensors()


def _hostile_pickles() -> Iterator[tuple[str, str, bytes]]:
    for number, payload in enumerate(payloads().values()):
        for place, content in enumerate(placements(payload)):
            protocol = (number + place) % (pickle.HIGHEST_PROTOCOL + 1)
            raw = pickle.dumps(content, protocol)
            yield ("head", "masks", "static", "head")[place], "a.pkl", raw
            yield "embedding", "a.npy", _npy_objects(pickle.dumps(content, max(2, protocol)))
    for opcodes in _handmade():
        for reader in ("head", "masks"):
            yield reader, "a.pkl", opcodes
        yield "embedding", "a.npy", _npy_objects(opcodes)
        yield "checkpoint", "a.tar", opcodes
        yield "checkpoint", "a.tar", _torch_zip(opcodes)


def _handmade() -> Iterator[bytes]:
    """Instructions that no pickler writes."""
    text = COMMAND.encode()
    yield b"cos\nsystem\n(S'" + text + b"'\ntR."
    yield b"(S'" + text + b"'\nios\nsystem\n."
    yield b"(cos\nsystem\nS'" + text + b"'\no."
    yield b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93\x8c" + bytes([len(text)]) + text + b"\x85R."
    yield b"\x80\x04\x8c\x05torch\x8c\x0f_utils.os.system\x93\x8c" + bytes([len(text)]) + text + b"\x85R."
    yield b"cnumpy.core.multiarray\nscalar.__class__.__base__\n."
    yield b"\x80\x02\x82\x01."
    yield b"\x80\x02\x84\xff\xff\xff\x7f."
    yield b"P" + text + b"\n."
    yield b"\x80\x02cbuiltins\nobject\n)\x81}(X\x0c\x00\x00\x00__setstate__cos\nsystem\nubX\x01\x00\x00\x00ab."
    yield b"cchumpy.ch\nCh\n)\x81cos\nsystem\nb."
    yield b"\x80\x05\x97\x98."
    # A memo that doubles, a tuple of tuples, a list in itself, steps without an end, nesting, long numbers.
    yield b"\x80\x02]q\x00" + b"(h\x00h\x00h\x00h\x00eh\x00a0" * 200 + b"."
    yield b"\x80\x02)" + b"q\x01h\x01h\x01\x87" * 60 + b"."
    yield b"\x80\x02}" + b")" + b"q\x01h\x01h\x01\x86" * 60 + b"Ns."
    yield b"\x80\x02]q\x00h\x00a."
    yield b"(" * 100_000 + b"."
    yield b"]" * 300_000 + b"."
    yield b"\x80\x02)" + b"\x85" * 100_000 + b"."
    yield b"\x80\x02" + b"N0" * 200_000 + b"N."
    yield b"\x80\x02\x8b" + struct.pack("<i", 1 << 20) + bytes(1 << 20) + b"."
    yield b"I" + b"7" * 300_000 + b"\n."
    yield b"L" + b"7" * 300_000 + b"L\n."
    for size in HUGE:
        yield b"\x80\x04\x95" + struct.pack("<Q", size) + b"N."
        yield b"\x80\x05\x96" + struct.pack("<Q", size) + b"N."
        yield b"\x80\x02Nr" + struct.pack("<I", size & 0xFFFFFFFF) + b"."
        yield b"\x80\x04\x8e" + struct.pack("<Q", size) + b"."


def _npy_header(fields: str, version: int = 1) -> bytes:
    header = f"{{{fields}}}".encode()
    header += b" " * (63 - len(header) % 64) + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header


def _npy_objects(content: bytes) -> bytes:
    return _npy_header("'descr': '|O', 'fortran_order': False, 'shape': (), ") + content


FALSE_HEADERS = (
    *(f"'descr': '<f8', 'fortran_order': False, 'shape': ({size},), " for size in HUGE),
    "'descr': '<f8', 'fortran_order': False, 'shape': (-1,), ",
    "'descr': '<f8', 'fortran_order': False, 'shape': (100000, 100000), ",
    "'descr': '<f8', 'fortran_order': False, 'shape': (0, 99999999999999999999), ",
    "'descr': '|V999999999', 'fortran_order': False, 'shape': (9,), ",
    "'descr': '<U999999999', 'fortran_order': False, 'shape': (), ",
    "'descr': [('a', '<f8', (99999, 99999))], 'fortran_order': False, 'shape': (), ",
    "'descr': __import__('os').system('touch MARKER'), 'fortran_order': False, 'shape': (), ",
    "'descr': '<f8', 'fortran_order': False, 'shape': " + "(" * 300,
    "'descr': '<f8', 'fortran_order': 1/0, 'shape': (), ",
    "'descr': '<f8', 'fortran_order': False, 'shape': ('a',), ",
    "'descr': '<f8', 'fortran_order': False, 'shape': 3, ",
    "'descr': 'nonsense', 'fortran_order': False, 'shape': (3,), ",
    "'descr': '<f8', 'shape': (3,), ",
)
NPZ_READERS = ("head", "embedding", "mediapipe", "masks", "result", "landmarks", "authors")
MEMBERS = ("v_template", "static_lmk_faces_idx", "lmk_face_idx", "face", "meta", "points_px", "cam")


def _hostile_archives() -> Iterator[tuple[str, str, bytes]]:
    for fields in FALSE_HEADERS:
        for version in (1, 2):
            raw = _npy_header(fields, version) + bytes(64)
            yield "eyelid", "a.npy", raw
            yield "embedding", "a.npy", raw
            for reader, member in zip(NPZ_READERS, MEMBERS, strict=True):
                yield reader, "a.npz", _zip([(f"{member}.npy", raw)], compressed=version == 2)
    plain = _npy_header("'descr': '<f8', 'fortran_order': False, 'shape': (8,), ") + bytes(64)
    system = _npy_objects(pickle.dumps(Calls(os.system, COMMAND)))
    for reader, member in zip(NPZ_READERS, MEMBERS, strict=True):
        for odd in ("../{}.npy", "/tmp/{}.npy", "a\\..\\{}.npy", "C:\\{}.npy", "{}.npy\0.npy", "{}", ""):
            yield reader, "a.npz", _zip([(odd.format(member), plain)])
        yield reader, "a.npz", _zip([(f"{member}.npy", plain), (f"{member}.npy", system)])
        yield reader, "a.npz", _zip([(f"{member}.npy", system)])
        yield reader, "a.npz", _zip([(f"{member}.npy", b"")])
        yield reader, "a.npz", _zip([])
        yield reader, "a.npz", _zip([(f"{number}.npy", plain) for number in range(3000)])
        whole = _zip([(f"{member}.npy", plain)])
        for offset, width in ((20, 4), (24, 4), (42, 4), (28, 2), (30, 2), (10, 2), (8, 2)):
            for value in (2**31, 2**32 - 1, 9):
                yield reader, "a.npz", _patched(whole, b"PK\x01\x02", offset, width, value)
        for offset, width in ((10, 2), (12, 4), (16, 4)):
            yield reader, "a.npz", _patched(whole, b"PK\x05\x06", offset, width, 2**32 - 1)


def _hostile_checkpoints() -> Iterator[tuple[str, str, bytes]]:
    weights = {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}
    for number, payload in enumerate(payloads().values()):
        reader = ("checkpoint", "deca", "smirk")[number % 3]
        for content in ({"E_flame": weights, "opt": payload}, {"E_flame": {"weight": payload}}):
            for zipped in (True, False):
                yield reader, "a.tar", _saved(content, zipped)
    for content in (
        {"a": {**weights, "bias": torch.full((2,), float("nan"))}},
        {"a": {**weights, "bias": torch.zeros(3)}},
        {"a": {**weights, "bias": torch.zeros(2, dtype=torch.int64)}},
        {"a": {"bias": torch.zeros(1).expand(1 << 34)}},
        {"a": {"weight": torch.zeros(2, 3).to_sparse()}},
        {"a": {"weight": torch.zeros(0)}}, {"a": {1: torch.zeros(2)}}, {"a": []}, [weights], torch.zeros(2), None,
    ):  # fmt: skip
        for zipped in (True, False):
            yield "checkpoint", "a.tar", _saved(content, zipped)
    intact = _saved({"a": weights}, True)
    for member in (
        "../archive/data.pkl",
        "/archive/data.pkl",
        "archive/data.pkl",
        "archive/data/../data.pkl",
    ):
        yield "checkpoint", "a.tar", _with_member(intact, member, pickle.dumps(Calls(os.system, COMMAND), 2))
    for offset, width in ((20, 4), (24, 4), (42, 4), (10, 2)):
        for value in (2**31, 2**32 - 1, 8):
            yield "checkpoint", "a.tar", _patched(intact, b"PK\x01\x02", offset, width, value)


def _bombs() -> Iterator[tuple[str, str, bytes]]:
    """A megabyte that decompresses to more than one gigabyte, or claims a smaller size."""
    piece = 16 << 20
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    # Pieces between full flushes stand alone and can be repeated.
    first = squeeze.compress(bytes(piece)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    again = squeeze.compress(bytes(piece)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    packed = first + again * 99 + squeeze.flush(zlib.Z_FINISH)
    for claimed in (100 * piece, 150 << 20, 200):
        for reader, member in zip(NPZ_READERS, MEMBERS, strict=True):
            yield reader, "a.npz", _deflated_zip(f"{member}.npy", packed, claimed)
        yield "checkpoint", "a.tar", _deflated_zip("archive/data.pkl", packed, claimed)


def _deflated_zip(name: str, packed: bytes, claimed: int) -> bytes:
    """An archive with one packed member that says how long it is."""
    about = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 0, 0, len(packed), claimed, len(name), 0)
    local = b"PK\x03\x04" + about + name.encode() + packed
    directory = b"PK\x01\x02" + struct.pack("<H", 20) + about
    directory += struct.pack("<HHHII", 0, 0, 0, 0, 0) + name.encode()
    end = struct.pack("<HHHHIIH", 0, 0, 1, 1, len(directory), len(local), 0)
    return local + directory + b"PK\x05\x06" + end


def _safetensors() -> Iterator[tuple[str, str, bytes]]:
    metadata = {
        "head": {
            "format": "neuface-head-1",
            "name": "a",
            "parents": "[-1,0,1,1,1]",
            "expression_names": "[]",
        },
        "copy": {"format": "neuface-flame-encoder-1", "model": "smirk"},
    }
    tensors = {
        "huge": {"dtype": "F64", "shape": [2**40], "data_offsets": [0, 2**43]},
        "beyond": {"dtype": "F64", "shape": [8], "data_offsets": [2**40, 2**40 + 64]},
        "negative": {"dtype": "F64", "shape": [-8], "data_offsets": [0, 64]},
        "overflow": {"dtype": "F64", "shape": [2**33, 2**33], "data_offsets": [0, 64]},
        "odd type": {"dtype": "F7", "shape": [8], "data_offsets": [0, 64]},
        "half": {"dtype": "BF16", "shape": [32], "data_offsets": [0, 64]},
        "small float": {"dtype": "F8_E4M3", "shape": [64], "data_offsets": [0, 64]},
        "plain": {"dtype": "F64", "shape": [8], "data_offsets": [0, 64]},
        "list": [],
    }
    for reader, about in metadata.items():
        for tensor in tensors.values():
            for name in (
                "template",
                "v_template",
                "embedding.ibug68.triangles",
                "region.face",
                "embedding.x",
                "",
            ):
                header = json.dumps({"__metadata__": about, name: tensor}).encode()
                yield reader, "a.safetensors", struct.pack("<Q", len(header)) + header + bytes(64)
        for size in HUGE:
            yield reader, "a.safetensors", struct.pack("<Q", size) + b'{"a": 1}' + bytes(64)
        for parents in ("[" * 5000, "[0]", "[1e999]", "{}", "[null]", "nonsense", '["a"]', "[-1,0,1,1,9]"):
            header = json.dumps({"__metadata__": {**about, "parents": parents}}).encode()
            yield reader, "a.safetensors", struct.pack("<Q", len(header)) + header


def _zip(members: list[tuple[str, bytes]], *, compressed: bool = False) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name) if not compressed else name, content)
    return stream.getvalue()


def _patched(archive: bytes, signature: bytes, offset: int, width: int, value: int) -> bytes:
    """An archive with one number of its directory or of its end changed."""
    changed = bytearray(archive)
    at = changed.rfind(signature) + offset
    changed[at : at + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")
    return bytes(changed)


def _saved(content: Any, zipped: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def _torch_zip(content: bytes) -> bytes:
    return _zip([("archive/data.pkl", content), ("archive/version", b"3\n"), ("archive/data/0", bytes(24))])


def _with_member(archive: bytes, name: str, content: bytes) -> bytes:
    stream = io.BytesIO(archive)
    with zipfile.ZipFile(stream, "a") as opened:
        opened.writestr(zipfile.ZipInfo(name), content)
    return stream.getvalue()
