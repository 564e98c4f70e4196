"""Copies of encoders: what is read is what was written, and nothing that was altered gets through."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import neuface
from neuface.encoders.smirk import SmirkEncoder
from neuface.io.assets import converted
from neuface.io.assets.converted import read_encoder_copy, write_encoder_copy

COUNTER, WEIGHT = "pose_encoder.encoder.bn1.num_batches_tracked", "expression_encoder.encoder.bn1.weight"
# The lower half of this counter, read as a float of 32 bits, is NaN.
NOT_A_NUMBER_IN_HALF = 0x7FC00000


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("copy") / "smirk.safetensors"
    write_encoder_copy(path, SmirkEncoder())
    return path


def altered(copy: Path, path: Path, **changes: torch.Tensor) -> Path:
    """A copy written anew with other tensors under some names, in which `__` stands for a dot."""
    with safe_open(copy, framework="pt") as archive:
        metadata = archive.metadata()
    new = {name.replace("__", "."): tensor for name, tensor in changes.items()}
    save_file(load_file(copy) | new, path, metadata=metadata)
    return path


def test_the_reader_agrees_with_safetensors(copy: Path) -> None:
    stored, found = load_file(copy), read_encoder_copy(copy, "smirk").state_dict()
    assert stored.keys() == found.keys()
    for name, tensor in stored.items():
        assert (tensor.dtype, tensor.shape) == (found[name].dtype, found[name].shape), name
        assert torch.equal(tensor, found[name]), name


def test_training_does_not_change_the_file(copy: Path) -> None:
    before = copy.read_bytes()
    encoder = read_encoder_copy(copy, "smirk")
    assert not encoder.training
    assert all(weight.requires_grad for weight in encoder.parameters())
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.fill_(3.0)
    assert copy.read_bytes() == before
    assert not (next(read_encoder_copy(copy, "smirk").parameters()) == 3.0).all()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_a_single_number_that_is_not_finite_is_found(
    copy: Path, tmp_path: Path, number: float, share: float
) -> None:
    content = bytearray(copy.read_bytes())
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    floats = [name for name, entry in header.items() if entry.get("dtype") == "F32"]
    name = sorted(floats, key=lambda name: header[name]["data_offsets"])[int(share * (len(floats) - 1))]
    first, last = (8 + length + offset for offset in header[name]["data_offsets"])
    at = first + int(share * ((last - first) // 4 - 1)) * 4
    content[at : at + 4] = struct.pack("<f", number)
    (tmp_path / "smirk.safetensors").write_bytes(content)
    with pytest.raises(neuface.InputError, match=f"not finite: {name}. The file is damaged"):
        read_encoder_copy(tmp_path / "smirk.safetensors", "smirk")


def test_infinities_that_cancel_are_found(copy: Path, tmp_path: Path) -> None:
    weight = load_file(copy)[WEIGHT]
    weight[0], weight[1] = float("inf"), float("-inf")
    path = altered(copy, tmp_path / "smirk.safetensors", **{WEIGHT.replace(".", "__"): weight})
    with pytest.raises(neuface.InputError, match=f"not finite: {WEIGHT}"):
        read_encoder_copy(path, "smirk")


def test_huge_numbers_and_counters_are_accepted(copy: Path, tmp_path: Path) -> None:
    huge, counter = torch.full_like(load_file(copy)[WEIGHT], 3e38), torch.tensor(NOT_A_NUMBER_IN_HALF)
    for name, tensor in ((WEIGHT, huge), (COUNTER, counter)):
        path = altered(copy, tmp_path / "smirk.safetensors", **{name.replace(".", "__"): tensor})
        assert torch.equal(read_encoder_copy(path, "smirk").state_dict()[name], tensor)


def test_other_types_and_shapes_are_refused(copy: Path, tmp_path: Path) -> None:
    weight = load_file(copy)[WEIGHT]
    for tensor, words in (
        (weight.half(), "is not a readable safetensors file of weights"),
        (weight.to(torch.uint8), "is not a readable safetensors file of weights"),
        (weight.long(), f"mistyped: {WEIGHT} torch.int64 instead of torch.float32"),
        (weight[1:].clone(), f"misshapen: {WEIGHT} "),
    ):
        path = altered(copy, tmp_path / "smirk.safetensors", **{WEIGHT.replace(".", "__"): tensor})
        with pytest.raises(neuface.InputError, match=words):
            read_encoder_copy(path, "smirk")


def test_damaged_files_are_refused(copy: Path, tmp_path: Path) -> None:
    content, path = copy.read_bytes(), tmp_path / "smirk.safetensors"
    for damaged in (
        b"",
        content[:4],
        content[:1000],
        content[:-4],
        content + b"1234",
        b"\xff" * 8 + content[8:],
    ):
        path.write_bytes(damaged)
        with pytest.raises(neuface.InputError, match="is not a readable safetensors file"):
            read_encoder_copy(path, "smirk")
    with pytest.raises(neuface.InputError, match="is not a readable safetensors file"):
        read_encoder_copy(tmp_path / "missing.safetensors", "smirk")


def test_files_and_headers_above_the_limits_are_refused(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, least in (("LARGEST_COPY", copy.stat().st_size), ("LARGEST_HEADER", 1000)):
        with monkeypatch.context() as smaller:
            smaller.setattr(converted, limit, least - 1)
            with pytest.raises(neuface.InputError, match="is larger than any converted weights"):
                read_encoder_copy(copy, "smirk")
