"""Encoders with weights from a closed formula, for which the official programs' outputs are stored.

The formula and the outputs are described in tests/data/parity/README.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
import pytest
import torch
from data_folders import PARITY
from torch import Tensor, nn

M64 = (1 << 64) - 1
PIECE = 1 << 15
LARGEST_LAYER = 8192
Weights = Mapping[str, Tensor]


@pytest.fixture(scope="session")
def reference() -> Callable[[str], dict[str, np.ndarray]]:
    """`reference(name)`: the stored arrays of one file."""

    def read(name: str) -> dict[str, np.ndarray]:
        with np.load(PARITY / "reference" / f"{name}.npz") as archive:
            return dict(archive)

    return read


@pytest.fixture(scope="session")
def pictures(reference: Callable[[str], dict[str, np.ndarray]]) -> Tensor:
    """The three images as inputs of the networks."""
    return torch.from_numpy(reference("deca_encoder")["images_u8"].astype(np.float32) / np.float32(255))


@pytest.fixture(scope="session")
def formula() -> Callable[..., Weights]:
    """`formula("E_flame")`: a network's weights, keys without the network's name; `outputs=53` for the variant."""

    @lru_cache(maxsize=8)
    def weights(network: str, outputs: int | None = None) -> Weights:
        found: dict[str, Tensor] = {}
        name = "SMIRK" if network == "smirk_encoder" else network
        for line in (PARITY / "checkpoints" / f"keys_{name}.tsv").read_text().splitlines()[1:]:
            key, size, _ = line.split("\t")
            shape = () if size == "scalar" else tuple(int(number) for number in size.split("x"))
            if outputs is not None and key.startswith("layers.2."):
                shape = (outputs, *shape[1:])
            key = key.removeprefix(f"{network}.")
            found[key] = torch.from_numpy(formula_tensor(f"{network}.{key}", shape))
        return found

    return weights


@pytest.fixture(scope="session")
def load_formula(formula: Callable[..., Weights]) -> Callable[..., nn.Module]:
    """`load_formula(encoder, E_flame=None)`: the encoder, built on the meta device, with the formula's weights."""

    def load(encoder: nn.Module, **networks: int | None) -> nn.Module:
        for network, outputs in networks.items():
            encoder.get_submodule(network).load_state_dict(formula(network, outputs), assign=True)
        return encoder.eval()

    return load


@pytest.fixture(scope="session")
def formula_number() -> Callable[..., tuple[int, np.float32]]:
    """`formula_number(key, shape, index)`: the key's hash and the number at one flat position."""

    def number(key: str, shape: tuple[int, ...], index: int) -> tuple[int, np.float32]:
        return key_hash(key), formula_values(key, shape, np.array([index])).astype(np.float32)[0]

    return number


def formula_tensor(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """One tensor of the formula, computed in pieces that fit into the processor's cache."""
    if key.endswith("num_batches_tracked"):
        return np.array(12345, dtype=np.int64)
    count = math.prod(shape)
    values = np.empty(count, dtype=np.float32)
    for start in range(0, count, PIECE):
        stop = min(start + PIECE, count)
        values[start:stop] = formula_values(key, shape, np.arange(start, stop))
    return values.reshape(shape)


def formula_values(key: str, shape: tuple[int, ...], index: np.ndarray) -> np.ndarray:
    """Values at flat positions; the cases have the order of the README."""
    u = formula_u(key, index.astype(np.uint64))
    s = 2 * u - 1
    row = index // math.prod(shape[1:])
    if key.endswith("running_mean"):
        return 0.2 + 0.1 * s
    if key.endswith("running_var"):
        return 0.75 + 0.5 * u
    if len(shape) == 4:
        first = key.startswith("E_") and key.endswith(".encoder.conv1.weight")
        gain = 4.0 if first or key.endswith("conv_stem.weight") else 1.0
        q = 2.0 if key.endswith("conv_pwl.weight") else 6.0
        return gain * math.sqrt(q / math.prod(shape[1:])) * s
    if len(shape) == 2:
        return by_row(SPREADS, key, 1.0)[row] * math.sqrt(6.0 / shape[1]) * s
    if key.startswith("E_") and key.endswith("layers.0.bias"):
        return -2 + 0.1 * s
    if (key.startswith("E_") and key.endswith("layers.2.bias")) or key.endswith("_layers.0.bias"):
        return by_row(CENTRES, key, 0.0)[row] + 0.1 * by_row(SPREADS, key, 1.0)[row] * s
    if key.endswith("bias"):
        return 0.1 * s
    return (0.3 if key.startswith("E_") and ".bn3." in key else 1.0) * (0.8 + 0.4 * u)


def key_hash(key: str) -> int:
    """FNV-1a, 64 bits."""
    value = 0xCBF29CE484222325
    for byte in key.encode():
        value = ((value ^ byte) * 0x100000001B3) & M64
    return value


def formula_u(key: str, index: np.ndarray) -> np.ndarray:
    """The uniform numbers of a key at flat positions (uint64, which wraps around), float64."""
    z = (index + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key_hash(key))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z ^= z >> np.uint64(shift)
        z *= np.uint64(factor)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def by_row(table: Mapping[str, list[tuple[int, int, float]]], key: str, default: float) -> np.ndarray:
    """A number for every output row of a linear layer."""
    values = np.full(LARGEST_LAYER, default)
    for part, ranges in table.items():
        if part in key:
            for start, stop, value in ranges:
                values[start:stop] = value
    return values


SPREADS = {
    "E_flame.layers.2": [
        (0, 200, 0.5), (200, 203, 0.04), (203, 206, 0.02), (206, 207, 0.08), (207, 209, 0.005), (209, 236, 0.07),
    ],
    "E_expression.layers.2": [(0, 50, 0.5), (50, 53, 0.02)],
    "E_detail.layers.2": [(0, 128, 0.3)],
    "pose_cam_layers.0": [(0, 3, 0.02), (3, 4, 0.03), (4, 6, 0.003)],
    "shape_encoder.shape_layers.0": [(0, 300, 0.12)],
    "expression_layers.0": [(0, 50, 0.3), (50, 52, 0.1), (52, 55, 0.04)],
}  # fmt: skip
CENTRES = {
    "E_flame.layers.2": [(203, 204, 0.1), (206, 207, 8.0), (209, 212, 3.3)],
    "pose_cam_layers.0": [(3, 4, 7.0)],
    "expression_layers.0": [(50, 52, 0.5), (52, 53, 0.15)],
}
