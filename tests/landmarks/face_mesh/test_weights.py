"""The shipped weights: what the tool reads out of Google's bundle, and what it refuses."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from data_folders import DATA, needs

from neuface.errors import InputError
from neuface.io.face_mesh_file import read_face_networks, shipped_file, write_face_networks
from neuface.landmarks.face_mesh.networks import FaceNetworks
from tools.convert_face_mesh import GRAPH_MEMBERS, checked, constants_of, fill, weights_of

BUNDLE = DATA / "mediapipe_face_landmarker" / "face_landmarker.task"
MOST_BYTES = 4_000_000


def graph(name: str) -> bytes:
    with zipfile.ZipFile(BUNDLE) as archive:
        return archive.read(GRAPH_MEMBERS[name])


def test_the_shipped_file_is_small_and_read_whole() -> None:
    assert shipped_file().stat().st_size < MOST_BYTES
    networks = read_face_networks()
    assert sum(tensor.numel() for tensor in networks.detector.parameters()) > 90_000
    assert not networks.training


@needs(BUNDLE)
def test_the_shipped_weights_are_those_of_the_bundle() -> None:
    made, shipped = FaceNetworks(), read_face_networks()
    for name in GRAPH_MEMBERS:
        fill(getattr(made, name), weights_of(graph(name)))
    for name, tensor in made.state_dict().items():
        assert torch.equal(tensor, shipped.state_dict()[name]), name


@needs(BUNDLE)
def test_a_damaged_graph_is_refused() -> None:
    intact = graph("detector")
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match="TFL3"):
        list(constants_of(intact[:4] + b"PK34" + intact[8:]))
    for length in generator.integers(8, len(intact) // 2, 20):
        with pytest.raises(ValueError, match="byte"):
            list(constants_of(intact[:length]))


def test_another_bundle_is_refused() -> None:
    with pytest.raises(SystemExit, match="SHA-256"):
        checked(b"another", "0" * 64, "the wheel")


def test_a_file_of_other_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(os.urandom(64))
    with pytest.raises(InputError, match="safetensors"):
        read_face_networks(path)
    broken = FaceNetworks()
    broken.detector.stem = torch.nn.Conv2d(3, 8, 5)
    write_face_networks(path, broken)
    with pytest.raises(InputError, match=r"detector\.stem"):
        read_face_networks(path)


def test_reading_leaves_the_random_state_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    read_face_networks()
    assert torch.equal(before, torch.get_rng_state())
