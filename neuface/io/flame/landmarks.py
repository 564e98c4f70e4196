"""Landmark embeddings of FLAME: the 68 points of iBUG in two versions, and 105 of MediaPipe's points.

`ibug68` is DECA's 2D set: 17 contour points that slide with the head's yaw, then the 51 fixed points. `ibug68_3d` is
the 3D set, whose contour lies on the jaw line. `mediapipe105` are brows, eyes, nose and lips of MediaPipe's face
mesh.
"""

from __future__ import annotations

import math
import os

import numpy as np
import torch
from jaxtyping import Float, Int

from neuface.errors import InputError
from neuface.head.model import LandmarkEmbedding
from neuface.io.untrusted.array_files import checked_array, read_named_values
from neuface.landmarks.schemes import IBUG68, MEDIAPIPE478

__all__ = ["IBUG68_3D", "MEDIAPIPE105", "read_ibug68", "read_mediapipe105"]

IBUG68_3D, MEDIAPIPE105 = "ibug68_3d", "mediapipe105"
CONTOUR_POINTS, FIXED_POINTS = 17, 51
MEDIAPIPE_POINTS = 105
# Largest yaw with a contour of its own in FLAME's table, degrees; there is one row per whole degree.
LARGEST_YAW_DEG = 39
YAW_ROWS = 2 * LARGEST_YAW_DEG + 1

PathLike = str | os.PathLike[str]
Points = tuple[Int[np.ndarray, "*points"], Float[np.ndarray, "*points 3"]]


def read_ibug68(
    combined: PathLike | None, static: PathLike | None, dynamic: PathLike | None, faces: int
) -> dict[str, LandmarkEmbedding]:
    """The embedding `ibug68` and, if there is a combined file, `ibug68_3d`.

    Args:
        combined: `landmark_embedding.npy`, which is used if it is given.
        static, dynamic: the older `flame_static_embedding.pkl` and `flame_dynamic_embedding.npy`.
        faces: number of triangles of the model.

    Raises:
        InputError: a file is damaged, an array is missing or misshapen, or a triangle does not exist.
    """
    if combined is not None:
        fixed = _points(combined, "static_lmk_faces_idx", "static_lmk_bary_coords", (FIXED_POINTS,), faces)
        rows = _points(
            combined, "dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords", (YAW_ROWS, CONTOUR_POINTS), faces
        )
        whole = _points(
            combined, "full_lmk_faces_idx", "full_lmk_bary_coords", (1, CONTOUR_POINTS + FIXED_POINTS), faces
        )
        return {IBUG68.name: _sliding(fixed, rows), IBUG68_3D: _static(whole[0][0], whole[1][0])}
    if static is None or dynamic is None:
        raise InputError("the 68 landmarks need the combined embedding, or the static and the dynamic one")
    fixed = _points(static, "lmk_face_idx", "lmk_b_coords", (FIXED_POINTS,), faces)
    rows = _points(dynamic, "lmk_face_idx", "lmk_b_coords", (YAW_ROWS, CONTOUR_POINTS), faces)
    return {IBUG68.name: _sliding(fixed, rows)}


def read_mediapipe105(path: PathLike, faces: int) -> LandmarkEmbedding:
    """`mediapipe_landmark_embedding.npz`; `mesh_points` are the points' numbers in MediaPipe's mesh.

    Raises InputError for a damaged file, a missing or misshapen array, or points and triangles that do not exist.
    """
    triangles, barycentric = _points(path, "lmk_face_idx", "lmk_b_coords", (MEDIAPIPE_POINTS,), faces)
    numbers = _array(path, "landmark_indices", (MEDIAPIPE_POINTS,), whole=True)
    if not 0 <= numbers.min() <= numbers.max() < MEDIAPIPE478.count:
        raise InputError(f"{path}: 'landmark_indices' names points beyond MediaPipe's {MEDIAPIPE478.count}")
    return _static(triangles, barycentric, torch.from_numpy(numbers))


def _sliding(
    fixed: tuple[Int[np.ndarray, " fixed"], Float[np.ndarray, "fixed 3"]],
    rows: tuple[Int[np.ndarray, "rows contour"], Float[np.ndarray, "rows contour 3"]],
) -> LandmarkEmbedding:
    """The 17 contour points for each whole degree of yaw, followed by the fixed points.

    In the files, row 0 is frontal, rows 1 to 39 are +1 to +39 degrees and rows 40 to 78 are -1 to -39 degrees. A
    positive yaw is a rotation to the subject's left, as DECA, EMOCA and SMIRK use the table; smplx and FLAME_PyTorch
    negate the angle, which selects the contour of the other cheek.
    """
    order = [*range(YAW_ROWS - 1, LARGEST_YAW_DEG, -1), *range(LARGEST_YAW_DEG + 1)]
    triangles, barycentric = rows[0][order], rows[1][order]
    frontal = LARGEST_YAW_DEG
    yaw_deg = torch.arange(-LARGEST_YAW_DEG, LARGEST_YAW_DEG + 1, dtype=torch.float64)
    return LandmarkEmbedding(
        triangles=torch.from_numpy(np.concatenate((triangles[frontal], fixed[0]))),
        barycentric=torch.from_numpy(np.concatenate((barycentric[frontal], fixed[1]))),
        contour_yaw_rad=yaw_deg * (math.pi / 180),
        contour_triangles=torch.from_numpy(triangles),
        contour_barycentric=torch.from_numpy(barycentric),
        contour_angle="lateral_depth",
    )


def _static(
    triangles: Int[np.ndarray, " points"],
    barycentric: Float[np.ndarray, "points 3"],
    mesh_points: Int[torch.Tensor, " points"] | None = None,
) -> LandmarkEmbedding:
    none = torch.zeros(0, dtype=torch.float64)
    return LandmarkEmbedding(
        triangles=torch.from_numpy(triangles),
        barycentric=torch.from_numpy(barycentric),
        contour_yaw_rad=none,
        contour_triangles=none.view(0, 0).long(),
        contour_barycentric=none.view(0, 0, 3),
        mesh_points=mesh_points,
    )


def _points(path: PathLike, index_name: str, weight_name: str, shape: tuple[int, ...], faces: int) -> Points:
    """Triangles and barycentric weights of points. Raises InputError for triangles that do not exist."""
    index = _array(path, index_name, shape, whole=True)
    if not 0 <= index.min() <= index.max() < faces:
        raise InputError(
            f"{path}: {index_name!r} names triangles that do not exist; expected 0 to {faces - 1}"
        )
    return index, _array(path, weight_name, (*shape, 3), whole=False)


def _array(path: PathLike, name: str, shape: tuple[int, ...], *, whole: bool) -> np.ndarray:
    values = read_named_values(path, (name,))
    if name not in values:
        raise InputError(f"{path}: has no {name!r}; expected an embedding of landmarks as it is published")
    return checked_array(path, name, values[name], shape, whole=whole)
