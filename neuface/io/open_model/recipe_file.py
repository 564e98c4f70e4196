"""The open head's recipe: the small shipped file that says how the head follows from the CC0 assets."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from neuface.head.model import LandmarkEmbedding

SHIPPED_RECIPE = "open_head_recipe.npz"


@dataclass(frozen=True, kw_only=True)
class HeadRecipe:
    """Integers and indices only, but for landmark positions; see `tools/make_open_head_recipe.py`."""

    vertex_index: NDArray[np.int32]
    """(vertices,) base-mesh vertices that make up the head: skin, tongue, left eye, right eye."""
    target_names: NDArray[np.character]
    """(targets,) the morph targets that identity is made of, text."""
    mean: NDArray[np.int64]
    """(targets,) mean weights in COEFFICIENT_UNIT."""
    modes: NDArray[np.int64]
    """(modes, targets + 6) identity modes in COEFFICIENT_UNIT."""
    projection: NDArray[np.float32]
    """(targets, modes) from target weights to mode coordinates."""
    region_names: NDArray[np.character]
    region_masks: NDArray[np.bool_]
    """(regions, vertices)."""
    mediapipe_triangles: NDArray[np.int32]
    mediapipe_barycentric: NDArray[np.float32]
    mediapipe_yaw_rad: NDArray[np.float32]
    mediapipe_row_triangles: NDArray[np.int32]
    """(rows, 478) where the detector puts its points on a head turned by each yaw."""
    mediapipe_row_barycentric: NDArray[np.float32]
    ibug_triangles: NDArray[np.int32]
    ibug_barycentric: NDArray[np.float32]
    contour_yaw_rad: NDArray[np.float32]
    contour_triangles: NDArray[np.int32]
    contour_barycentric: NDArray[np.float32]

    def embeddings(self) -> dict[str, LandmarkEmbedding]:
        """Landmark embeddings by scheme: of iBUG-68 the contour slides with yaw, of MediaPipe all points do."""
        return {
            "ibug68": LandmarkEmbedding(
                triangles=torch.from_numpy(self.ibug_triangles).long(),
                barycentric=torch.from_numpy(self.ibug_barycentric),
                contour_yaw_rad=torch.from_numpy(self.contour_yaw_rad),
                contour_triangles=torch.from_numpy(self.contour_triangles).long(),
                contour_barycentric=torch.from_numpy(self.contour_barycentric),
            ),
            "mediapipe478": LandmarkEmbedding(
                triangles=torch.from_numpy(self.mediapipe_triangles).long(),
                barycentric=torch.from_numpy(self.mediapipe_barycentric),
                contour_yaw_rad=torch.from_numpy(self.mediapipe_yaw_rad),
                contour_triangles=torch.from_numpy(self.mediapipe_row_triangles).long(),
                contour_barycentric=torch.from_numpy(self.mediapipe_row_barycentric),
            ),
        }


def read_head_recipe(path: Path | None = None) -> HeadRecipe:
    """The recipe shipped with the package, or one written by `write_head_recipe`."""
    source = path or Path(str(resources.files("neuface") / "assets" / SHIPPED_RECIPE))
    with np.load(source, allow_pickle=False) as archive:
        return HeadRecipe(**{item.name: archive[item.name] for item in fields(HeadRecipe)})


def recipe_bytes() -> bytes:
    """The shipped recipe as it lies on disk, to be hashed."""
    return (resources.files("neuface") / "assets" / SHIPPED_RECIPE).read_bytes()


def write_head_recipe(path: Path, recipe: HeadRecipe) -> None:
    """Write a recipe as a compressed npz."""
    np.savez_compressed(path, **{item.name: getattr(recipe, item.name) for item in fields(HeadRecipe)})
