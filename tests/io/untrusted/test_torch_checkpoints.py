"""Torch checkpoints: read as data, loaded strictly, refused with a reason."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from data_folders import PARITY

from neuface.errors import InputError
from neuface.io.flame.encoder_files import best_checkpoint, emoca_package, read_deca, read_emoca, read_smirk
from neuface.io.untrusted.strict_state_dict import load_strictly
from neuface.io.untrusted.torch_checkpoints import named_tensors, read_checkpoint, state_dict_at

LAYOUTS, BAD = PARITY / "checkpoints", PARITY / "bad_files"
MARKER = "PWNED_MARKER"


def zipped(
    tmp_path: Path, pickled: bytes, *, compression: int = zipfile.ZIP_STORED, name: str = "data.pkl"
) -> Path:
    path = tmp_path / "made.pt"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"archive/{name}", pickled)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return path


# --- The formats


@pytest.mark.parametrize("name", ["deca_model_layout.tar", "deca_model_layout_legacy.tar"])
def test_both_formats_give_the_same_weights(name: str) -> None:
    content = read_checkpoint(LAYOUTS / name)
    with np.load(LAYOUTS / "layout_truth.npz") as truth:
        expected = {key.removeprefix("tar:"): truth[key] for key in truth.files if key.startswith("tar:")}
    found = {
        f"{part}.{key}": tensor
        for part in ("E_flame", "E_detail", "D_detail")
        for key, tensor in state_dict_at(name, content, part).items()
    }
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[key].numpy(), expected[key]) for key in expected)
    with pytest.raises(InputError, match=r"missing: encoder\.bn1\.bias.*misshapen: .*layers\.2\.bias"):
        read_deca(LAYOUTS / name)


def test_lightning_checkpoints_are_read_without_lightning() -> None:
    package = LAYOUTS / "EMOCA_layout"
    best = best_checkpoint(package)
    assert best.name == "dataloader_idx_0=3.25521111.ckpt"
    with np.load(LAYOUTS / "layout_truth.npz") as truth:
        expected = {key: truth[key] for key in truth.files if key.startswith("deca.")}
    for file in (best, package / "detail" / "checkpoints" / "last.ckpt"):
        found = state_dict_at(file, read_checkpoint(file), "state_dict")
        assert all(np.array_equal(found[key].numpy(), expected[key]) for key in expected)
    with pytest.raises(InputError, match="expected 50, 53 or 56"):
        read_emoca(package)


def test_the_checkpoint_last_is_only_a_fallback(tmp_path: Path) -> None:
    shutil.copytree(LAYOUTS / "EMOCA_layout", tmp_path / "package")
    for folder in (tmp_path / "package" / "detail" / "checkpoints").glob("deca-*"):
        shutil.rmtree(folder)
    assert best_checkpoint(tmp_path / "package").name == "last.ckpt"
    with pytest.raises(InputError, match="holds no checkpoint"):
        best_checkpoint(tmp_path / "absent")


def test_the_published_package_comes_first(tmp_path: Path) -> None:
    configs = [tmp_path / name / "cfg.yaml" for name in ("DECA", "EMOCA", "EMOCA_v2_lr_mse_20", "own")]
    assert emoca_package(configs).name == "EMOCA_v2_lr_mse_20"
    assert emoca_package([configs[0], configs[3]]).name == "own"
    with pytest.raises(InputError, match="cannot tell which"):
        emoca_package([tmp_path / "one" / "cfg.yaml", tmp_path / "two" / "cfg.yaml"])


# --- Hostile and broken files


@pytest.mark.parametrize("file", sorted(BAD.glob("exec_*")), ids=lambda file: file.name)
def test_no_code_in_a_checkpoint_is_executed(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for read in (read_checkpoint, read_deca, read_smirk):
        with pytest.raises(InputError):
            read(file)
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize(
    "name", ["exec_checkpoint_zip.tar", "exec_checkpoint_legacy.tar", "exec_lightning.ckpt"]
)
def test_the_refusal_names_the_requested_globals(name: str) -> None:
    with pytest.raises(InputError, match=r"asks for posix\.system"):
        read_checkpoint(BAD / name)


class _Runs:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {MARKER}",)


class _Fills:
    def __reduce__(self) -> tuple[object, tuple[int]]:
        return bytearray, (1 << 36,)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
@pytest.mark.parametrize("hostile", [_Runs(), {"opt": [_Runs()]}, {"E_flame": _Fills()}])
def test_hostile_pickles_are_refused(
    hostile: object, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="asks for"):
        read_checkpoint(zipped(tmp_path, pickle.dumps(hostile, protocol)))
    assert not (tmp_path / MARKER).exists()


def test_parts_larger_than_the_file_are_refused(tmp_path: Path) -> None:
    bomb = zipped(tmp_path, b"\x80\x02}." + bytes(50_000_000), compression=zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 100_000
    with pytest.raises(InputError, match="larger than the file"):
        read_checkpoint(bomb)
    stored = zipped(tmp_path, b"\x80\x02}.")
    data = bytearray(stored.read_bytes())
    entry = data.find(b"PK\x01\x02")
    data[entry + 20 : entry + 28] = struct.pack("<II", 3_000_000_000, 3_000_000_000)
    stored.write_bytes(data)
    with pytest.raises(InputError, match="larger than the file"):
        read_checkpoint(stored)


@pytest.mark.parametrize("name", ["deca_model_layout.tar", "deca_model_layout_legacy.tar"])
def test_damaged_checkpoints_give_input_errors_or_data(name: str, tmp_path: Path) -> None:
    original = (LAYOUTS / name).read_bytes()
    choice = random.Random(0)
    path = tmp_path / "damaged.tar"
    for _ in range(150):
        data = bytearray(original)
        for _ in range(choice.randint(1, 5)):
            data[choice.randrange(len(data))] = choice.randrange(256)
        path.write_bytes(data[: choice.randrange(len(data))] if choice.random() < 0.3 else data)
        try:
            message, content = str(path), read_checkpoint(path)
        except InputError as error:
            message, content = str(error), {}
        assert str(path) in message
        assert isinstance(content, dict)


def test_other_files_are_refused_as_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "weights.tar"
    with pytest.raises(InputError, match="no such file"):
        read_checkpoint(path)
    for data, words in (
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"", "no torch checkpoint"),
        (b"just text", "no torch checkpoint"),
        (b"PK\x03\x04 and no more", "damaged or not complete"),
        (b"\x80\x02}q\x00X\xff\xff\xff", "damaged or not complete"),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match=words):
            read_checkpoint(path)
    with pytest.raises(InputError, match=r"expected one small data\.pkl"):
        read_checkpoint(zipped(tmp_path, b"", name="other.pkl"))
    torch.save([torch.zeros(2)], path)
    with pytest.raises(InputError, match="found a list"):
        read_checkpoint(path)


# --- Strict loading


def test_every_misfit_is_listed_and_nothing_changes(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = dict(before)
    del found["0.bias"]
    found |= {
        "0.weight": torch.zeros(2, 4),
        "1.weight": torch.tensor([1.0, float("nan")]),
        "1.num_batches_tracked": torch.tensor(1.0),
        "2.extra": torch.zeros(1),
    }
    with pytest.raises(InputError) as caught:
        load_strictly("file.tar", network, found, "the network")
    for words in (
        "file.tar does not fit the network",
        "missing: 0.bias",
        "unexpected: 2.extra",
        "misshapen: 0.weight (2, 4) instead of (2, 3)",
        "mistyped: 1.num_batches_tracked torch.float32 instead of torch.int64",
        "not finite: 1.weight",
    ):
        assert words in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_loaded_weights_are_the_networks_own(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"a.weight": torch.ones(2, 3).half(), "a.bias": torch.ones(2), "other": torch.ones(1)}, path)
    with torch.device("meta"):
        network = torch.nn.Linear(3, 2)
    load_strictly(path, network, named_tensors(path, read_checkpoint(path), "a."), "the network")
    assert network.weight.dtype == torch.float32
    with torch.no_grad():
        network.weight.zero_()
    assert bool((read_checkpoint(path)["a.weight"] == 1).all())
    with pytest.raises(InputError, match=r"expected weights under 'E_flame'; this file has a\.bias"):
        state_dict_at(path, read_checkpoint(path), "E_flame")
    torch.save({"E_flame": {"x": 1}}, path)
    with pytest.raises(InputError, match="other things at x"):
        state_dict_at(path, read_checkpoint(path), "E_flame")
