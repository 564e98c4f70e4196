"""Encoder weights survive a round trip, and a file that does not fit is refused with all its faults named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_encoder import SMALL_ENCODER

from neuface.encoders.open_encoder import OpenEncoder
from neuface.errors import InputError, ModelMismatchError
from neuface.head.model import HeadModel
from neuface.io.open_model.encoder_file import read_encoder, read_open_encoder, write_encoder


@pytest.fixture
def written(tmp_path: Path, open_head: HeadModel) -> tuple[Path, OpenEncoder]:
    torch.manual_seed(1)
    encoder = OpenEncoder(open_head, SMALL_ENCODER)
    encoder(torch.rand(4, 3, 112, 112))  # moves the statistics of the normalisation layers
    path = tmp_path / "encoder.safetensors"
    write_encoder(path, encoder, {"training": "none"})
    return path, encoder.eval()


def rewrite(path: Path, change: dict[str, torch.Tensor | None]) -> None:
    with safe_open(path, framework="pt") as archive:
        metadata = archive.metadata()
    tensors = {**load_file(path), **change}
    save_file({name: value for name, value in tensors.items() if value is not None}, path, metadata=metadata)


def test_round_trip(written: tuple[Path, OpenEncoder], open_head: HeadModel) -> None:
    path, encoder = written
    back = read_encoder(path, open_head)
    assert back.config == SMALL_ENCODER
    assert not back.training
    assert all(weight.dtype == torch.float32 for weight in back.parameters())
    pictures = torch.rand(3, 3, 112, 112)
    before, after = encoder(pictures), back(pictures)
    assert torch.allclose(before.params.identity, after.params.identity, atol=1e-3)
    assert torch.allclose(before.camera.position, after.camera.position, atol=1e-3)
    with safe_open(path, framework="pt") as archive:
        metadata = archive.metadata()
    assert metadata["head_hash"] == open_head.parameter_hash()
    assert metadata["training"] == "none"


def test_all_misfits_are_named_at_once(written: tuple[Path, OpenEncoder], open_head: HeadModel) -> None:
    path, _ = written
    rewrite(path, {"hidden.bias": None, "extra": torch.zeros(2), "readout.bias": torch.zeros(3)})
    with pytest.raises(InputError) as caught:
        read_encoder(path, open_head)
    message = str(caught.value)
    assert "missing: hidden.bias" in message
    assert "unexpected: extra" in message
    assert "misshapen: readout.bias (3,) instead of (158,)" in message


def test_weights_that_are_not_finite_are_refused(
    written: tuple[Path, OpenEncoder], open_head: HeadModel
) -> None:
    path, encoder = written
    rewrite(path, {"hidden.bias": torch.full_like(encoder.hidden.bias, torch.nan)})
    with pytest.raises(InputError, match=r"not finite: hidden\.bias"):
        read_encoder(path, open_head)


@pytest.mark.parametrize("width", [0, 10**9])
def test_a_network_of_absurd_size_is_not_built(
    written: tuple[Path, OpenEncoder], open_head: HeadModel, width: int
) -> None:
    path, _ = written
    with safe_open(path, framework="pt") as archive:
        metadata = archive.metadata()
    config = json.loads(metadata["config"])
    config["widths"][3] = width
    save_file(load_file(path), path, metadata={**metadata, "config": json.dumps(config)})
    with pytest.raises(InputError, match="sizes"):
        read_encoder(path, open_head)


def test_another_head_is_refused(written: tuple[Path, OpenEncoder], open_head: HeadModel) -> None:
    other = replace(open_head, name="other", template=open_head.template + 0.001)
    with pytest.raises(ModelMismatchError, match="other"):
        read_encoder(written[0], other)


@pytest.mark.parametrize("key", ["format", "config"])
def test_files_without_our_description_are_refused(
    written: tuple[Path, OpenEncoder], open_head: HeadModel, key: str
) -> None:
    path, _ = written
    with safe_open(path, framework="pt") as archive:
        metadata = archive.metadata()
    save_file(load_file(path), path, metadata={**metadata, key: "???"})
    with pytest.raises(InputError):
        read_encoder(path, open_head)


def test_unreadable_files_are_refused(tmp_path: Path, open_head: HeadModel) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"not a weights file")
    for path in (damaged, tmp_path / "absent.safetensors"):
        with pytest.raises(InputError, match="safetensors"):
            read_encoder(path, open_head)


def test_shipped_weights_fit_the_open_head(open_head: HeadModel) -> None:
    answer = read_open_encoder(open_head)(torch.rand(2, 3, 112, 112))
    assert answer.params.identity.isfinite().all()
