"""The shipped weights of the face networks, made from Google's bundle by `tools/convert_face_mesh.py`."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from safetensors.torch import save_file

from neuface.devices import cpu_seed
from neuface.errors import InputError
from neuface.io.atomic import atomic_path
from neuface.io.untrusted.safetensors_file import read_safetensors
from neuface.io.untrusted.strict_state_dict import refuse_misfits
from neuface.landmarks.face_mesh.networks import FaceNetworks

FORMAT = "neuface-face-mesh-1"
ORIGIN = (
    "MediaPipe Face Landmarker (float16, 2023-05-03), Google, Apache License 2.0, converted to safetensors"
)


def shipped_file() -> Path:
    """Where the package keeps the weights."""
    return Path(str(resources.files("neuface") / "assets" / "face_mesh.safetensors"))


def write_face_networks(path: str | os.PathLike[str], networks: FaceNetworks) -> None:
    """Write the three networks in half precision, in which Google publishes them; nothing is lost."""
    tensors = {name: tensor.half().contiguous() for name, tensor in networks.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"format": FORMAT, "origin": ORIGIN})


def read_face_networks(path: str | os.PathLike[str] | None = None) -> FaceNetworks:
    """The three networks, in evaluation mode and single precision; the default is the shipped file.

    Raises:
        InputError: The file cannot be read, or its tensors are not those of the networks (they are named).
    """
    source = shipped_file() if path is None else path
    tensors, metadata = read_safetensors(source)
    if metadata.get("format") != FORMAT:
        raise InputError(f"{source} holds no weights of the face networks (expected format {FORMAT!r})")
    # The random initial weights are replaced below; drawing them must not change the caller's random state.
    with cpu_seed(0):
        networks = FaceNetworks()
    refuse_misfits(source, tensors, networks.state_dict(), "the face networks")
    networks.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return networks.eval().requires_grad_(False)
