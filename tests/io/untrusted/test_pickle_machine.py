"""Pickles read as data: what plain files give, and what hostile ones are refused for."""

from __future__ import annotations

import codecs
import collections
import os
import pickle
import struct
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from neuface.errors import InputError
from neuface.io.untrusted.array_files import checked_array, read_bytes, read_named_values, read_single_array
from neuface.io.untrusted.pickle_machine import parse_pickle
from neuface.io.untrusted.pickle_values import ALLOWED_GLOBALS, DEEPEST_EXPRESSION, Damaged, Node, array_of

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def text(value: str) -> bytes:
    """The instruction that pushes a text."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def array_pickle(shape: bytes, dtype: bytes, content: bytes) -> bytes:
    """A pickled array with any shape, type and content, each given as instructions."""
    kind = b"cnumpy\ndtype\n" + dtype + b"K\x00K\x01\x87R"
    return (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        + shape
        + kind
        + b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + content
        + b"tb."
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_values_are_those_that_python_reads(protocol: int) -> None:
    value = {
        "none": None, "yes": True, "no": False, "small": 7, "negative": -70_000, "long": 2**70, "real": -1.25e-3,
        "text": "Ä\n'x", "list": [1, [2, (3,)], ()], "tuple": (1, 2, 3, 4), "nested": {"a": {}, 5: "five"},
    }  # fmt: skip
    assert parse_pickle(pickle.dumps(value, protocol), "a") == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["f8", "f4", ">f8", "i8", "u4", "i4", ">i2"])
def test_arrays_are_read_exactly(protocol: int, dtype: str) -> None:
    rows = np.arange(24).reshape(2, 3, 4).astype(dtype)
    content = {"c": rows, "fortran": np.asfortranarray(rows), "empty": rows[:0], "turned": rows.T}
    found = parse_pickle(pickle.dumps(content, protocol), "a")
    for name, expected in content.items():
        array = array_of(found[name])
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)


def test_bytes_and_numpy_scalars_are_read() -> None:
    assert parse_pickle(pickle.dumps(b"\x00\xff", 3), "a") == b"\x00\xff"
    # Protocol 2 has no bytes: they travel as text and a call of the latin1 codec.
    assert parse_pickle(pickle.dumps(b"\x80\xff", 2), "a") == b"\x80\xff"
    assert parse_pickle(pickle.dumps([np.float32(0.5), np.int64(-3)]), "a") == [0.5, -3]


def test_strings_of_python_2_are_bytes_and_text_as_keys() -> None:
    assert parse_pickle(b"\x80\x02}(U\x01aU\x02\xe4bS'c\\x00'\nI01\nu.", "a") == {"a": b"\xe4b", "c\0": True}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("layout", ["csc_matrix", "csr_matrix", "csc_array"])
def test_sparse_matrices_are_expanded_without_scipy(protocol: int, layout: str) -> None:
    dense = np.where(np.random.default_rng(0).random((5, 40)) < 0.2, 1.5, 0.0)
    found = parse_pickle(pickle.dumps(getattr(scipy.sparse, layout)(dense), protocol), "a")
    np.testing.assert_array_equal(array_of(found), dense)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.int32])
def test_tensors_inside_pickles_are_read(dtype: torch.dtype) -> None:
    tensor = torch.arange(24).reshape(2, 3, 4).to(dtype)
    found = parse_pickle(pickle.dumps({"whole": tensor, "part": tensor[1], "flat": tensor.view(-1)}), "a")
    for name, expected in (("whole", tensor), ("part", tensor[1]), ("flat", tensor.view(-1))):
        np.testing.assert_array_equal(array_of(found[name]), expected.numpy())


def test_tensors_with_gaps_are_refused() -> None:
    with pytest.raises(InputError, match="gaps or repeats"):
        parse_pickle(pickle.dumps(torch.zeros(3, 4).T), "a")
    with pytest.raises(InputError, match="gaps or repeats"):
        parse_pickle(pickle.dumps(torch.zeros(1).expand(1000)), "a")


def test_chumpy_expressions_are_evaluated() -> None:
    base = np.arange(12.0).reshape(3, 4)
    wrapped = Node(kind="chumpy", name="Ch", state={"x": base, "_dirty_vars": []})
    chosen = {"a": wrapped, "idxs": np.array([[11, 0], [5, 5]]), "preferred_shape": (4, 1)}
    np.testing.assert_array_equal(
        array_of(Node(kind="select", name="Select", state=chosen)), [[11.0], [0.0], [5.0], [5.0]]
    )
    np.testing.assert_array_equal(array_of(Node(kind="transpose", name="t", state={"a": wrapped})), base.T)
    turned = {"a": wrapped, "axes": (0, 1)}
    np.testing.assert_array_equal(array_of(Node(kind="transpose", name="t", state=turned)), base)
    for wrong in (
        {"idxs": np.array([12, 0, 0, 0])},
        {"idxs": np.array([-1, 0, 0, 0])},
        {"preferred_shape": (5,)},
    ):
        with pytest.raises(Damaged, match="does not fit its source"):
            array_of(Node(kind="select", name="Select", state=chosen | wrong))
    with pytest.raises(Damaged, match="without 'x'"):
        array_of(Node(kind="chumpy", name="Ch"))


def test_expressions_that_contain_themselves_are_refused() -> None:
    circle = Node(kind="chumpy", name="Ch")
    circle.state["x"] = circle
    with pytest.raises(Damaged, match=f"more than {DEEPEST_EXPRESSION} deep"):
        array_of(circle)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("indices", np.array([0, 9])), ("indices", np.array([0, -1])), ("indptr", np.array([0, 1])),
        ("indptr", np.array([0, 2**63 - 1, -(2**63)])), ("indptr", np.array([0, 3, 2])), ("_shape", (10**9, 10**9)),
        ("data", np.zeros(3)), ("indptr", np.zeros(0, int)),
    ],
)  # fmt: skip
def test_sparse_matrices_that_do_not_fit_are_refused(part: str, value: Any) -> None:
    state = {"_shape": (9, 2), "data": np.ones(2), "indices": np.array([0, 8]), "indptr": np.array([0, 1, 2])}
    assert array_of(Node(kind="csc", name="csc_matrix", state=state)).sum() == 2
    with pytest.raises(Damaged, match="sparse matrix"):
        array_of(Node(kind="csc", name="csc_matrix", state=state | {part: value}))


# --- What is refused


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ("touch MARKER",)), (eval, ("1",)), (exec, ("1",)), (getattr, ("a", "b")),
        (open, ("MARKER", "w")),
        (np.load, ("a",)), (torch.load, ("a",)), (pickle.loads, (b"",)), (codecs.lookup, ("x",)), (bytearray, (10,)),
        (collections.Counter, ("a",)), (type, ("a", (), {})), (Path, ("a",)),
    ],
)  # fmt: skip
def test_any_other_call_is_refused_by_name(
    protocol: int, function: Any, arguments: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hostile = pickle.dumps({"a": [Calls(function, *arguments)]}, protocol)
    with pytest.raises(InputError, match=rf"a\.pkl: refers to '.*{function.__name__}'.* nothing was run"):
        parse_pickle(hostile, "a.pkl")
    assert list(tmp_path.iterdir()) == []


def test_allowed_names_call_functions_of_this_package_only() -> None:
    names = {name.rpartition(".")[2] for name in ALLOWED_GLOBALS}
    assert not names & {"eval", "exec", "system", "getattr", "load", "loads", "open", "__import__"}
    # A class that is only a mark cannot be called, and a function cannot be instantiated.
    with pytest.raises(InputError, match=r"calls chumpy\.ch\.Ch"):
        parse_pickle(b"cchumpy.ch\nCh\n)R.", "a")
    with pytest.raises(InputError, match="no class of a model file"):
        parse_pickle(b"\x80\x02cnumpy\ndtype\n)\x81.", "a")
    with pytest.raises(InputError, match="codec other than latin1"):
        parse_pickle(pickle.dumps(Calls(codecs.encode, "a", "zlib")), "a")


@pytest.mark.parametrize(
    ("hostile", "reason"),
    [
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"abc.", "ends too early"),
        (b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"abc.", "ends too early"),
        (b"\x80\x02r" + struct.pack("<I", 2**31) + b".", "stack is empty"),
        (b"\x80\x02Nr" + struct.pack("<I", 2**31) + b"j" + struct.pack("<I", 5) + b".", "recalls value 5"),
        (b"I" + b"9" * 100_000 + b"\n.", "more than 40 digits"),
        (b"\x80\x02\x8b" + struct.pack("<i", 5000) + bytes(5000) + b".", "integer of 5000 bytes"),
        # A tuple of itself twice, fifty times over: hashing it would take 2^50 steps.
        (b"\x80\x02}" + b")" + b"q\x01h\x01\x86" * 50 + b"Ns.", "neither a short text nor a number"),
        (b"\x80\x02(i__builtin__\neval\n.", "instruction of plain data"),
        (b"\x80\x02\x82\x01.", "instruction of plain data"),
        (b"P1\n.", "instruction of plain data"),
        (b"N\x51.", "data outside the file"),
        (b"\x80\x63.", "protocol 99"),
        (b"]}b.", "sets the state"),
        (b"N]a.", "no list"),
        (b"NNNs.", "no dictionary"),
        (b"t.", "stack is empty"),
        (b"", "ends too early"),
        (b"Iabc\n.", "readable pickle"),
        (b"X\x02\x00\x00\x00\xff\xfe.", "readable pickle"),
        (array_pickle(b"J\x00\x00\x00\x7f\x85", b"U\x02f8", b"U\x01a"), "2130706432"),
        (array_pickle(b"J\xff\xff\xff\xff\x85", b"U\x02f8", b"U\x01a"), "impossible shape"),
        (array_pickle(b"(" + b"K\x01" * 40 + b"t", b"U\x02f8", b"U\x01a"), "impossible shape"),
        (array_pickle(b")", b"U\x02f9", b"U\x01a"), "unknown type"),
        (array_pickle(b")", b"U\x05V9999", b"U\x01a"), "unknown type"),
        (array_pickle(b")", b"U\x02O8", b"U\x08abcdefgh"), "array of objects"),
        (array_pickle(b"K\x03\x85", b"U\x02O8", b"]Na"), "array of objects"),
    ],
)
def test_bombs_and_nonsense_are_refused_quickly(hostile: bytes, reason: str) -> None:
    tracemalloc.start()
    start = time.perf_counter()
    try:
        with pytest.raises(InputError, match=rf"a\.pkl: .*{reason}"):
            parse_pickle(hostile, "a.pkl")
        assert time.perf_counter() - start < 5
        assert tracemalloc.get_traced_memory()[1] < 64e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("endless", [b"]", b"N", b"(", b"}2"])
def test_the_number_of_steps_is_bounded(endless: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuface.io.untrusted.pickle_machine.MOST_STEPS", 1000)
    assert parse_pickle(endless * 100 + b"(t.", "a") == ()
    with pytest.raises(InputError, match="more than 1000 steps"):
        parse_pickle(endless * 1001 + b"(t.", "a")


def test_deep_nesting_is_read() -> None:
    found = parse_pickle(b"\x80\x02)" + b"\x85" * 3000 + b".", "a")
    for _ in range(3000):
        (found,) = found
    assert found == ()


def test_text_that_is_encoded_again_and_again_is_refused() -> None:
    once = text("a" * 10_000) + b"q\x00" + b"c_codecs\nencode\nq\x01" + text("latin1") + b"q\x02"
    again = b"h\x01h\x00h\x02\x86R"
    assert parse_pickle(b"\x80\x02(" + once + again + b"t.", "a")[-1] == b"a" * 10_000
    with pytest.raises(InputError, match="many times its own size"):
        parse_pickle(b"\x80\x02(" + once + again * 1000 + b"t.", "a")


@pytest.mark.parametrize("seed", range(3))
def test_damaged_pickles_give_input_errors_or_data(seed: int) -> None:
    generator = np.random.default_rng(seed)
    content = {
        "a": np.arange(6.0),
        "b": scipy.sparse.csc_matrix(np.eye(3)),
        "c": torch.zeros(2),
        "d": [1, "x", 2.5],
    }
    whole = pickle.dumps(content, (0, 2, 4)[seed])
    for _ in range(150):
        damaged = bytearray(whole)
        for place in generator.integers(0, len(whole), generator.integers(1, 6)):
            damaged[place] = generator.integers(0, 256)
        cut = generator.integers(len(whole) // 2, len(whole) + 1)
        # Anything but InputError fails the test.
        with suppress(InputError):
            found = parse_pickle(bytes(damaged[:cut]), "a.pkl")
            for name, value in found.items() if isinstance(found, dict) else ():
                checked_array("a.pkl", str(name), value, (None,))


# --- npy, npz, safetensors


def test_npy_and_npz_are_read_with_numbers_and_with_objects(tmp_path: Path) -> None:
    rows = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "a.npy", np.asfortranarray(rows))
    np.testing.assert_array_equal(read_single_array(tmp_path / "a.npy"), rows)
    np.save(tmp_path / "b.npy", np.array({"rows": rows}), allow_pickle=True)
    np.savez_compressed(
        tmp_path / "c.npz", rows=rows, text="lbs", other=np.array([None, Calls(os.system, "touch M")])
    )
    for name in ("b.npy", "c.npz"):
        values = read_named_values(tmp_path / name, ("rows", "absent"))
        assert list(values) == ["rows"]
        np.testing.assert_array_equal(checked_array(name, "rows", values["rows"], (2, 3)), rows)
    with pytest.raises(InputError, match=r"c\.npz: 'other'.*system"):
        read_named_values(tmp_path / "c.npz", ("other",))
    with pytest.raises(InputError, match=r"c\.npz: 'text'.*plain numbers"):
        read_named_values(tmp_path / "c.npz", ("text",))


def npy_header(fields: str) -> bytes:
    header = f"{{{fields}}}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


@pytest.mark.parametrize(
    "fields",
    [
        "'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)",
        "'descr': '<f8', 'fortran_order': False, 'shape': (-1,)",
        "'descr': '<f8', 'fortran_order': False, 'shape': (0, 99999999999999999999999)",
        "'descr': '<V9', 'fortran_order': False, 'shape': (1,)",
        "'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,)",
        "'descr': '<f8', 'shape': (1,)",
        "'descr': '<f8', 'fortran_order': False, 'shape': " + "(" * 60,
    ],
)
def test_false_npy_headers_are_refused_before_memory_is_allocated(tmp_path: Path, fields: str) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(npy_header(fields) + bytes(8))
    tracemalloc.start()
    with pytest.raises(InputError, match=r"a\.npy: "):
        checked_array(path, "a", read_single_array(path), (None,))
    assert tracemalloc.get_traced_memory()[1] < 16e6
    tracemalloc.stop()


def test_zip_bombs_are_refused_before_they_are_decompressed(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", rows=np.zeros(10))
    whole = bytearray((tmp_path / "a.npz").read_bytes())
    directory = whole.rfind(b"PK\x01\x02")
    whole[directory + 24 : directory + 28] = struct.pack("<I", 2**31)
    (tmp_path / "b.npz").write_bytes(whole)
    with pytest.raises(InputError, match=r"b\.npz: 'rows' decompresses to more"):
        read_named_values(tmp_path / "b.npz", ("rows",))
    (tmp_path / "c.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"c\.npz: is a damaged zip archive"):
        read_named_values(tmp_path / "c.npz", ("rows",))


def test_safetensors_files_are_read(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    rows = np.arange(6.0).reshape(2, 3)
    save_file({"rows": rows}, tmp_path / "a.safetensors")
    values = read_named_values(tmp_path / "a.safetensors", ("rows", "absent"))
    np.testing.assert_array_equal(checked_array("a", "rows", values["rows"], (2, 3)), rows)
    whole = bytearray((tmp_path / "a.safetensors").read_bytes())
    (tmp_path / "b.safetensors").write_bytes(whole[:-8])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        read_named_values(tmp_path / "b.safetensors", ("rows",))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>login", "a web page"),
        (b"\n<html>login", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    ],
)
def test_placeholders_are_named_in_the_error(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read_bytes(tmp_path / "a.pkl")


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.pkl", tmp_path / "a\0b"):
        with pytest.raises(InputError, match=r"no such file|cannot be read"):
            read_bytes(path)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.zeros((2, 4)), r"'a' has the shape \(2, 4\); expected \(any, 3\)"),
        (np.zeros((2, 3), int), "'a' has the type int64; expected floating"),
        (np.full((2, 3), np.nan), "'a' has values that are not finite"),
        (np.full((2, 3), -np.inf), "'a' has values that are not finite"),
        (np.full((2, 3), 1e30), "'a' has values that are not finite, or beyond"),
        ([1.0, 2.0], "'a' is a list; expected an array"),
    ],
)
def test_arrays_are_checked_by_name(value: Any, reason: str) -> None:
    with pytest.raises(InputError, match=rf"file\.pkl: {reason}"):
        checked_array("file.pkl", "a", value, (None, 3))
