"""The files published beside FLAME's model file: landmark embeddings, masks, the texture template, eyelids."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from neuface.errors import InputError
from neuface.head.model import LandmarkEmbedding
from neuface.io.flame.landmarks import IBUG68_3D, MEDIAPIPE105, read_ibug68, read_mediapipe105
from neuface.io.scans import read_obj
from neuface.io.untrusted.array_files import checked_array, read_named_values, read_single_array
from neuface.landmarks.schemes import IBUG68

__all__ = ["FlameCompanions", "read_companions", "read_masks", "read_template_uv"]

LANDMARKS, MEDIAPIPE = "landmark_embedding.npy", "mediapipe_landmark_embedding.npz"
STATIC, DYNAMIC = "flame_static_embedding.pkl", "flame_dynamic_embedding.npy"
MASKS, TEMPLATE = "FLAME_masks.pkl", "head_template.obj"
LEFT_EYELID, RIGHT_EYELID = "l_eyelid.npy", "r_eyelid.npy"
MASK_NAMES = (
    "face", "scalp", "left_ear", "right_ear", "nose", "eye_region", "left_eye_region", "right_eye_region", "forehead",
    "lips", "neck", "boundary", "left_eyeball", "right_eyeball",
)  # fmt: skip

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True)
class FlameCompanions:
    """Paths of the companion files; for None the file is searched beside the model file, under its published name."""

    landmarks: PathLike | None = None
    """`landmark_embedding.npy`: all three sets of the 68 points."""
    static_landmarks: PathLike | None = None
    """`flame_static_embedding.pkl`: the older form; it needs `dynamic_landmarks` too. `landmarks` takes
    precedence.
    """
    dynamic_landmarks: PathLike | None = None
    """`flame_dynamic_embedding.npy`."""
    mediapipe: PathLike | None = None
    """`mediapipe_landmark_embedding.npz`."""
    masks: PathLike | None = None
    """`FLAME_masks.pkl`."""
    template: PathLike | None = None
    """`head_template.obj`."""
    left_eyelid: PathLike | None = None
    """`l_eyelid.npy`."""
    right_eyelid: PathLike | None = None
    """`r_eyelid.npy`."""


@dataclass(frozen=True, kw_only=True)
class CompanionData:
    """The content of the companion files, and advice for each that is missing."""

    embeddings: Mapping[str, LandmarkEmbedding]
    regions: Mapping[str, Bool[np.ndarray, " vertices"]]
    uv: Float[np.ndarray, "texture_vertices 2"]
    uv_faces: Int[np.ndarray, "textured_faces 3"]
    eyelids: Float[np.ndarray, "vertices 3 2"] | None
    absent: Mapping[str, str]
    """Scheme or region that a missing file would define -> where to put the file."""


def read_companions(
    folder: Path, given: FlameCompanions, faces: Int[np.ndarray, "faces 3"], vertices: int, eyelids: bool
) -> CompanionData:
    """Read every companion file that exists and check it against the model's triangles and vertices.

    Raises InputError for a damaged file, for a given path without a file, and for missing
    eyelid files if `eyelids` is true.
    """

    def find(path: PathLike | None, name: str) -> Path | None:
        if path is not None:
            return Path(path).expanduser()
        return folder / name if (folder / name).is_file() else None

    absent: dict[str, str] = {}
    embeddings: dict[str, LandmarkEmbedding] = {}
    landmarks = find(given.landmarks, LANDMARKS)
    static, dynamic = find(given.static_landmarks, STATIC), find(given.dynamic_landmarks, DYNAMIC)
    if landmarks is not None or (static is not None and dynamic is not None):
        embeddings |= read_ibug68(landmarks, static, dynamic, len(faces))
    mediapipe = find(given.mediapipe, MEDIAPIPE)
    if mediapipe is not None:
        embeddings[MEDIAPIPE105] = read_mediapipe105(mediapipe, len(faces))
    for scheme, name in ((IBUG68.name, LANDMARKS), (IBUG68_3D, LANDMARKS), (MEDIAPIPE105, MEDIAPIPE)):
        if scheme not in embeddings:
            absent[scheme] = _advice(name, folder)
    masks = find(given.masks, MASKS)
    regions = {} if masks is None else read_masks(masks, vertices)
    absent |= {name: _advice(MASKS, folder) for name in MASK_NAMES if name not in regions}
    template = find(given.template, TEMPLATE)
    uv, uv_faces = np.zeros((0, 2)), np.zeros((0, 3), np.int64)
    if template is not None:
        uv, uv_faces = read_template_uv(template, faces, vertices)
    return CompanionData(
        embeddings=embeddings,
        regions=regions,
        uv=uv,
        uv_faces=uv_faces,
        eyelids=_read_eyelids(folder, given, vertices) if eyelids else None,
        absent=absent,
    )


def read_masks(path: PathLike, vertices: int) -> dict[str, Bool[np.ndarray, " vertices"]]:
    """The named regions of `FLAME_masks.pkl`, as one truth value per vertex; regions overlap and do not cover all
    vertices.

    Raises InputError for a damaged file, one without any of the published names, or vertices that do not exist.
    """
    regions = {}
    for name, value in read_named_values(path, MASK_NAMES).items():
        chosen = checked_array(path, name, value, (None,), whole=True)
        if chosen.size and not 0 <= chosen.min() <= chosen.max() < vertices:
            raise InputError(
                f"{path}: {name!r} names vertices that do not exist; expected 0 to {vertices - 1}"
            )
        regions[name] = np.zeros(vertices, bool)
        regions[name][chosen] = True
    if not regions:
        raise InputError(f"{path}: has none of the regions of FLAME's masks ({', '.join(MASK_NAMES)})")
    return regions


def read_template_uv(
    path: PathLike, faces: Int[np.ndarray, "faces 3"], vertices: int
) -> tuple[Float[np.ndarray, "texture_vertices 2"], Int[np.ndarray, "faces 3"]]:
    """Texture coordinates (0..1 from the lower left) of `head_template.obj`, and their rows at the model's triangles.

    The template's triangles are matched to the model's by their vertices. Its vertex positions are in other axes and
    are ignored. A template without texture coordinates (one is published under the same name) gives no rows.

    Raises InputError for a damaged file or one of another mesh.
    """
    mesh = read_obj(path)
    template_faces, template_uv_faces = mesh.faces.numpy(), mesh.uv_faces.numpy()
    if not len(template_uv_faces):
        return np.zeros((0, 2)), np.zeros((0, 3), np.int64)
    if template_faces.shape != faces.shape or len(mesh.vertices) != vertices:
        raise InputError(
            f"{path}: has {len(mesh.vertices)} vertices and {len(template_faces)} triangles, "
            f"but the model has {vertices} and {len(faces)}; use the template of this model"
        )
    by_corner, by_template_corner = np.argsort(faces, 1), np.argsort(template_faces, 1)
    ordered = np.take_along_axis(faces, by_corner, 1)
    template_ordered = np.take_along_axis(template_faces, by_template_corner, 1)
    order, template_order = np.lexsort(ordered.T[::-1]), np.lexsort(template_ordered.T[::-1])
    if not np.array_equal(ordered[order], template_ordered[template_order]):
        raise InputError(f"{path}: has other triangles than the model; use the template of this model")
    sorted_uv = np.take_along_axis(template_uv_faces, by_template_corner, 1)[template_order]
    uv_faces = np.empty_like(template_uv_faces)
    uv_faces[order] = sorted_uv
    np.put_along_axis(uv_faces, by_corner, uv_faces.copy(), 1)
    return mesh.uv.numpy().astype(np.float64), uv_faces


def _read_eyelids(folder: Path, given: FlameCompanions, vertices: int) -> Float[np.ndarray, "vertices 3 2"]:
    """Offsets of the left and the right eyelid, metres per unit of their coefficients."""
    offsets = []
    for path, name in ((given.left_eyelid, LEFT_EYELID), (given.right_eyelid, RIGHT_EYELID)):
        file = folder / name if path is None else Path(path).expanduser()
        if path is None and not file.is_file():
            raise InputError(f"the eyelids were asked for, but {file} is not there; {_advice(name, folder)}")
        offsets.append(checked_array(file, "eyelid", read_single_array(file), (vertices, 3)))
    return np.stack(offsets, axis=-1)


def _advice(name: str, folder: Path) -> str:
    return f"put {name} beside the model file (in {folder}), or give its path, and load the head again"
