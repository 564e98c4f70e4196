"""A small FLAME and its companions, written in the layout in which the licensed files are published.

The model file is what Python 2 wrote: a protocol-2 pickle with a chumpy object and a scipy matrix inside, which are
written here without either package.
"""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

POINTS, ROWS = 51, 79
REGIONS = ("face", "lips", "left_eyeball", "right_eyeball")


class Ch:
    """Pickles like chumpy's array."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x
        self._dirty_vars: set[str] = set()


class csc_matrix:
    """Pickles like scipy's old compressed matrix."""

    def __init__(self, dense: np.ndarray) -> None:
        columns, rows = np.nonzero(dense.T)
        self._shape = dense.shape
        self.maxprint = 50
        self.data, self.indices = dense[rows, columns], rows.astype(np.int32)
        self.indptr = np.searchsorted(columns, np.arange(dense.shape[1] + 1)).astype(np.int32)


@contextmanager
def under_their_names() -> Iterator[None]:
    """The two classes are importable where the published pickles look for them."""
    # A module is imported through its package, so that has to be there, too.
    kinds = {"chumpy": None, "chumpy.ch": Ch, "scipy.sparse.csc": csc_matrix}
    before = {name: sys.modules.get(name) for name in kinds}
    for name, kind in kinds.items():
        module: Any = types.ModuleType(name)
        if kind is not None:
            setattr(module, kind.__name__, kind)
            kind.__module__ = name
        sys.modules[name] = module
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def flame_arrays(
    vertices: int = 12, faces: int = 20, seed: int = 0, scale: float = 0.1
) -> dict[str, np.ndarray]:
    """Random arrays in the sizes of FLAME's, but for the mesh."""
    generator = np.random.default_rng(seed)
    weights, joints = generator.random((vertices, 5)), generator.random((5, vertices))
    joints[:, vertices // 2 :] = 0
    corners = np.argsort(generator.random((faces, vertices)), axis=1)[:, :3]
    return {
        "v_template": scale * generator.normal(size=(vertices, 3)),
        "shapedirs": 1e-3 * generator.normal(size=(vertices, 3, 400)),
        "posedirs": 1e-3 * generator.normal(size=(vertices, 3, 36)),
        "weights": weights / weights.sum(1, keepdims=True),
        "J_regressor": joints / joints.sum(1, keepdims=True),
        "J": np.zeros((5, 3)),
        "f": corners.astype(np.uint32),
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], range(5)], np.uint32),
    }


def write_model_pickle(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """`generic_model.pkl`."""
    with under_their_names():
        content = {
            **arrays,
            "shapedirs": Ch(arrays["shapedirs"]),
            "posedirs": np.asfortranarray(arrays["posedirs"]),
            "J_regressor": csc_matrix(arrays["J_regressor"]),
            "bs_style": "lbs",
            "bs_type": "lrotmin",
        }
        path.write_bytes(pickle.dumps(content, 2))


def write_flame_folder(folder: Path, arrays: dict[str, np.ndarray], seed: int = 0) -> None:
    """The model and every companion file under their published names."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    vertices, faces = len(arrays["v_template"]), len(arrays["f"])

    def points(index: str, weight: str, *shape: int, kind: Any = np.int64) -> dict[str, np.ndarray]:
        barycentric = generator.random((*shape, 3))
        return {
            index: generator.integers(0, faces, shape).astype(kind),
            weight: barycentric / barycentric.sum(-1, keepdims=True),
        }

    landmarks: Any = {
        **points("static_lmk_faces_idx", "static_lmk_bary_coords", POINTS),
        **points("dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords", ROWS, 17),
        **points("full_lmk_faces_idx", "full_lmk_bary_coords", 1, 68),
    }
    write_model_pickle(folder / "generic_model.pkl", arrays)
    np.save(folder / "landmark_embedding.npy", landmarks, allow_pickle=True)
    np.savez(
        folder / "mediapipe_landmark_embedding.npz",
        allow_pickle=False,
        **points("lmk_face_idx", "lmk_b_coords", 105, kind=np.uint32),
        landmark_indices=np.arange(105),
    )
    masks = {name: np.arange(number + 1, dtype=np.int64) for number, name in enumerate(REGIONS)}
    (folder / "FLAME_masks.pkl").write_bytes(pickle.dumps(masks, 0))
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in arrays["v_template"]]
    lines += [f"vt {u:.6f} {v:.6f}" for u, v in generator.random((vertices, 2))]
    lines += [f"f {a}/{a} {b}/{b} {c}/{c}" for a, b, c in (arrays["f"].astype(int) + 1).tolist()]
    (folder / "head_template.obj").write_text("\n".join(lines) + "\n")
    for side in "lr":
        np.save(folder / f"{side}_eyelid.npy", 1e-3 * generator.normal(size=(vertices, 3)))
